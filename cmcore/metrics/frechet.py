"""The Frechet distance of the Gaussians with the samples' means and covariances."""

from __future__ import annotations

from typing import NamedTuple, final

import numpy as np

from cmcore._arrays import to_host
from cmcore.backend import Array
from cmcore.metrics.rows import Rows


class Statistics(NamedTuple):
    """Mean (d,) and covariance (d, d) of samples."""

    mean: np.ndarray
    covariance: np.ndarray


@final
class Moments:
    """The mean and the covariance of samples that come batch by batch; memory for d^2 numbers, whatever their number.

    The means of batches are joined as Chan et al. (1983) do, so that nothing is lost where the mean is large.
    """

    def __init__(self) -> None:
        self._count = 0
        self._mean = self._scatter = np.zeros(0)

    def add(self, x: Array) -> None:
        """Count samples (N, ...) in; `ValueError` for another number of values than before, or for what is not finite."""
        rows = np.asarray(to_host(x, "x"), np.float64)
        rows = rows.reshape(len(rows), -1)
        if not self._count:
            self._mean, self._scatter = np.zeros(rows.shape[1]), np.zeros((rows.shape[1], rows.shape[1]))
        if rows.shape[1] != len(self._mean):
            raise ValueError(f"Samples of {len(self._mean)} numbers each were followed by some of {rows.shape[1]}.")
        if not len(rows):
            return
        total, mean = self._count + len(rows), rows.mean(axis=0)
        centred, shift = rows - mean, mean - self._mean
        self._scatter = self._scatter + centred.T @ centred + np.outer(shift, shift) * (self._count * len(rows) / total)
        self._mean = self._mean + shift * (len(rows) / total)
        self._count = total

    def statistics(self) -> Statistics:
        """Return the mean and the unbiased covariance; `ValueError` for fewer than two samples."""
        if self._count < 2:
            raise ValueError(f"A covariance takes at least two samples, got {self._count}.")
        return Statistics(self._mean, self._scatter / (self._count - 1))


def statistics(x: Array) -> Statistics:
    """Return the mean and the unbiased covariance of samples (N, ...), N at least 2."""
    moments = Moments()
    for block in Rows(x, "x").blocks():
        moments.add(block)
    return moments.statistics()


def frechet_distance(x: Array, y: Array) -> float:
    """Return the squared 2-Wasserstein distance between Gaussians with the samples' means and covariances.

    Named after Frechet as usual (Heusel et al. 2017; with Inception features it is the FID). From N samples it is too
    large, by ``d/N + d(d+1)/(4N)`` on average where y is a standard normal distribution in d dimensions known exactly.
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


def _root(covariance: np.ndarray) -> np.ndarray:
    variances, axes = np.linalg.eigh(covariance)
    return np.asarray((axes * np.sqrt(np.maximum(variances, 0.0))) @ axes.T)
