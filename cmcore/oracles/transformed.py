"""New oracles from old: independent coordinates, rotations, and other paths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np

from cmcore._annotations import Condition, OnHost
from cmcore._arrays import from_host, per_sample, to_host
from cmcore._door import check_arguments
from cmcore.backend import Array, namespace
from cmcore.oracles.oracle import Oracle
from cmcore.paths import Path
from cmcore.types import GivenTime, Samples, Time

Factors = Annotated[Sequence[Oracle], Condition(lambda factors: factors, "A Product needs at least one factor.")]
Columns = Annotated[
    Samples,
    Condition(
        lambda self, value: value.ndim == 2 and value.shape[1] == len(self.factors),
        lambda self, value: (
            f"x must have shape (B, {len(self.factors)}), one column a factor, got {tuple(value.shape)}."
        ),
    ),
]
"""Points with a coordinate for each factor, (B, D)."""
AlongPath = Annotated[Time, lambda self, value: self.path.check_data_left(value)]
"""A time of a path at which something of the data is left."""
Rotation = Annotated[
    Any,
    OnHost(
        lambda rotation: (
            rotation.ndim == 2
            and np.allclose(rotation @ rotation.T, np.eye(len(rotation)), rtol=0, atol=1e-6)
            and len(rotation) == len(rotation.T)
        ),
        "rotation must be an orthogonal matrix (D, D), which the one given, {rotation.shape}, is not.",
    ),
]
Rotatable = Annotated[
    Samples,
    Condition(
        lambda self, x: tuple(x.shape[1:]) == self._rotation.shape[:1],
        lambda self, x: f"x must have shape (B, {len(self._rotation)}), got {tuple(x.shape)}.",
    ),
]
"""Points, (B, D), that a matrix (D, D) rotates."""


@dataclass(frozen=True, eq=False)
class Product(Oracle):
    """Independent coordinates: coordinate i of a sample (D,) follows the i-th factor, an oracle of the line."""

    factors: Factors

    def score(self, x: Columns, t: GivenTime) -> Samples:
        """Return ``grad_x log p_t(x)``."""
        return self._each(lambda factor, part: factor.score(part, t), x)

    def denoiser(self, x: Columns, t: GivenTime) -> Samples:
        """Return ``E[x_0 | x_t = x]``."""
        return self._each(lambda factor, part: factor.denoiser(part, t), x)

    def flow(self, x: Columns, t: GivenTime, s: GivenTime) -> Samples:
        """Return the point at time s of the trajectory through x at time t: each factor's own."""
        return self._each(lambda factor, part: factor.flow(part, t, s), x)

    def sample(self, *random: Columns) -> Samples:
        """Return data (B, D) from the random numbers, each (B, D), that every factor's `sample` takes."""
        return self._each(lambda factor, *parts: factor.sample(*parts), *random)

    def _each(self, call: Callable[..., Array], *xs: Array) -> Array:
        columns = [call(factor, *(x[:, i] for x in xs)) for i, factor in enumerate(self.factors)]
        return namespace(*xs).stack(columns, axis=1)


@dataclass(frozen=True, eq=False)
class Rotated(Oracle):
    """The distribution of ``R x`` where x, (D,), follows another oracle and R, (D, D), is orthogonal; its flow is R's image too."""

    oracle: Oracle
    rotation: Rotation
    _rotation: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_rotation", to_host(self.rotation, "rotation"))

    def score(self, x: Rotatable, t: GivenTime) -> Samples:
        """Return ``grad_x log p_t(x)``."""
        return self._forward(self.oracle.score(self._back(x), t))

    def denoiser(self, x: Rotatable, t: GivenTime) -> Samples:
        """Return ``E[x_0 | x_t = x]``."""
        return self._forward(self.oracle.denoiser(self._back(x), t))

    def flow(self, x: Rotatable, t: GivenTime, s: GivenTime) -> Samples:
        """Return the point at time s of the trajectory through x at time t."""
        return self._forward(self.oracle.flow(self._back(x), t, s))

    def sample(self, *random: Array) -> Samples:
        """Return data (B, D) from the random numbers that the oracle's `sample` takes."""
        return self._forward(self.oracle.sample(*random))

    def _forward(self, x: Array) -> Array:
        xp = namespace(x)
        return xp.matmul(x, xp.matrix_transpose(from_host(self._rotation, like=x)))

    def _back(self, x: Array) -> Array:
        return namespace(x).matmul(x, from_host(self._rotation, like=x))


@dataclass(frozen=True, eq=False)
class Along(Oracle):
    """An oracle on another path, ``x_t = a(t) x_0 + b(t) z`` with z of standard deviation ``path.noise_std``.

    ``x_t / a(t)`` is on the path ``x_0 + sigma z`` at ``sigma = b(t) noise_std / a(t)``, exactly; a(t) must not be 0.
    """

    oracle: Oracle
    path: Path

    def score(self, x: Samples, t: AlongPath) -> Samples:
        """Return ``grad_x log p_t(x)``."""
        scale, point, sigma = self._on_ve(x, t)
        return self.oracle.score(point, sigma) / scale

    def denoiser(self, x: Samples, t: AlongPath) -> Samples:
        """Return ``E[x_0 | x_t = x]``."""
        _, point, sigma = self._on_ve(x, t)
        return self.oracle.denoiser(point, sigma)

    def flow(self, x: Samples, t: AlongPath, s: AlongPath) -> Samples:
        """Return the point at time s of the trajectory through x at time t."""
        _, point, sigma_t = self._on_ve(x, t)
        scale, _, sigma_s = self._on_ve(x, s)
        return scale * self.oracle.flow(point, sigma_t, sigma_s)

    def sample(self, *random: Array) -> Samples:
        """Return data from the random numbers that the oracle's `sample` takes."""
        return self.oracle.sample(*random)

    def _on_ve(self, x: Array, t: Array) -> tuple[Array, Array, Array]:
        a = self.path.a(t)
        scale = per_sample(a, x)
        return scale, x / scale, self.path.b(t) * self.path.noise_std / a


check_arguments(__name__)
