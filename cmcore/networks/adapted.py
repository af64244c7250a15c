"""A network of another convention as one of EDM's: what it predicts and how it counts time, converted exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from cmcore._words import choice
from cmcore.backend import namespace
from cmcore.networks.architecture import Architecture
from cmcore.networks.clocks import clock_of
from cmcore.networks.layers import Layer, Layout
from cmcore.networks.part import Part
from cmcore.types import Array

PREDICTS = ("free", "noise", "minus_noise", "velocity", "denoiser")
"""What a network may give; see `Adapted`."""

_LEAST = math.log(1e-12) / 4
"""The least time input: below this noise level nothing depends on the network, which must only stay finite."""


@dataclass(frozen=True)
class Adapted(Architecture):
    """Another network, whose weights it has under ``net.``, as ``F(y, c)`` under EDM's scalings.

    With ``sigma = exp(4 c)``, ``x = sqrt(sigma^2 + sigma_data^2) y`` the point on the path ``x_0 + sigma z`` and k the clock's
    reading of sigma, the network N is what ``predicts`` says, and D its denoiser::

        free         F = N(y, k)
        minus_noise  D = x + sigma N(x, k)                       score_sde's networks on the VE path (EDM's VEPrecond)
        noise        D = x - sigma N(x', k)                      x' = x / sqrt(1 + sigma^2), the point on the VP path: DDPM
        velocity     D = a x' - b N(x', k)                       a = 1 / sqrt(1 + sigma^2), b = sigma a (Salimans & Ho 2022)
        denoiser     D = N(x', k)

    and ``F = (D - c_skip x) / c_out``, with the divisions done beforehand: nothing is lost at small or large sigma. So a
    model of any of these kinds is a teacher, a start and a student like any other (Karras et al. 2022, table 1).

    ``clock`` and its ``numbers`` say what k is (`cmcore.networks.clocks`); c_end is read by the same clock.
    """

    network: Architecture
    predicts: str = "free"
    clock: str = "log"
    numbers: tuple[float, ...] = (0.25, 0.0)
    sigma_data: float = 0.5

    kind: ClassVar[str] = "adapted"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.network, Architecture) or isinstance(self.network, Adapted):
            raise ValueError(f"An adapted network is made of another kind of network, got {self.network!r}.")
        if self.predicts not in PREDICTS:
            raise ValueError(f"No network predicts {self.predicts!r}; {choice(self.predicts, PREDICTS)}")
        if not 0 < self.sigma_data < math.inf:
            raise ValueError(f"sigma_data must be positive and finite, got {self.sigma_data}.")
        clock_of(self.clock, self.numbers)

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """Return the network's."""
        return self.network.shape

    @property
    def classes(self) -> int:  # type: ignore[override]
        """Return the network's."""
        return self.network.classes

    @property
    def two_times(self) -> bool:  # type: ignore[override]
        """Whether the network has."""
        return self.network.two_times

    @property
    def log_weight(self) -> bool:  # type: ignore[override]
        """Whether the network has one."""
        return self.network.log_weight

    def part(self) -> Part:
        """Return the network."""
        return AdaptedPart(self)

    def is_added(self, name: str) -> bool:
        """Whether the network's settings ``two_times`` or ``log_weight`` add the layer of that path."""
        return self.network.is_added(name.partition(".")[2])

    def drawn(self, layers: Any) -> list[tuple[str, Layer]]:
        """Return the layers in the order of the network's own."""
        own = [(path.partition(".")[2], layer) for path, layer in layers]
        return [(f"net.{path}", layer) for path, layer in self.network.drawn(own)]

    def with_options(self, two_times: bool, log_weight: bool) -> Self:
        """Return this of the network with the options."""
        return replace(self, network=self.network.with_options(two_times, log_weight))

    def layout(self) -> Layout:
        """Return the network's shapes, under ``net.``."""
        return {f"net.{name}": shape for name, shape in self.network.layout().items()}


class AdaptedPart(Part):
    """`Adapted`."""

    def __init__(self, settings: Adapted) -> None:
        self.net: Any = settings.network.part()
        self.clock: Any = clock_of(settings.clock, settings.numbers)
        self.predicts, self.sigma_data = settings.predicts, settings.sigma_data

    def __call__(
        self,
        x: Array,
        c_noise: Array,
        label: Array | None = None,
        c_end: Array | None = None,
        dropout: Array | None = None,
    ) -> Array:
        """Return F(x, c_noise, label, c_end), shaped like x, which is ``y`` above."""
        inputs = {"label": label, "c_end": None if c_end is None else self.read(c_end), "dropout": dropout}
        given = {name: value for name, value in inputs.items() if value is not None}
        if self.predicts == "free":
            return self.net(x, self.read(c_noise), **given)
        inside, skip, out = self.scalings(c_noise)
        return self.spread(skip, x) * x + self.spread(out, x) * self.net(
            self.spread(inside, x) * x, self.read(c_noise), **given
        )

    def log_weight(self, *times: Array) -> Array:
        """Return the network's log weight of these time inputs."""
        return self.net.log_weight(*times)

    def read(self, c: Array) -> Array:
        """Return the clock's reading at the noise levels whose time input is c, (B,)."""
        return self.clock(self.bounded(c))

    def bounded(self, c: Array) -> Array:
        """Return c, but not below what an evaluation can depend on."""
        return namespace(c).maximum(c, namespace(c).full_like(c, _LEAST))

    def spread(self, v: Array, x: Array) -> Array:
        """Return a number for each sample so that it broadcasts against x, (B, ...)."""
        return namespace(v).reshape(v, (v.shape[0], *(1 for _ in x.shape[1:])))

    def scalings(self, c: Array) -> tuple[Array, Array, Array]:
        """Return what multiplies y for the network, y for F, and the network's answer for F, each (B,)."""
        xp, sd = namespace(c), self.sigma_data
        sigma = xp.exp(4.0 * self.bounded(c))
        radius, unit = xp.sqrt(sigma**2 + sd**2), xp.sqrt(1.0 + sigma**2)
        if self.predicts == "minus_noise":
            return radius, sigma / sd, radius / sd
        if self.predicts == "noise":
            return radius / unit, sigma / sd, -radius / sd
        if self.predicts == "velocity":
            return radius / unit, sigma / unit / unit * ((1.0 - sd**2) / sd), -radius / (sd * unit)
        return radius / unit, -sd / sigma, radius / (sd * sigma)
