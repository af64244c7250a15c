"""Data that are not images are brought to the scale that the methods' times are made for: mean 0, deviation 0.5.

Times reach from 0.002 to 80 whatever the data's scale. The papers' data have a standard deviation of about 0.5 (EDM's
sigma_data), so that at t_max nothing is left to see of them, and at t_min nothing is lost.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from cmcore.run.data.samples import Samples

DEVIATION = 0.5


def measured(samples: Samples, per_column: bool = False) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return (center, scale) for points (N, D) or latents (N, C, H, W): the mean of each column or channel, and what to divide by.

    Latents have a scale for each channel, points one for all columns unless ``per_column``. A column that is constant has the
    scale 0, which gives back its center whatever the model makes of it; the others' one scale is then given for each of them.
    """
    shape = samples.shape
    axes = (0, *range(2, 1 + len(shape)))
    count = len(samples) * math.prod(shape[1:])
    mean = sum(piece.sum(axis=axes) for piece in _pieces(samples)) / count
    shaped = np.reshape(mean, (-1, *(1,) * (len(shape) - 1)))
    variance = sum(np.square(piece - shaped).sum(axis=axes) for piece in _pieces(samples)) / count
    low = np.min([piece.min(axis=axes) for piece in samples.floats()], axis=0)
    high = np.max([piece.max(axis=axes) for piece in samples.floats()], axis=0)
    variance = np.where(low == high, 0.0, variance)
    if len(shape) == 1 and not per_column:
        varies = variance > 0
        one = variance[varies].mean(keepdims=True) if varies.any() else variance[:1]
        variance = one if varies.all() else np.where(varies, one, 0.0)
    return tuple(map(float, mean)), tuple(map(float, np.sqrt(variance) / DEVIATION))


def deviation(scale: tuple[float, ...]) -> float:
    """Return the standard deviation, about 0 and over all columns, of data that were brought to such scales."""
    return DEVIATION * math.sqrt(sum(s > 0 for s in scale) / len(scale))


def faint(samples: Samples, scale: tuple[float, ...], below: float) -> list[int]:
    """Return the columns of points (N, D), or channels of latents, that vary but by less than ``below`` once divided by ``scale``.

    Where ``below`` is some times the lowest noise level, the noise that samples end with hides such columns.
    """
    if not scale:
        return []
    own = np.array(measured(samples, per_column=True)[1]) * DEVIATION
    divided = own / np.where(np.array(scale) > 0, scale, 1.0)
    return np.flatnonzero((own > 0) & (divided < below)).tolist()


def _pieces(samples: Samples) -> Iterator[np.ndarray]:
    # So that the float64 copies stay small.
    for piece in samples.floats():
        yield piece.astype(np.float64)
