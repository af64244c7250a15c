"""Mixtures of Gaussians: score and denoiser in any dimension, the exact flow map in one."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cmcore._arrays import Time, as_times, check_state, from_host, per_sample, to_host
from cmcore._normal import softmax
from cmcore._rows import rows_of
from cmcore.backend import Array, namespace
from cmcore.oracles._match import match_distribution
from cmcore.oracles.oracle import Oracle


@dataclass(frozen=True, eq=False)
class Mixture(Oracle):
    """A mixture of K Gaussians, ``sum_k w_k N(mu_k, S_k)`` with ``S_k = std_k^2``.

    With the responsibilities ``r_k`` of the components at (x, t)::

        D = sum_k r_k (mu_k + S_k / (S_k + t^2) (x - mu_k)),    score = sum_k r_k (mu_k - x) / (S_k + t^2)

    Means (K,) make a law on the line: every coordinate of x, whatever its shape, is drawn from it independently, and
    the flow map is exact, ``F_s^-1(F_t(x))`` with F_t the distribution function at time t, since trajectories on a line
    cannot cross. Means (K, ...) make a law of samples of the shape ``...``, whose flow map has no closed form.

    ``weights`` are K positive numbers, divided by their sum; ``stds`` is a number, K numbers (isotropic components) or
    shaped like the means (independent coordinates), each at least 0; the time must be positive where it is 0.
    """

    weights: Any
    means: Any
    stds: Any
    _log_weights: np.ndarray = field(init=False, repr=False)
    _means: np.ndarray = field(init=False, repr=False)
    _stds: np.ndarray = field(init=False, repr=False)
    _event: tuple[int, ...] | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        weights, means = to_host(self.weights, "weights"), to_host(self.means, "means")
        stds = to_host(self.stds, "stds")
        if weights.ndim != 1 or not weights.size or np.any(weights <= 0):
            raise ValueError(f"weights must be a list of positive numbers, got {self.weights}.")
        k = weights.size
        if means.ndim < 1 or means.shape[0] != k:
            raise ValueError(f"means must have shape ({k}, ...), one for each weight, got {means.shape}.")
        if stds.shape not in ((), (k,), means.shape) or np.any(stds < 0):
            raise ValueError(
                f"stds must be at least 0 and a number or of shape ({k},) or {means.shape}, got {self.stds}."
            )
        if stds.ndim:
            stds = stds.reshape(stds.shape + (1,) * (means.ndim - stds.ndim))
        object.__setattr__(self, "_log_weights", np.log(weights / weights.sum())[:, None])
        object.__setattr__(self, "_means", means.reshape(k, -1))
        object.__setattr__(self, "_stds", np.broadcast_to(stds, means.shape).reshape(k, -1))
        object.__setattr__(self, "_event", means.shape[1:] or None)

    def score(self, x: Array, t: Time) -> Array:
        """Return ``grad_x log p_t(x)``."""
        offset, _, variance, share = self._components(x, t)
        return namespace(x).reshape(namespace(x).sum(-share * offset / variance, axis=1), x.shape)

    def denoiser(self, x: Array, t: Time) -> Array:
        """Return ``E[x_0 | x_t = x]``."""
        xp = namespace(x)
        offset, data_variance, variance, share = self._components(x, t)
        denoised = from_host(self._means, like=x) + data_variance / variance * offset
        return xp.reshape(xp.sum(share * denoised, axis=1), x.shape)

    def flow(self, x: Array, t: Time, s: Time) -> Array:
        """Return ``F_s^-1(F_t(x))`` for each coordinate; `cmcore.Error` unless the means are numbers.

        Exact to rounding, in the tails and between far modes too: only tail probabilities are ever compared. Its
        conditioning is the map's own: where it all but jumps, between modes, an error of x is stretched as much.
        """
        if self._event is not None:
            return super().flow(x, t, s)
        rows, t = self._blocks(x, t)
        _, s = self._blocks(x, s, "s")
        log_weights, means, stds = (from_host(p[:, 0], like=x) for p in (self._log_weights, self._means, self._stds))
        y = match_distribution(log_weights, means, stds, rows[:, :, 0], t[:, :, 0], s[:, :, 0])
        return namespace(x).reshape(y, x.shape)

    def sample(self, z: Array, u: Array) -> Array:
        """Return data made of standard normal numbers z, (B, ...), and uniform ones u in [0, 1) that choose components.

        u is shaped like z for a law on the line, and (B,) for one of samples.
        """
        xp = check_state(u, "u")
        expected = tuple(z.shape) if self._event is None else tuple(z.shape[:1])
        if tuple(u.shape) != expected:
            raise ValueError(f"u must have shape {expected} for z of shape {tuple(z.shape)}, got {tuple(u.shape)}.")
        rows, _ = self._blocks(z, 0.0)
        choice = xp.reshape(u, (rows.shape[0], 1, 1))
        ends = np.cumsum(np.exp(self._log_weights), axis=0)
        ends[-1] = 1.0
        starts = np.concatenate([np.zeros((1, 1)), ends[:-1]])
        chosen = (choice >= from_host(starts, like=z)) & (choice < from_host(ends, like=z))
        points = from_host(self._means, like=z) + from_host(self._stds, like=z) * rows
        return xp.reshape(xp.sum(xp.where(chosen, points, xp.zeros_like(points)), axis=1), z.shape)

    def _components(self, x: Array, t: Time) -> tuple[Array, Array, Array, Array]:
        """Return ``x - mu_k``, ``S_k`` and ``S_k + t^2``, each (M, K, D) or fit for it, and ``r_k``, (M, K, 1)."""
        rows, t = self._blocks(x, t)
        data_variance = from_host(self._stds**2, like=x)
        offset, variance = rows - from_host(self._means, like=x), data_variance + t * t
        xp = namespace(x)
        logits = xp.sum(-0.5 * (offset * offset / variance + xp.log(variance)), axis=2, keepdims=True)
        return offset, data_variance, variance, softmax(from_host(self._log_weights, like=x) + logits, axis=1)

    def _blocks(self, x: Array, t: Time, name: str = "t") -> tuple[Array, Array]:
        """Return points (M, 1, D) and times (M, 1, 1): a sample each or, on the line, a coordinate each."""
        xp = check_state(x)
        if self._event is not None:
            rows = rows_of(x, self._event)
            return xp.expand_dims(rows, axis=1), xp.reshape(as_times(t, x, name), (x.shape[0], 1, 1))
        times = xp.broadcast_to(per_sample(as_times(t, x, name), x), x.shape)
        return xp.reshape(x, (math.prod(x.shape), 1, 1)), xp.reshape(times, (math.prod(x.shape), 1, 1))
