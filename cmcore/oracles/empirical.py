"""A finite data set as a law: each of its points equally likely."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cmcore._arrays import Time, check_state, from_host, to_host
from cmcore._normal import softmax
from cmcore.backend import Array, namespace
from cmcore.oracles._rows import rows_of, squared_times
from cmcore.oracles.oracle import Oracle


@dataclass(frozen=True, eq=False)
class Empirical(Oracle):
    """The law of a data set (N, ...): ``D(x, t) = sum_i softmax_i(-|x - x_i|^2 / (2 t^2)) x_i``, for t > 0.

    As t falls to 0, the denoiser, and with it any exact generator, tends to the nearest data point: the law's samples
    are the data themselves. Its flow map has no closed form.
    """

    data: Any
    _points: np.ndarray = field(init=False, repr=False)
    _event: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        data = to_host(self.data, "data")
        if data.ndim < 2 or not data.size:
            raise ValueError(f"data must have shape (N, ...), one sample a row, got {data.shape}.")
        object.__setattr__(self, "_points", data.reshape(len(data), -1))
        object.__setattr__(self, "_event", data.shape[1:])

    def score(self, x: Array, t: Time) -> Array:
        """Return ``(D - x) / t^2``."""
        rows, tt = rows_of(x, self._event), squared_times(t, x)
        return namespace(x).reshape((self._denoised(rows, tt) - rows) / tt, x.shape)

    def denoiser(self, x: Array, t: Time) -> Array:
        """Return the average of the data, weighted by their probability given x."""
        rows = rows_of(x, self._event)
        return namespace(x).reshape(self._denoised(rows, squared_times(t, x)), x.shape)

    def sample(self, u: Array) -> Array:
        """Return the data points, (B, ...), that uniform numbers u in [0, 1), (B,), choose."""
        xp = check_state(u, "u")
        n = len(self._points)
        scaled = xp.reshape(u, (u.shape[0], 1)) * n
        order = from_host(np.arange(n, dtype=np.float64), like=u)
        chosen = xp.where((scaled >= order) & (scaled < order + 1.0), xp.ones_like(scaled), xp.zeros_like(scaled))
        return xp.reshape(xp.matmul(chosen, from_host(self._points, like=u)), (u.shape[0], *self._event))

    def _denoised(self, rows: Array, tt: Array) -> Array:
        return _posterior_mean(from_host(self._points, like=rows), rows, tt)


def posterior_mean(data: Array, x: Array, t: Time, label: Array | None = None) -> Array:
    """Return `Empirical`'s denoiser for data (N, ...) that is an array of x's framework, traced or not; x is (B, ...).

    With ``label``, (N,), point i of x, one for each datum, is asked about the data of label i alone.
    """
    check_state(x)
    rows = rows_of(x, tuple(data.shape[1:]))
    points = namespace(data, x).reshape(data, (data.shape[0], rows.shape[1]))
    among = None if label is None else label[:, None] == label[None, :]
    return namespace(x).reshape(_posterior_mean(points, rows, squared_times(t, x), among), x.shape)


def _posterior_mean(points: Array, rows: Array, tt: Array, among: Array | None = None) -> Array:
    xp = namespace(rows)
    # |x|^2 is the same for all points, so that the softmax needs only the rest of |x - x_i|^2.
    norms = xp.sum(points * points, axis=1)
    logits = (xp.matmul(rows, xp.matrix_transpose(points)) - norms / 2.0) / tt
    if among is not None:
        logits = xp.where(among, logits, xp.full_like(logits, -math.inf))
    return xp.matmul(softmax(logits, axis=1), points)
