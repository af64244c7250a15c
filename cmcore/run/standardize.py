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
    scale 0, which gives back its center whatever the model makes of it.
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
        variance = variance.mean(keepdims=True)
    return tuple(map(float, mean)), tuple(map(float, np.sqrt(variance) / DEVIATION))


def deviation(scale: tuple[float, ...]) -> float:
    """Return the standard deviation, about 0 and over all columns, of data that were brought to such scales."""
    return DEVIATION * math.sqrt(sum(s > 0 for s in scale) / len(scale))


def _pieces(samples: Samples) -> Iterator[np.ndarray]:
    # So that the float64 copies stay small.
    for piece in samples.floats():
        yield piece.astype(np.float64)
