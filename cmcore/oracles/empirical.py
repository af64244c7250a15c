"""A finite data set as a distribution: each of its points equally likely."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np

from cmcore._annotations import OnHost
from cmcore._arrays import from_host, per_sample, to_host
from cmcore._door import check_arguments
from cmcore.backend import namespace
from cmcore.oracles.oracle import Oracle
from cmcore.posterior import NoisyTime, posterior_mean
from cmcore.types import PerSample, Samples

DataSet = Annotated[
    Any,
    OnHost(
        lambda data: data.ndim >= 2 and data.size, "data must have shape (N, ...), one sample a row, got {data.shape}."
    ),
]


@dataclass(frozen=True, eq=False)
class Empirical(Oracle):
    """The distribution of a data set (N, ...): ``D(x, t) = sum_i softmax_i(-|x - x_i|^2 / (2 t^2)) x_i``, for t > 0.

    As t falls to 0, the denoiser, and with it any exact generator, tends to the nearest data point: its samples
    are the data themselves. Its flow map has no closed form.
    """

    data: DataSet
    _data: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        data = to_host(self.data, "data")
        object.__setattr__(self, "_data", data)

    def score(self, x: Samples, t: NoisyTime) -> Samples:
        """Return ``(D - x) / t^2``."""
        times = per_sample(t, x)
        return (posterior_mean(from_host(self._data, like=x), x, t) - x) / times / times

    def denoiser(self, x: Samples, t: NoisyTime) -> Samples:
        """Return the average of the data, weighted by their probability given x."""
        return posterior_mean(from_host(self._data, like=x), x, t)

    def sample(self, u: PerSample) -> Samples:
        """Return the data points, (B, ...), that uniform numbers u in [0, 1), (B,), choose."""
        xp = namespace(u)
        n, *event = self._data.shape
        scaled = xp.reshape(u, (u.shape[0], 1)) * n
        order = from_host(np.arange(n, dtype=np.float64), like=u)
        chosen = xp.where((scaled >= order) & (scaled < order + 1.0), xp.ones_like(scaled), xp.zeros_like(scaled))
        points = from_host(self._data.reshape(n, -1), like=u)
        return xp.reshape(xp.matmul(chosen, points), (u.shape[0], *event))


check_arguments(__name__)
