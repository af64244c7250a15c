"""Gaussian data, with any covariance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cmcore._arrays import Time, from_host, to_host
from cmcore._rows import rows_of, squared_times
from cmcore.backend import Array, namespace
from cmcore.oracles.oracle import Oracle


@dataclass(frozen=True, eq=False)
class Gaussian(Oracle):
    """The law N(mean, std^2) of every coordinate, or N(mean, covariance) of the flattened sample.

    Along each principal axis, of variance v, ``score = -(x - m) / (v + t^2)``, ``D = m + v / (v + t^2) (x - m)`` and
    ``flow = m + sqrt((v + s^2) / (v + t^2)) (x - m)``.

    ``mean`` and ``std`` are numbers, for samples of any shape, or have the shape of one sample; ``covariance``, given
    in place of std, is (D, D). Variances may be zero; the time t must then be positive.
    """

    mean: Any = 0.0
    std: Any = None
    covariance: Any = None
    _event: tuple[int, ...] = field(init=False, repr=False)
    _mean: np.ndarray = field(init=False, repr=False)
    _variances: np.ndarray = field(init=False, repr=False)
    _axes: np.ndarray | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if (self.std is None) == (self.covariance is None):
            raise ValueError("A Gaussian needs one of std and covariance, and not both.")
        mean = to_host(self.mean, "mean")
        if self.std is None:
            variances, axes = _principal_axes(to_host(self.covariance, "covariance"))
            event = mean.shape or variances.shape
            if mean.size not in (1, variances.size):
                raise ValueError(f"mean has {mean.size} coordinates, but covariance {variances.size}.")
        else:
            std, axes = to_host(self.std, "std"), None
            if np.any(std < 0):
                raise ValueError(f"std must be at least 0, got {std.min()}.")
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

    def score(self, x: Array, t: Time) -> Array:
        """Return ``-(covariance + t^2)^-1 (x - mean)``."""
        rows, tt = self._centred(x), squared_times(t, x)
        return namespace(x).reshape(self._scale_axes(rows, lambda v: -1.0 / (v + tt)), x.shape)

    def denoiser(self, x: Array, t: Time) -> Array:
        """Return ``mean + covariance (covariance + t^2)^-1 (x - mean)``."""
        rows, tt = self._centred(x), squared_times(t, x)
        return self._around_mean(self._scale_axes(rows, lambda v: v / (v + tt)), x)

    def flow(self, x: Array, t: Time, s: Time) -> Array:
        """Return ``mean + ((covariance + s^2) (covariance + t^2)^-1)^(1/2) (x - mean)``."""
        xp, rows = namespace(x), self._centred(x)
        tt, ss = squared_times(t, x), squared_times(s, x, "s")
        return self._around_mean(self._scale_axes(rows, lambda v: xp.sqrt((v + ss) / (v + tt))), x)

    def sample(self, z: Array) -> Array:
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
    if covariance.ndim != 2 or covariance.shape[0] != covariance.shape[1] or covariance.size == 0:
        raise ValueError(f"covariance must be a square matrix, got shape {covariance.shape}.")
    scale = np.abs(covariance).max()
    if not np.allclose(covariance, covariance.T, rtol=0, atol=1e-10 * scale):
        raise ValueError("covariance must be symmetric, which the one given is not.")
    variances, axes = np.linalg.eigh((covariance + covariance.T) / 2)
    if variances[0] < -1e-10 * scale:
        raise ValueError(f"covariance must have no negative eigenvalue, got {variances[0]}.")
    return np.maximum(variances, 0.0), axes
