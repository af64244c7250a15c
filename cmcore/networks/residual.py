"""A small U-shaped residual convolutional network for images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar

from cmcore.networks.architecture import Architecture
from cmcore.networks.embedding import ADDED, Conditioned, check_settings
from cmcore.networks.layers import Conv, GroupNorm, Layer, Linear, Resample, SiLU
from cmcore.networks.part import Part
from cmcore.types import Array


@dataclass(frozen=True)
class ResidualConv(Architecture):
    """A small U-shaped residual convolutional network for images (C, H, W).

    Level l has ``width * multipliers[l]`` channels and ``blocks`` residual blocks on the way down and again on the way
    up; 2 x 2 average pooling leads down, nearest-neighbour doubling leads up, where the level's last output on the way
    down is concatenated after it (channels of the way up first). So H and W must be divisible by 2**(levels - 1)::

        h = stem(x)
        for l, then b:      h = down.l.b(h, e);   keep h as skip[l] after the last b;  pool unless the last level
        for l from the last but one to 0:   h = concat(double(h), skip[l]);  h = up.l.b(h, e) for each b
        F = head(silu(norm(h)))

        block(h, e):  r = first(silu(norm1(h)));  r = second(silu(norm2(r) * (1 + scale) + shift));
                      (scale, shift) = modulation(e);  h = skip(h) + r

    Convolutions are 3 x 3 with padding 1, ``skip`` is 1 x 1 and exists only where the number of channels changes. Norms
    are group norms of ``groups`` groups with eps 1e-5. The embedding e, ``4 * width`` wide, is
    `cmcore.networks.embedding.Conditioned`'s.
    """

    shape: tuple[int, ...]
    width: Annotated[int, "channels at full size"] = 32
    multipliers: Annotated[tuple[int, ...], "channels of each level as multiples of the width"] = (1, 2, 2)
    blocks: Annotated[int, "residual blocks in each level, down and up"] = 2
    classes: int = 0
    groups: Annotated[int, "groups of channels that are normalised together"] = 8
    features: Annotated[int, "cosines and sines by which a time enters"] = 64
    max_frequency: Annotated[float, "highest frequency of the times' features; the lowest is 1"] = 16.0
    two_times: bool = False
    log_weight: bool = False

    kind: ClassVar[str] = "conv"
    added: ClassVar[tuple[str, ...]] = ADDED

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, "width", "blocks", "groups")
        if len(self.shape) != 3:
            raise ValueError(f"A convolutional network needs data of shape (C, H, W), got {self.shape}.")
        if not self.multipliers or any(m < 1 for m in self.multipliers):
            raise ValueError(f"The channel multipliers must be positive, got {self.multipliers}.")
        factor = 2 ** (len(self.multipliers) - 1)
        if self.shape[1] % factor or self.shape[2] % factor:
            raise ValueError(
                f"Images of {self.shape[1]} x {self.shape[2]} cannot be halved {len(self.multipliers) - 1} times; "
                f"use sides divisible by {factor}, or shorter multipliers, such as {self.multipliers[:-1]}."
            )
        if self.width % self.groups:
            raise ValueError(
                f"The width {self.width} is not divisible into {self.groups} groups; choose a multiple of {self.groups}."
            )

    @classmethod
    def fitting(cls, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the default multipliers, as many as the sides of such images can be halved for."""
        default = cls.multipliers
        halvings = [n for n in range(len(default)) if not (shape[1] % 2**n or shape[2] % 2**n)]
        return default[: 1 + max(halvings)]

    def part(self) -> Part:
        """Return the network."""
        return UShaped(self)

    def drawn(self, layers: Iterable[tuple[str, Layer]]) -> list[tuple[str, Layer]]:
        """Return the layers in the order of their evaluation, as which the levels on the way up are drawn."""
        levels = len(self.multipliers)

        def place(named: tuple[str, Layer]) -> tuple[bool, int, int]:
            first, _, rest = named[0].partition(".")
            stage = {"up": 1, "norm": 2, "head": 2}.get(first, 0)
            return first in self.added, stage, levels - int(rest.partition(".")[0]) if stage == 1 else 0

        return sorted(layers, key=place)


class UShaped(Conditioned):
    """`ResidualConv`."""

    def __init__(self, settings: ResidualConv) -> None:
        width, groups, blocks = settings.width, settings.groups, settings.blocks
        channels = [width * m for m in settings.multipliers]
        self.embed_with(settings, 4 * width)
        self.stem = Conv(settings.shape[0], width)

        def level(c_in: int, c_out: int) -> list[ConvBlock]:
            return [ConvBlock(c_out if b else c_in, c_out, 4 * width, groups) for b in range(blocks)]

        self.down = [level(c_in, c) for c_in, c in zip([width, *channels], channels, strict=False)]
        self.up = [level(below + c, c) for c, below in pairwise(channels)]
        self.norm, self.head = GroupNorm(channels[0], groups), Conv(channels[0], settings.shape[0], gain=0.0)
        self.shrink, self.enlarge = Resample(up=False), Resample(up=True)

    def __call__(self, x: Array, c_noise: Array, label: Array | None = None, c_end: Array | None = None) -> Array:
        """Return F(x, c_noise, label, c_end), shaped like x."""
        e = self.embed(x, c_noise, label, c_end)
        h, skips = self.stem(self.enter(x)), []
        for i, level in enumerate(self.down):
            h = self.shrink(h) if i else h
            for block in level:
                h = block(h, e)
            skips.append(h)
        for level, skip in zip(reversed(self.up), reversed(skips[:-1]), strict=True):
            h = self.concat(self.enlarge(h), skip)
            for block in level:
                h = block(h, e)
        return self.leave(self.head(self.silu(self.norm(h))))


class ConvBlock(Part):
    """A residual block of two 3 x 3 convolutions, modulated by the embedding."""

    def __init__(self, c_in: int, c_out: int, embedding: int, groups: int) -> None:
        self.norm1, self.first = GroupNorm(c_in, groups), Conv(c_in, c_out)
        self.modulation, self.norm2 = Linear(embedding, 2 * c_out, gain=0.0), GroupNorm(c_out, groups)
        self.second, self.silu = Conv(c_out, c_out, gain=0.0), SiLU()
        self.skip = Conv(c_in, c_out, kernel=1) if c_in != c_out else None

    def __call__(self, h: Array, e: Array) -> Array:
        """Return h after the block, with c_out channels."""
        scale, shift = self.halves(self.per_channel(self.modulation(e), h))
        r = self.first(self.silu(self.norm1(h)))
        r = self.second(self.silu(self.norm2(r) * (1 + scale) + shift))
        return (h if self.skip is None else self.skip(h)) + r
