"""How far generated samples are from real ones: Frechet distance, KID, precision and recall, sliced Wasserstein.

Samples are arrays (N, ...) of any framework, pixels or features, flattened to N vectors of d numbers and compared on the
host in float64. None of these metrics knows about images: a distance between pixels is a distance in pixel space and
must not be compared with published ones, which are between the features of a particular network.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from cmcore._arrays import to_host
from cmcore._options import check_count, check_kind
from cmcore.backend import Array


class Statistics(NamedTuple):
    """Mean (d,) and covariance (d, d) of samples."""

    mean: np.ndarray
    covariance: np.ndarray


class PrecisionRecall(NamedTuple):
    """The share of generated samples that look real, and of real ones that could have been generated."""

    precision: float
    recall: float


def statistics(x: Array) -> Statistics:
    """Return the mean and the unbiased covariance of samples (N, ...), N at least 2."""
    rows = _samples(x, "x")
    return Statistics(rows.mean(axis=0), np.atleast_2d(np.cov(rows, rowvar=False)))


def frechet_distance(x: Array, y: Array) -> float:
    """Return the squared 2-Wasserstein distance between Gaussians with the samples' means and covariances.

    Named after Frechet as usual (Heusel et al. 2017; with Inception features it is the FID). From N samples it is too
    large, by ``d/N + d(d+1)/(4N)`` on average where y is a standard normal law in d dimensions known exactly.
    """
    return frechet_distance_from_statistics(statistics(x), statistics(y))


def frechet_distance_from_statistics(x: Statistics, y: Statistics) -> float:
    """Return ``|m_x - m_y|^2 + tr(C_x + C_y - 2 (C_x^(1/2) C_y C_x^(1/2))^(1/2))``; covariances may be singular."""
    mean_x, mean_y = to_host(x[0], "The mean of x"), to_host(y[0], "The mean of y")
    covariance_x, covariance_y = to_host(x[1], "The covariance of x"), to_host(y[1], "The covariance of y")
    d = mean_x.size
    for mean, covariance in ((mean_x, covariance_x), (mean_y, covariance_y)):
        if mean.shape != (d,) or covariance.shape != (d, d):
            raise ValueError(
                f"Both statistics must be a mean (d,) and a covariance (d, d), got {mean_x.shape} and "
                f"{covariance_x.shape}, {mean_y.shape} and {covariance_y.shape}."
            )
    # The last trace is the sum of the singular values of C_x^(1/2) C_y^(1/2): no root of a rounding error is taken.
    overlap = np.linalg.svd(_root(covariance_x) @ _root(covariance_y), compute_uv=False).sum()
    return float(np.sum((mean_x - mean_y) ** 2) + np.trace(covariance_x) + np.trace(covariance_y) - 2.0 * overlap)


def kid(x: Array, y: Array, degree: int = 3) -> float:
    """Return the unbiased squared maximum mean discrepancy with the kernel ``(a . b / d + 1)^degree``.

    The kernel inception distance (Binkowski et al. 2018), of all samples at once rather than averaged over subsets. Its
    expectation is 0 for equal laws, so that it may well be negative.
    """
    check_count("degree", degree, 1)
    x, y = _pair(x, y)

    def total(a: np.ndarray, b: np.ndarray) -> float:
        return float(sum(np.sum((block @ b.T / b.shape[1] + 1.0) ** degree) for block in _blocks(a)))

    def within(a: np.ndarray) -> float:
        diagonal = np.sum((np.sum(a * a, axis=1) / a.shape[1] + 1.0) ** degree)
        return (total(a, a) - float(diagonal)) / (len(a) * (len(a) - 1))

    return within(x) + within(y) - 2.0 * total(x, y) / (len(x) * len(y))


def precision_recall(real: Array, generated: Array, k: int = 3) -> PrecisionRecall:
    """Return k-nearest-neighbour precision and recall (Kynkaanniemi et al. 2019).

    A sample lies in the other set's manifold if one of that set's points is at least as near to it as to its own k-th
    nearest neighbour. Use about equally many of both: the balls shrink as a set grows.
    """
    real, generated = _pair(real, generated, "real", "generated")
    check_kind("k", k, int)
    if not 1 <= k < min(len(real), len(generated)):
        raise ValueError(
            f"k must be at least 1 and below the number of samples, {len(real)} real and {len(generated)} generated, "
            f"got {k}."
        )
    return PrecisionRecall(_share_inside(generated, real, k), _share_inside(real, generated, k))


def sliced_wasserstein(x: Array, y: Array, directions: int = 512, seed: int = 0) -> float:
    """Return the sliced 2-Wasserstein distance: the root of the mean of ``W_2^2`` along random directions.

    (Rabin et al. 2011.) Along a direction, ``W_2`` between the projected samples is exact, also for sets of different
    sizes. For isotropic Gaussians the square is ``(s_x - s_y)^2 + |m_x - m_y|^2 / d``. Equal seeds give equal directions.
    """
    x, y = _pair(x, y)
    check_count("directions", directions, 1)
    check_count("seed", seed, 0)
    n, m = len(x), len(y)
    # Both quantile functions are steps; between successive ends of steps, counted in 1 / (n m), both are constant.
    ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    widths = np.diff(ends, prepend=0) / (n * m)
    in_x, in_y = (ends - 1) // m, (ends - 1) // n
    rng = np.random.Generator(np.random.Philox(seed))
    axes = rng.standard_normal((directions, x.shape[1]))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    squares = [np.sum(widths * (np.sort(x @ axis)[in_x] - np.sort(y @ axis)[in_y]) ** 2) for axis in axes]
    return float(np.sqrt(np.mean(squares)))


def _samples(x: Array, name: str) -> np.ndarray:
    rows = to_host(x, name)
    if rows.ndim < 1 or len(rows) < 2 or not rows.size:
        raise ValueError(f"{name} must hold at least two samples, (N, ...), got shape {rows.shape}.")
    return rows.reshape(len(rows), -1)


def _pair(x: Array, y: Array, x_name: str = "x", y_name: str = "y") -> tuple[np.ndarray, np.ndarray]:
    x, y = _samples(x, x_name), _samples(y, y_name)
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"Samples must have as many numbers in {x_name} as in {y_name}, got {x.shape[1]} and {y.shape[1]}."
        )
    return x, y


def _root(covariance: np.ndarray) -> np.ndarray:
    variances, axes = np.linalg.eigh(covariance)
    return np.asarray((axes * np.sqrt(np.maximum(variances, 0.0))) @ axes.T)


def _blocks(x: np.ndarray, size: int = 1024) -> Iterator[np.ndarray]:
    return (x[i : i + size] for i in range(0, len(x), size))


def _squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    squares = np.sum(x * x, axis=1)[:, None] + np.sum(y * y, axis=1) - 2.0 * x @ y.T
    return np.asarray(np.maximum(squares, 0.0))


def _share_inside(queries: np.ndarray, points: np.ndarray, k: int) -> float:
    # A point is its own nearest neighbour, which does not count.
    radii = np.concatenate(
        [np.partition(_squared_distances(block, points), k, axis=1)[:, k] for block in _blocks(points)]
    )
    inside = [np.any(_squared_distances(block, points) <= radii, axis=1) for block in _blocks(queries)]
    return float(np.mean(np.concatenate(inside)))
