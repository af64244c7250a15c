"""The kernel inception distance (Binkowski et al., 2018, arXiv:1801.01401)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cmcore._options import check_count
from cmcore.backend import Array
from cmcore.metrics.rows import NUMBERS, Rows, pair


class KID(NamedTuple):
    """The mean over subsets and the standard deviation between them."""

    mean: float
    deviation: float


def kid(x: Array, y: Array, degree: int = 3) -> float:
    """Return the unbiased squared maximum mean discrepancy with the kernel ``(a . b / d + 1)^degree``.

    The kernel inception distance (Binkowski et al. 2018), of all samples at once rather than averaged over subsets. Its
    expectation is 0 for equal distributions, so that it may well be negative.
    """
    check_count("degree", degree, 1)
    one, other = pair(x, y)
    size = max(1, int(NUMBERS**0.5))

    def total(a: Rows, b: Rows) -> float:
        kernels = (np.sum((p @ q.T / a.width + 1.0) ** degree) for p in a.blocks(size) for q in b.blocks(size))
        return float(sum(kernels))

    def within(a: Rows) -> float:
        diagonal = sum(float(np.sum((np.sum(p * p, axis=1) / a.width + 1.0) ** degree)) for p in a.blocks(size))
        return (total(a, a) - diagonal) / (len(a) * (len(a) - 1))

    return within(one) + within(other) - 2.0 * total(one, other) / (len(one) * len(other))


def kid_of_subsets(x: Array, y: Array, subsets: int = 50, size: int = 1000, degree: int = 3, seed: int = 0) -> KID:
    """Return the mean and the standard deviation of `kid` over random subsets, as it is published.

    Subsets of ``size``, or of all where there are fewer, are drawn without putting back within one; equal seeds draw equal ones.
    """
    check_count("subsets", subsets, 1)
    check_count("size", size, 2)
    check_count("seed", seed, 0)
    one, other = pair(x, y)
    rng = np.random.Generator(np.random.Philox(seed))
    size = min(size, len(one), len(other))

    def drawn(rows: Rows) -> np.ndarray:
        return rows[np.sort(rng.permutation(len(rows))[:size])]

    found = [kid(drawn(one), drawn(other), degree) for _ in range(subsets)]
    return KID(float(np.mean(found)), float(np.std(found)))
