"""A residual perceptron for flat or small data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

from cmcore.backend import namespace
from cmcore.networks.architecture import Architecture
from cmcore.networks.embedding import ADDED, Conditioned, check_settings
from cmcore.networks.layers import LayerNorm, Linear, SiLU
from cmcore.networks.part import Part
from cmcore.types import Array


@dataclass(frozen=True)
class ResidualMLP(Architecture):
    """A residual perceptron; on the flattened input, with e the embedding of `cmcore.networks.embedding.Conditioned`::

        h = stem(x)
        for each block:  h = h + second(silu(first(norm(h)) * (1 + scale) + shift))   (scale, shift) = modulation(e)
        F = head(norm(h))

    Norms are layer norms with eps 1e-5; linear layers have biases.
    """

    shape: tuple[int, ...]
    width: Annotated[int, "numbers that each layer gives"] = 256
    blocks: Annotated[int, "number of residual blocks"] = 3
    classes: int = 0
    features: Annotated[int, "cosines and sines by which a time enters"] = 64
    max_frequency: Annotated[float, "highest frequency of the times' features; the lowest is 1"] = 16.0
    two_times: bool = False
    log_weight: bool = False

    kind: ClassVar[str] = "mlp"
    added: ClassVar[tuple[str, ...]] = ADDED

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, "width", "blocks")

    def part(self) -> Part:
        """Return the network."""
        return MLP(self)


class MLP(Conditioned):
    """`ResidualMLP`."""

    def __init__(self, settings: ResidualMLP) -> None:
        size, width = math.prod(settings.shape), settings.width
        self.embed_with(settings, width)
        self.stem = Linear(size, width)
        self.blocks = [MLPBlock(width) for _ in range(settings.blocks)]
        self.norm, self.head = LayerNorm(width), Linear(width, size, gain=0.0)

    def __call__(self, x: Array, c_noise: Array, label: Array | None = None, c_end: Array | None = None) -> Array:
        """Return F(x, c_noise, label, c_end), shaped like x."""
        e = self.embed(x, c_noise, label, c_end)
        h = self.stem(namespace(x).reshape(x, (x.shape[0], math.prod(self.shape))))
        for block in self.blocks:
            h = block(h, e)
        return namespace(x).reshape(self.head(self.norm(h)), x.shape)


class MLPBlock(Part):
    """A residual block of two linear layers, modulated by the embedding."""

    def __init__(self, width: int) -> None:
        self.norm, self.first = LayerNorm(width), Linear(width, width)
        self.modulation = Linear(width, 2 * width, gain=0.0)
        self.second, self.silu = Linear(width, width, gain=0.0), SiLU()

    def __call__(self, h: Array, e: Array) -> Array:
        """Return h, (B, width), with its residual added."""
        scale, shift = self.halves(self.modulation(e))
        return h + self.second(self.silu(self.first(self.norm(h)) * (1 + scale) + shift))
