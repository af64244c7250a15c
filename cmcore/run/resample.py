"""Pictures under affine maps, without the stairs and ripples that make a generator's own: resampled at twice their resolution."""

from __future__ import annotations

import functools

import numpy as np

LOBES = 3
"""Of the Lanczos filter, in pixels to each side."""


def mapped(x: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """Return pictures (B, C, H, W) float32 as seen at other places; beyond their edges they are reflected.

    ``inverse`` (B, 2, 3) takes a place of the result, (x, y, 1) in pixels from the picture's middle, to where it is taken from.
    """
    height, width = x.shape[2:]
    if min(height, width) < 2:
        raise ValueError(f"Pictures of {height} x {width} pixels cannot be mapped; they need 2 to a side.")
    finer = _rows(height) @ x @ _rows(width).T
    margin = 2 * LOBES
    across, down = (np.arange(-margin, 2 * n - 1 + margin) / 2 - (n - 1) / 2 for n in (width, height))
    at = np.stack([a.ravel() for a in np.meshgrid(across, down)] + [np.ones(len(across) * len(down))])
    there = inverse @ at
    column, right = _place(there[:, 0] + (width - 1) / 2, width)
    row, lower = _place(there[:, 1] + (height - 1) / 2, height)
    pixels = finer.reshape(*x.shape[:2], -1)
    line = 2 * width - 1

    def corner(below: int, beside: int) -> np.ndarray:
        index = np.minimum(row + below, 2 * height - 2) * line + np.minimum(column + beside, line - 1)
        return np.take_along_axis(pixels, index[:, None], axis=2)

    upper = corner(0, 0) * (1 - right) + corner(0, 1) * right
    under = corner(1, 0) * (1 - right) + corner(1, 1) * right
    seen = (upper * (1 - lower) + under * lower).reshape(*x.shape[:2], len(down), len(across))
    return np.asarray(_averages(height) @ seen @ _averages(width).T, np.float32)


def _place(position: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The index in the finer grid of places (B, K) in pixels, reflected at the first and the last, and the share of the next one."""
    period = 4 * (n - 1)
    folded = np.abs((2 * position + period / 2) % period - period / 2)
    index = np.minimum(folded.astype(np.int64), 2 * n - 2)
    return index, (folded - index).astype(np.float32)[:, None]


@functools.cache
def _rows(n: int) -> np.ndarray:
    """The matrix (2 n - 1, n) that puts a value between each two of n, which are reflected at their ends."""
    out = np.zeros((2 * n - 1, n))
    for j in range(2 * n - 1):
        near = np.arange(j // 2 - LOBES, j // 2 + LOBES + 2)
        weights = _lanczos(j / 2 - near)
        period = 2 * (n - 1)
        folded = np.abs((near + n - 1) % period - (n - 1))
        np.add.at(out[j], folded, weights / weights.sum())
    return out.astype(np.float32)


@functools.cache
def _averages(n: int) -> np.ndarray:
    """The matrix (n, 2 n - 1 + 4 LOBES) that takes each second of a finer grid that reaches beyond, without what is too fine."""
    out = np.zeros((n, 2 * n - 1 + 4 * LOBES))
    weights = _lanczos(np.arange(-2 * LOBES, 2 * LOBES + 1) / 2)
    for i in range(n):
        out[i, 2 * i : 2 * i + len(weights)] = weights / weights.sum()
    return out.astype(np.float32)


def _lanczos(t: np.ndarray) -> np.ndarray:
    return np.where(np.abs(t) < LOBES, np.sinc(t) * np.sinc(t / LOBES), 0.0)
