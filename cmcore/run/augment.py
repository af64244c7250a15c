"""What is done to the pictures of a batch at random, anew at each step; it depends on the seed, the step and their place in it alone."""

from __future__ import annotations

import numpy as np

FLIPS = 1
"""The stream that flips are drawn from."""


def words(seed: int, step: int, stream: int, count: int) -> np.ndarray:
    """Return (count,) uint64 Philox words, whose stream NumPy promises to keep, other ones than orders are drawn from."""
    return np.random.Philox(np.random.SeedSequence((seed, step, stream))).random_raw(count)


def flipped(x: np.ndarray, seed: int, step: int) -> np.ndarray:
    """Return pictures (B, C, H, W) with each of them, at even odds, turned left to right."""
    turned = (words(seed, step, FLIPS, len(x)) >> np.uint64(63)).astype(bool)
    out = x.copy()
    out[turned] = x[turned, :, :, ::-1]
    return out
