"""What the nearest neighbours of samples tell: precision and recall, density and coverage, memorisation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cmcore._options import check_kind
from cmcore.backend import Array
from cmcore.metrics.rows import NUMBERS, Rows, pair


class PrecisionRecall(NamedTuple):
    """The share of generated samples that look real, and of real ones that could have been generated."""

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    """How dense the real samples are where samples were generated, 1 on average for equal ones, and the share of them that was reached."""

    density: float
    coverage: float


def precision_recall(real: Array, generated: Array, k: int = 3) -> PrecisionRecall:
    """Return k-nearest-neighbour precision and recall (Kynkaanniemi et al., 2019, arXiv:1904.06991).

    A sample lies in the other set's manifold if one of that set's points is at least as near to it as to its own k-th
    nearest neighbour. Use about equally many of both: the balls shrink as a set grows.
    """
    one, other = pair(real, generated, "real", "generated")
    _check_k(k, len(one), len(other))
    return PrecisionRecall(
        float(np.mean(_counts(other, one, _radii(one, k)) > 0)),
        float(np.mean(_counts(one, other, _radii(other, k)) > 0)),
    )


def density_coverage(real: Array, generated: Array, k: int = 5) -> DensityCoverage:
    """Return density and coverage (Naeem et al., 2020, arXiv:2002.09797).

    Of the balls about each of N real samples that reach to its k-th nearest neighbour among them: density is the number of balls that
    a generated sample lies in, over k, on average; coverage the share of balls in which one lies.
    """
    one, other = pair(real, generated, "real", "generated")
    _check_k(k, len(one), len(other))
    radii = _radii(one, k)
    nearest = _nearest(one, other)[0]
    return DensityCoverage(float(np.mean(_counts(other, one, radii)) / k), float(np.mean(nearest <= radii)))


def memorization(generated: Array, training: Array) -> float:
    """Return the share of samples that are nearer to a training sample than its nearest fellow is.

    A sample is counted if its nearest training sample has no other training sample as near to it as that. Real samples that were
    not trained on have such a share too, the floor: take it of as many of them.
    """
    samples, known = pair(generated, training, "generated", "training")
    distances, which = _nearest(samples, known)
    rows, back = np.unique(which, return_inverse=True)
    own = _second(known, rows)
    return float(np.mean(distances < own[back]))


def _check_k(k: int, real: int, generated: int) -> None:
    check_kind("k", k, int)
    if not 1 <= k < min(real, generated):
        raise ValueError(
            f"k must be at least 1 and below the number of samples, {real} real and {generated} generated, got {k}."
        )


def _squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    squares = np.sum(x * x, axis=1)[:, None] + np.sum(y * y, axis=1)
    squares -= 2.0 * x @ y.T
    return np.asarray(np.maximum(squares, 0.0, out=squares))


def _side(rows: Rows) -> int:
    """How many rows are taken at once where distances between two blocks are."""
    return max(1, min(int(NUMBERS**0.5), NUMBERS // rows.width))


def _smallest(block: np.ndarray, points: Rows, k: int) -> np.ndarray:
    """The k smallest squared distances of each row of a block to points, increasing."""
    least = np.full((len(block), k), np.inf)
    for others in points.blocks(_side(points)):
        both = np.concatenate([least, _squared_distances(block, others)], axis=1)
        least = np.partition(both, k - 1, axis=1)[:, :k].copy()
    return np.sort(least, axis=1)


def _radii(points: Rows, k: int) -> np.ndarray:
    """Each point's squared distance to its k-th nearest neighbour; it is its own nearest, which does not count."""
    return np.concatenate([_smallest(block, points, k + 1)[:, k] for block in points.blocks(_side(points))])


def _second(points: Rows, rows: np.ndarray) -> np.ndarray:
    """The squared distances of some of the points to the nearest of the others."""
    size = _side(points)
    parts = [_smallest(points[rows[i : i + size]], points, 2)[:, 1] for i in range(0, len(rows), size)]
    return np.concatenate(parts)


def _counts(queries: Rows, points: Rows, radii: np.ndarray) -> np.ndarray:
    """In how many of the points' balls each query lies."""
    size, found = _side(points), []
    for block in queries.blocks(_side(queries)):
        count = np.zeros(len(block), np.int64)
        for start, others in zip(range(0, len(points), size), points.blocks(size), strict=True):
            count += np.sum(_squared_distances(block, others) <= radii[start : start + size], axis=1)
        found.append(count)
    return np.concatenate(found)


def _nearest(queries: Rows, points: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Each query's squared distance to the nearest point, and which it is."""
    size, distances, which = _side(points), [], []
    for block in queries.blocks(_side(queries)):
        least, row = np.full(len(block), np.inf), np.zeros(len(block), np.int64)
        for start, others in zip(range(0, len(points), size), points.blocks(size), strict=True):
            squares = _squared_distances(block, others)
            here = np.argmin(squares, axis=1)
            nearer = squares[np.arange(len(block)), here] < least
            row = np.where(nearer, start + here, row)
            least = np.minimum(least, squares[np.arange(len(block)), here])
        distances.append(least)
        which.append(row)
    return np.concatenate(distances), np.concatenate(which)
