"""The sliced Wasserstein distance."""

from __future__ import annotations

import numpy as np

from cmcore._options import check_count
from cmcore.backend import Array
from cmcore.metrics.rows import Rows, pair

AT_ONCE = 8
"""How many directions samples are projected on at once."""


def sliced_wasserstein(x: Array, y: Array, directions: int = 512, seed: int = 0) -> float:
    """Return the sliced 2-Wasserstein distance: the root of the mean of ``W_2^2`` along random directions.

    (Rabin et al. 2011.) Along a direction, ``W_2`` between the projected samples is exact, also for sets of different
    sizes. For isotropic Gaussians the square is ``(s_x - s_y)^2 + |m_x - m_y|^2 / d``. Equal seeds give equal directions.
    """
    one, other = pair(x, y)
    check_count("directions", directions, 1)
    check_count("seed", seed, 0)
    n, m = len(one), len(other)
    # Both quantile functions are steps; between successive ends of steps, counted in 1 / (n m), both are constant.
    ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    widths = np.diff(ends, prepend=0) / (n * m)
    in_x, in_y = (ends - 1) // m, (ends - 1) // n
    rng = np.random.Generator(np.random.Philox(seed))
    axes = rng.standard_normal((directions, one.width))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    squares: list[float] = []
    # So many at once that samples are read a few times, and that their projections take no more memory than a few numbers each.
    for some in np.array_split(axes, -(-directions // AT_ONCE)):
        of_x, of_y = (_sorted_along(rows, some) for rows in (one, other))
        squares += [float(np.sum(widths * (u[in_x] - v[in_y]) ** 2)) for u, v in zip(of_x, of_y, strict=True)]
    return float(np.sqrt(np.mean(squares)))


def _sorted_along(rows: Rows, axes: np.ndarray) -> np.ndarray:
    """The projections on each axis, sorted, (axes, N)."""
    return np.sort(np.concatenate([axes @ block.T for block in rows.blocks()], axis=1), axis=1)
