"""Gaussian data, with any covariance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np

from cmcore._annotations import Condition, OnHost
from cmcore._arrays import from_host, to_host
from cmcore._door import check_arguments
from cmcore._rows import rows_of, squared_times
from cmcore.backend import Array, namespace
from cmcore.oracles.oracle import Oracle
from cmcore.types import Samples, Time

_ROUNDING = 1e-10
"""By how much of its greatest number a covariance may miss what it should be."""
Deviations = Annotated[
    Any,
    Condition(
        lambda std, covariance: (std is None) != (covariance is None),
        "A Gaussian needs one of std and covariance, and not both.",
    ),
    OnHost(lambda std: np.all(std >= 0), lambda std: f"std must be at least 0, got {std.min()}."),
]
Covariance = Annotated[
    Any,
    OnHost(
        lambda covariance: covariance.ndim == 2 and covariance.shape[0] == covariance.shape[1] > 0,
        "covariance must be a square matrix, got shape {covariance.shape}.",
    ),
    OnHost(
        lambda covariance: np.allclose(covariance, covariance.T, rtol=0, atol=_ROUNDING * np.abs(covariance).max()),
        "covariance must be symmetric, which the one given is not.",
    ),
    OnHost(
        lambda mean, covariance: mean.size in (1, len(covariance)),
        lambda mean, covariance: f"mean has {mean.size} coordinates, but covariance {len(covariance)}.",
    ),
]


@dataclass(frozen=True, eq=False)
class Gaussian(Oracle):
    """The distribution N(mean, std^2) of every coordinate, or N(mean, covariance) of the flattened sample.

    Along each principal axis, of variance v, ``score = -(x - m) / (v + t^2)``, ``D = m + v / (v + t^2) (x - m)`` and
    ``flow = m + sqrt((v + s^2) / (v + t^2)) (x - m)``.

    ``mean`` and ``std`` are numbers, for samples of any shape, or have the shape of one sample; ``covariance``, given
    in place of std, is (D, D). Variances may be zero; the time t must then be positive.
    """

    mean: Any = 0.0
    std: Deviations = None
    covariance: Covariance = None
    _event: tuple[int, ...] = field(init=False, repr=False)
    _mean: np.ndarray = field(init=False, repr=False)
    _variances: np.ndarray = field(init=False, repr=False)
    _axes: np.ndarray | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        mean = to_host(self.mean, "mean")
        if self.std is None:
            variances, axes = _principal_axes(to_host(self.covariance, "covariance"))
            event = mean.shape or variances.shape
        else:
            std, axes = to_host(self.std, "std"), None
            event = np.broadcast_shapes(mean.shape, std.shape)
            variances = np.ravel(np.broadcast_to(std, event)) ** 2
        values = {
            "_event": event,
            "_mean": np.ravel(np.broadcast_to(mean, event)),
            "_variances": variances,
            "_axes": axes,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def score(self, x: Samples, t: Time) -> Samples:
        """Return ``-(covariance + t^2)^-1 (x - mean)``."""
        rows, tt = self._centred(x), squared_times(t)
        return namespace(x).reshape(self._scale_axes(rows, lambda v: -1.0 / (v + tt)), x.shape)

    def denoiser(self, x: Samples, t: Time) -> Samples:
        """Return ``mean + covariance (covariance + t^2)^-1 (x - mean)``."""
        rows, tt = self._centred(x), squared_times(t)
        return self._around_mean(self._scale_axes(rows, lambda v: v / (v + tt)), x)

    def flow(self, x: Samples, t: Time, s: Time) -> Samples:
        """Return ``mean + ((covariance + s^2) (covariance + t^2)^-1)^(1/2) (x - mean)``."""
        xp, rows = namespace(x), self._centred(x)
        tt, ss = squared_times(t), squared_times(s)
        return self._around_mean(self._scale_axes(rows, lambda v: xp.sqrt((v + ss) / (v + tt))), x)

    def sample(self, z: Samples) -> Samples:
        """Return data (B, ...) made of standard normal numbers z of the same shape."""
        return self._around_mean(self._scale_axes(rows_of(z, self._event), namespace(z).sqrt), z)

    def _centred(self, x: Array) -> Array:
        return rows_of(x, self._event) - from_host(self._mean, like=x)

    def _around_mean(self, rows: Array, like: Array) -> Array:
        return namespace(like).reshape(from_host(self._mean, like=like) + rows, like.shape)

    def _scale_axes(self, rows: Array, factor: Callable[[Array], Array]) -> Array:
        variances = from_host(self._variances, like=rows)
        if self._axes is None:
            return factor(variances) * rows
        xp, axes = namespace(rows), from_host(self._axes, like=rows)
        return xp.matmul(factor(variances) * xp.matmul(rows, axes), xp.matrix_transpose(axes))


def _principal_axes(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    variances, axes = np.linalg.eigh((covariance + covariance.T) / 2)
    if variances[0] < -_ROUNDING * np.abs(covariance).max():
        raise ValueError(f"covariance must have no negative eigenvalue, got {variances[0]}.")
    return np.maximum(variances, 0.0), axes


check_arguments(__name__)
