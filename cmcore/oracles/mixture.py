"""Mixtures of Gaussians: score and denoiser in any dimension, the exact flow map in one."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np

from cmcore._annotations import Condition, OnHost
from cmcore._arrays import from_host, per_sample, to_host
from cmcore._door import check_arguments
from cmcore._normal import softmax
from cmcore._rows import rows_of
from cmcore.backend import Array, namespace
from cmcore.oracles._match import match_distribution
from cmcore.oracles.oracle import Oracle
from cmcore.types import Elements, Samples, Time

Weights = Annotated[
    Any,
    OnHost(
        lambda weights: weights.ndim == 1 and weights.size and np.all(weights > 0),
        "weights must be a list of positive numbers, got {weights}.",
    ),
]
Means = Annotated[
    Any,
    OnHost(
        lambda weights, means: means.shape[:1] == weights.shape,
        "means must have shape ({weights.size}, ...), one for each weight, got {means.shape}.",
    ),
]
Choice = Annotated[
    Elements,
    Condition(
        lambda self, z, u: tuple(u.shape) == self._choices(z),
        lambda self, z, u: (
            f"u must have shape {self._choices(z)} for z of shape {tuple(z.shape)}, got {tuple(u.shape)}."
        ),
    ),
]
Deviations = Annotated[
    Any,
    OnHost(
        lambda means, stds: stds.shape in ((), means.shape[:1], means.shape) and np.all(stds >= 0),
        "stds must be at least 0 and a number or of shape ({means.shape[0]},) or {means.shape}, got {stds}.",
    ),
]


@dataclass(frozen=True, eq=False)
class Mixture(Oracle):
    """A mixture of K Gaussians, ``sum_k w_k N(mu_k, S_k)`` with ``S_k = std_k^2``.

    With the responsibilities ``r_k`` of the components at (x, t)::

        D = sum_k r_k (mu_k + S_k / (S_k + t^2) (x - mu_k)),    score = sum_k r_k (mu_k - x) / (S_k + t^2)

    Means (K,) make a distribution on the line: every coordinate of x, whatever its shape, is drawn from it independently, and
    the flow map is exact, ``F_s^-1(F_t(x))`` with F_t the distribution function at time t, since trajectories on a line
    cannot cross. Means (K, ...) make a distribution of samples of the shape ``...``, whose flow map has no closed form.

    ``weights`` are K positive numbers, divided by their sum; ``stds`` is a number, K numbers (isotropic components) or
    shaped like the means (independent coordinates), each at least 0; the time must be positive where it is 0.
    """

    weights: Weights
    means: Means
    stds: Deviations
    _log_weights: np.ndarray = field(init=False, repr=False)
    _means: np.ndarray = field(init=False, repr=False)
    _stds: np.ndarray = field(init=False, repr=False)
    _event: tuple[int, ...] | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        weights, means = to_host(self.weights, "weights"), to_host(self.means, "means")
        stds = to_host(self.stds, "stds")
        k = weights.size
        if stds.ndim:
            stds = stds.reshape(stds.shape + (1,) * (means.ndim - stds.ndim))
        object.__setattr__(self, "_log_weights", np.log(weights / weights.sum())[:, None])
        object.__setattr__(self, "_means", means.reshape(k, -1))
        object.__setattr__(self, "_stds", np.broadcast_to(stds, means.shape).reshape(k, -1))
        object.__setattr__(self, "_event", means.shape[1:] or None)

    def score(self, x: Samples, t: Time) -> Samples:
        """Return ``grad_x log p_t(x)``."""
        offset, _, variance, share = self._components(x, t)
        return namespace(x).reshape(namespace(x).sum(-share * offset / variance, axis=1), x.shape)

    def denoiser(self, x: Samples, t: Time) -> Samples:
        """Return ``E[x_0 | x_t = x]``."""
        xp = namespace(x)
        offset, data_variance, variance, share = self._components(x, t)
        denoised = from_host(self._means, like=x) + data_variance / variance * offset
        return xp.reshape(xp.sum(share * denoised, axis=1), x.shape)

    def flow(self, x: Samples, t: Time, s: Time) -> Samples:
        """Return ``F_s^-1(F_t(x))`` for each coordinate; `cmcore.Error` unless the means are numbers.

        Exact to rounding, in the tails and between far modes too: only tail probabilities are ever compared. Its
        conditioning is the map's own: where it all but jumps, between modes, an error of x is stretched as much.
        """
        if self._event is not None:
            return super().flow(x, t, s)
        rows, t, s = self._points(x), self._times(t, x), self._times(s, x)
        log_weights, means, stds = (from_host(p[:, 0], like=x) for p in (self._log_weights, self._means, self._stds))
        y = match_distribution(log_weights, means, stds, rows[:, :, 0], t[:, :, 0], s[:, :, 0])
        return namespace(x).reshape(y, x.shape)

    def sample(self, z: Samples, u: Choice) -> Samples:
        """Return data made of standard normal numbers z, (B, ...), and uniform ones u in [0, 1) that choose components.

        u is shaped like z for a distribution on the line, and (B,) for one of samples.
        """
        xp = namespace(u)
        rows = self._points(z)
        choice = xp.reshape(u, (rows.shape[0], 1, 1))
        ends = np.cumsum(np.exp(self._log_weights), axis=0)
        ends[-1] = 1.0
        starts = np.concatenate([np.zeros((1, 1)), ends[:-1]])
        chosen = (choice >= from_host(starts, like=z)) & (choice < from_host(ends, like=z))
        points = from_host(self._means, like=z) + from_host(self._stds, like=z) * rows
        return xp.reshape(xp.sum(xp.where(chosen, points, xp.zeros_like(points)), axis=1), z.shape)

    def _choices(self, z: Array) -> tuple[int, ...]:
        """Return the shape of the numbers that choose components for z: a component each or, on the line, a coordinate each."""
        return tuple(z.shape) if self._event is None else tuple(z.shape[:1])

    def _components(self, x: Array, t: Array) -> tuple[Array, Array, Array, Array]:
        """Return ``x - mu_k``, ``S_k`` and ``S_k + t^2``, each (M, K, D) or fit for it, and ``r_k``, (M, K, 1)."""
        rows, t = self._points(x), self._times(t, x)
        data_variance = from_host(self._stds**2, like=x)
        offset, variance = rows - from_host(self._means, like=x), data_variance + t * t
        xp = namespace(x)
        logits = xp.sum(-0.5 * (offset * offset / variance + xp.log(variance)), axis=2, keepdims=True)
        return offset, data_variance, variance, softmax(from_host(self._log_weights, like=x) + logits, axis=1)

    def _points(self, x: Array) -> Array:
        """Return points (M, 1, D): a sample each or, on the line, a coordinate each."""
        xp = namespace(x)
        if self._event is None:
            return xp.reshape(x, (math.prod(x.shape), 1, 1))
        return xp.expand_dims(rows_of(x, self._event), axis=1)

    def _times(self, t: Array, x: Array) -> Array:
        """Return the times of these points, (M, 1, 1)."""
        xp = namespace(x)
        if self._event is None:
            t = xp.broadcast_to(per_sample(t, x), x.shape)
        return xp.reshape(t, (math.prod(t.shape), 1, 1))


check_arguments(__name__)
