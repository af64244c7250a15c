"""New oracles from old: independent coordinates, rotations, and other paths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cmcore._arrays import Time, as_times, check_state, from_host, per_sample, to_host
from cmcore.backend import Array, namespace
from cmcore.oracles.oracle import Oracle
from cmcore.paths import Path


@dataclass(frozen=True, eq=False)
class Product(Oracle):
    """Independent coordinates: coordinate i of a sample (D,) follows the i-th factor, an oracle of the line."""

    factors: Sequence[Oracle]

    def __post_init__(self) -> None:
        if not self.factors:
            raise ValueError("A Product needs at least one factor.")

    def score(self, x: Array, t: Time) -> Array:
        """Return ``grad_x log p_t(x)``."""
        return self._each(lambda factor, part: factor.score(part, t), x)

    def denoiser(self, x: Array, t: Time) -> Array:
        """Return ``E[x_0 | x_t = x]``."""
        return self._each(lambda factor, part: factor.denoiser(part, t), x)

    def flow(self, x: Array, t: Time, s: Time) -> Array:
        """Return the point at time s of the trajectory through x at time t: each factor's own."""
        return self._each(lambda factor, part: factor.flow(part, t, s), x)

    def sample(self, *random: Array) -> Array:
        """Return data (B, D) from the random numbers, each (B, D), that every factor's `sample` takes."""
        return self._each(lambda factor, *parts: factor.sample(*parts), *random)

    def _each(self, call: Callable[..., Array], *xs: Array) -> Array:
        for x in xs:
            check_state(x)
            if x.ndim != 2 or x.shape[1] != len(self.factors):
                raise ValueError(
                    f"x must have shape (B, {len(self.factors)}), one column a factor, got {tuple(x.shape)}."
                )
        columns = [call(factor, *(x[:, i] for x in xs)) for i, factor in enumerate(self.factors)]
        return namespace(*xs).stack(columns, axis=1)


@dataclass(frozen=True, eq=False)
class Rotated(Oracle):
    """The law of ``R x`` where x, (D,), follows another oracle and R, (D, D), is orthogonal; its flow is R's image too."""

    oracle: Oracle
    rotation: Any
    _rotation: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        r = to_host(self.rotation, "rotation")
        if r.ndim != 2 or r.shape[0] != r.shape[1] or not np.allclose(r @ r.T, np.eye(len(r)), rtol=0, atol=1e-6):
            raise ValueError(f"rotation must be an orthogonal matrix (D, D), which the one given, {r.shape}, is not.")
        object.__setattr__(self, "_rotation", r)

    def score(self, x: Array, t: Time) -> Array:
        """Return ``grad_x log p_t(x)``."""
        return self._forward(self.oracle.score(self._back(x), t))

    def denoiser(self, x: Array, t: Time) -> Array:
        """Return ``E[x_0 | x_t = x]``."""
        return self._forward(self.oracle.denoiser(self._back(x), t))

    def flow(self, x: Array, t: Time, s: Time) -> Array:
        """Return the point at time s of the trajectory through x at time t."""
        return self._forward(self.oracle.flow(self._back(x), t, s))

    def sample(self, *random: Array) -> Array:
        """Return data (B, D) from the random numbers that the oracle's `sample` takes."""
        return self._forward(self.oracle.sample(*random))

    def _forward(self, x: Array) -> Array:
        xp = namespace(x)
        return xp.matmul(x, xp.matrix_transpose(from_host(self._rotation, like=x)))

    def _back(self, x: Array) -> Array:
        xp = check_state(x)
        if tuple(x.shape[1:]) != self._rotation.shape[:1]:
            raise ValueError(f"x must have shape (B, {len(self._rotation)}), got {tuple(x.shape)}.")
        return xp.matmul(x, from_host(self._rotation, like=x))


@dataclass(frozen=True, eq=False)
class Along(Oracle):
    """An oracle on another path, ``x_t = a(t) x_0 + b(t) z`` with z of standard deviation ``path.noise_std``.

    ``x_t / a(t)`` is on the path ``x_0 + sigma z`` at ``sigma = b(t) noise_std / a(t)``, exactly; a(t) must not be 0.
    """

    oracle: Oracle
    path: Path

    def score(self, x: Array, t: Time) -> Array:
        """Return ``grad_x log p_t(x)``."""
        scale, point, sigma = self._on_ve(x, t)
        return self.oracle.score(point, sigma) / scale

    def denoiser(self, x: Array, t: Time) -> Array:
        """Return ``E[x_0 | x_t = x]``."""
        _, point, sigma = self._on_ve(x, t)
        return self.oracle.denoiser(point, sigma)

    def flow(self, x: Array, t: Time, s: Time) -> Array:
        """Return the point at time s of the trajectory through x at time t."""
        _, point, sigma_t = self._on_ve(x, t)
        scale, _, sigma_s = self._on_ve(x, s)
        return scale * self.oracle.flow(point, sigma_t, sigma_s)

    def sample(self, *random: Array) -> Array:
        """Return data from the random numbers that the oracle's `sample` takes."""
        return self.oracle.sample(*random)

    def _on_ve(self, x: Array, t: Time) -> tuple[Array, Array, Array]:
        check_state(x)
        self.path.check_data_left(t)
        t = as_times(t, x)
        a = self.path.a(t)
        scale = per_sample(a, x)
        return scale, x / scale, self.path.b(t) * self.path.noise_std / a
