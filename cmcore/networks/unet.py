"""The U-Nets of the published diffusion and consistency models: ADM, DDPM++, NCSN++ and DDPM, as settings of one network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import numpy as np

from cmcore._options import check_positive
from cmcore._words import choice
from cmcore.networks.architecture import Architecture
from cmcore.networks.embedding import ADDED, Conditioned, frequencies
from cmcore.networks.layers import (
    Attention,
    Conv,
    Dropout,
    Embedding,
    Fourier,
    GroupNorm,
    Linear,
    LogWeight,
    Resample,
    SiLU,
    Weight,
    check_end,
)
from cmcore.networks.part import Part
from cmcore.networks.patches import from_patches, to_patches
from cmcore.types import Array


@dataclass(frozen=True)
class UNet(Architecture):
    """A U-Net with attention for images (C, H, W), whose settings make it any of the published ones.

    Level l has ``width * multipliers[l]`` channels, ``blocks`` residual blocks on the way down and one more on the way up, and
    images of H / 2^l x W / 2^l; each output on the way down is concatenated to the input of a block on the way up::

        h = stem(x);  aux = x
        for each level l:   h = enc.l.lead(h, e) unless l = 0;   h = aux = (h + enc.l.aux(aux)) / sqrt(2) if residual;
                            h = block(h, e) for each block of enc.l
        h = mid.1(mid.0(h, e), e)
        for each l back:    h = dec.l.lead(h, e) unless it is the last;   h = block(concat(h, skip), e) for each block of dec.l
        F = head(silu(norm(h)))

        block(h, e):  r = conv0(resize(silu(norm0(h))))
                      r = silu(norm1(r) (1 + scale) + shift), (scale, shift) = affine(e)    or    silu(norm1(r + affine(e)))
                      h = (skip(resize(h)) + conv1(dropout(r))) * skip_scale
                      h = (h + proj(attention(qkv(norm2(h))))) * skip_scale,  where there is attention

    - With ``patch`` p the network takes and gives images of H / p x W / p whose C p^2 channels are the pixels of patches, so that
      its levels are p times smaller (Hoogeboom et al., 2023, arXiv:2301.11093, section 3.3).
    - ``attention`` are the factors H / 2^l is smaller by, such as (2, 4), at which blocks attend: on the way up each, or, with
      ``attend_last``, the last of a level alone; in the middle the first block does where ``attend_middle`` is set.
      Heads have ``head_channels`` channels; 0 is one head of all. ``qkv`` are the queries, the keys and the values, each with
      the channels of head 0 first.
    - ``resize`` is what halves and doubles: "block", within a residual block of its own, filtered by ``taps``; "conv", a 3 x 3 convolution
      before each second pixel is taken, or after each is doubled; "conv-end", the same with the zeros beyond the lower
      and right edge alone. ``skip_conv`` has these blocks' skips go through a 1 x 1 convolution always, not only where the
      number of channels changes.
    - Norms are of as many groups as divide the channels, at most ``groups`` of at least ``group_channels`` channels, with ``eps``.
    - ``times`` are the features phi of c_noise, cosines first or, with ``sine_first``, sines: "sinusoidal", at the frequencies
      10^(-4 i / n) for i < n; "sinusoidal-end", at 10^(-4 i / (n - 1)); "fourier", at 2 pi times ``fourier``, if that
      is empty at normal ones of standard deviation ``fourier_std``; "ladder", from 1 to 16, as `cmcore.networks.ResidualConv`.
      There are ``width * features`` of them.
    - e = silu(time_out(silu(time_in(phi))) + label), or, with ``label_early``, silu(time_out(silu(time_in(phi + sqrt(classes) label +
      label_bias)))). ``augment`` numbers, if the network is given them, are added to phi through a matrix.

    (Ho et al., 2020, arXiv:2006.11239; Song et al., 2021, arXiv:2011.13456; Dhariwal & Nichol, 2021, arXiv:2105.05233; Karras et
    al., 2022, arXiv:2206.00364, whose programs' settings `cmcore.networks.presets` has.) The networks take the time as their programs
    give it: EDM's ``ln(t) / 4``, OpenAI's ``250 ln(t)``, DDPM's the number of the step.
    """

    shape: tuple[int, ...]
    width: Annotated[int, "channels of the first level, and a quarter of the embedding's width"] = 64
    multipliers: Annotated[tuple[int, ...], "channels of each level, as multiples of the width"] = (1, 2, 2)
    blocks: Annotated[int, "residual blocks in each level on the way down; one more on the way up"] = 2
    attention: Annotated[tuple[int, ...], "how many times smaller the images are in the levels that attend"] = (4,)
    attend_last: Annotated[bool, "whether only the last block of a level attends on the way up"] = False
    attend_middle: Annotated[bool, "whether the first block in the middle attends"] = True
    head_channels: Annotated[int, "channels of each head of the attention; 0: one head of all"] = 64
    classes: int = 0
    augment: Annotated[int, "numbers that tell how a sample was augmented"] = 0
    label_early: Annotated[bool, "whether the label is added to the time's features instead of the embedding"] = False
    scale_shift: Annotated[bool, "whether the embedding scales and shifts in a block, or is added"] = True
    resize: Annotated[
        Literal["block", "conv", "conv-end"],
        "what halves and doubles: blocks, or convolutions with zeros around or at the end alone",
    ] = "block"
    taps: Annotated[tuple[float, ...], "the filter of blocks that halve and double"] = (1.0, 1.0)
    residual: Annotated[bool, "whether the smaller image is led past each level (NCSN++)"] = False
    skip_conv: Annotated[bool, "whether blocks that halve and double have a convolution on their skip always"] = False
    skip_scale: Annotated[float, "what a block's sum is multiplied by"] = 1.0
    groups: Annotated[int, "most groups of a norm"] = 32
    group_channels: Annotated[int, "fewest channels of a norm's group"] = 4
    eps: Annotated[float, "what norms add to the variance"] = 1e-5
    times: Annotated[
        Literal["sinusoidal", "sinusoidal-end", "fourier", "ladder"], "the frequencies of the time's features"
    ] = "ladder"
    sine_first: Annotated[bool, "whether sines come before cosines"] = False
    features: Annotated[int, "number of the time's features, as a multiple of the width"] = 1
    fourier: Annotated[tuple[float, ...], "the frequencies where times is fourier; drawn where there are none"] = ()
    fourier_std: Annotated[float, "the standard deviation of those that are drawn"] = 16.0
    dropout: Annotated[float, "rate of dropout in each block"] = 0.0
    patch: Annotated[int, "side of the patches whose pixels become channels before the first level"] = 1
    two_times: bool = False
    log_weight: bool = False

    kind: ClassVar[str] = "unet"
    added: ClassVar[tuple[str, ...]] = ADDED

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("The network's eps", self.eps)
        for name in ("patch", "width", "blocks", "groups", "group_channels", "features"):
            if getattr(self, name) < 1:
                raise ValueError(f"The network's {name} must be at least 1, got {getattr(self, name)}.")
        for name in ("classes", "augment", "head_channels"):
            if getattr(self, name) < 0:
                raise ValueError(f"The network's {name} cannot be negative, got {getattr(self, name)}.")
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ValueError(f"A U-Net needs data of shape (C, H, W), got {self.shape}.")
        if not self.multipliers or min(self.multipliers) < 1:
            raise ValueError(f"The channel multipliers must be positive, got {self.multipliers}.")
        for name in ("resize", "times"):
            known = _CHOICES[name]
            if getattr(self, name) not in known:
                raise ValueError(
                    f"The network's {name} cannot be {getattr(self, name)!r}; {choice(getattr(self, name), known, 'choose one of')}"
                )
        self._check_sides()
        self._check_channels()

    def _check_sides(self) -> None:
        (rows, columns), p = self.shape[1:], self.patch
        if rows % p or columns % p:
            raise ValueError(
                f"Images of {rows} x {columns} cannot be cut into patches of {p} x {p}; use sides divisible by {p}, or patch=1."
            )
        factor = 2 ** (len(self.multipliers) - 1)
        if rows % (p * factor) or columns % (p * factor):
            cut = f" in patches of {p} x {p}" if p > 1 else ""
            raise ValueError(
                f"Images of {rows} x {columns}{cut} cannot be halved {len(self.multipliers) - 1} times; "
                f"use sides divisible by {p * factor}, or shorter multipliers, such as {self.multipliers[:-1]}."
            )
        if odd := [a for a in self.attention if a not in self.factors]:
            raise ValueError(
                f"Attention is asked for where images are {odd[0]} times smaller; the network's levels are "
                f"{', '.join(map(str, self.factors))} times smaller."
            )

    def _check_channels(self) -> None:
        for channels in self.channels:
            if self.head_channels and channels % min(self.head_channels, channels):
                raise ValueError(
                    f"{channels} channels cannot be divided into heads of {self.head_channels}; "
                    f"use head_channels={math.gcd(*self.channels)}, or 0 for one head of all."
                )
        if self.width * self.features % 2:
            raise ValueError(f"The number of time features must be even, got {self.width * self.features}.")
        if self.fourier and 2 * len(self.fourier) != self.width * self.features:
            raise ValueError(
                f"{self.width * self.features} time features need {self.width * self.features // 2} frequencies, "
                f"got {len(self.fourier)}."
            )

    @property
    def channels(self) -> tuple[int, ...]:
        """The number of channels of each level."""
        return tuple(self.width * m for m in self.multipliers)

    @property
    def factors(self) -> tuple[int, ...]:
        """How many times smaller than the data each level's images are."""
        return tuple(2**level for level in range(len(self.multipliers)))

    def part(self) -> Part:
        """Return the network."""
        return Levelled(self)


_CHOICES = {
    "resize": ("block", "conv", "conv-end"),
    "times": ("sinusoidal", "sinusoidal-end", "fourier", "ladder"),
}


def norm_groups(settings: UNet, channels: int) -> int:
    """Return the number of groups of a norm of so many channels: the largest that divides them."""
    most = min(settings.groups, max(1, channels // settings.group_channels))
    return next(n for n in range(most, 0, -1) if channels % n == 0)


def time_frequencies(settings: UNet) -> tuple[float, ...]:
    """Return the angular frequencies of the network's time features."""
    n = settings.width * settings.features // 2
    if settings.times == "fourier":
        given = settings.fourier or np.random.Generator(np.random.Philox(key=0)).normal(0.0, settings.fourier_std, n)
        return tuple(float(2 * math.pi * f) for f in given)
    if settings.times == "ladder":
        return frequencies(16.0, 2 * n)
    last = n - (settings.times == "sinusoidal-end")
    return tuple(float(1e4 ** (-i / last)) for i in range(n))


class Levelled(Conditioned):
    """`UNet`."""

    def __init__(self, settings: UNet) -> None:
        s, width = settings, 4 * settings.width
        self.shape, self.classes, self.two_times = s.shape, s.classes, s.two_times
        self.sine_first, self.augmented = s.sine_first, s.augment
        features, w = s.width * s.features, time_frequencies(s)
        self.phi, self.silu = Fourier(w), SiLU()
        self.time_in, self.time_out = Linear(features, width), Linear(width, width)
        self.label = Embedding(s.classes, features if s.label_early else width) if s.classes else None
        self.label_bias = Weight((features,)) if s.classes and s.label_early else None
        self.augment = Linear(s.augment, features, bias=False, gain=0.0) if s.augment else None
        if s.two_times:
            self.end_in, self.end_out = Linear(features, width), Linear(width, width, gain=0.0)
        self.log_weight = LogWeight(w, times=2 if s.two_times else 1, enabled=s.log_weight)

        self.patch = s.patch
        self.stem = Conv(s.shape[0] * s.patch**2, s.width)
        attends = [factor in s.attention for factor in s.factors]
        skips, self.enc, aside = [s.width], [], s.shape[0] * s.patch**2
        for level, (above, c) in enumerate(pairwise([s.width, *s.channels])):
            # What leads into a level keeps the channels of the level above.
            lead = _smaller(s, above) if level else None
            aux = _Aside(s, aside, above) if level and s.residual else None
            blocks = [Block(s, c if b else above, c, attends[level]) for b in range(s.blocks)]
            self.enc.append(Level(lead, aux, blocks))
            skips += [above] * (level > 0) + [c] * s.blocks
            aside = above if level else aside
        deepest = s.channels[-1]
        self.mid = [Block(s, deepest, deepest, s.attend_middle), Block(s, deepest, deepest, False)]
        dec, below = [], deepest
        for level in reversed(range(len(s.channels))):
            lead = _larger(s, below) if level < len(s.channels) - 1 else None
            c, blocks = s.channels[level], []
            for b in range(s.blocks + 1):
                blocks.append(Block(s, (c if b else below) + skips.pop(), c, attends[level] and _also(s, b)))
            dec.append(Level(lead, None, blocks))
            below = c
        self.dec = dec[::-1]
        self.norm = GroupNorm(below, norm_groups(s, below), s.eps)
        self.head = Conv(below, s.shape[0] * s.patch**2, gain=0.0)

    def __call__(
        self,
        x: Array,
        c_noise: Array,
        label: Array | None = None,
        c_end: Array | None = None,
        dropout: Array | None = None,
        augment: Array | None = None,
    ) -> Array:
        """Return F(x, c_noise, label, c_end), shaped like x; ``augment``, (B, n), tells how x was augmented, None: not at all."""
        e = self.conditions(x, c_noise, label, c_end, augment)
        aux = self.enter(to_patches(x, self.patch))
        h = self.stem(aux)
        skips = [h]
        for level in self.enc:
            if level.lead is not None:
                h = level.lead(h, e, dropout)
                if level.aux is not None:
                    h = aux = (h + level.aux(aux)) / math.sqrt(2)
                skips.append(h)
            for block in level.blocks:
                h = block(h, e, dropout)
                skips.append(h)
        for block in self.mid:
            h = block(h, e, dropout)
        for level in reversed(self.dec):
            if level.lead is not None:
                h = level.lead(h, e, dropout)
            for block in level.blocks:
                h = block(self.concat(h, skips.pop()), e, dropout)
        return from_patches(self.leave(self.head(self.silu(self.norm(h)))), self.patch)

    def conditions(
        self, x: Array, c_noise: Array, label: Array | None, c_end: Array | None, augment: Array | None
    ) -> Array:
        """Return the embedding e, (B, 4 * width); `ValueError` for inputs that do not fit the network."""
        self.check(x, c_noise, label)
        check_end(self.two_times, c_noise, c_end)
        phi = self.features(c_noise)
        if augment is not None:
            if self.augment is None or tuple(augment.shape) != (x.shape[0], self.augmented):
                raise ValueError(
                    f"The network is told of augmentation by {self.augmented} numbers a sample, got {tuple(augment.shape)}."
                )
            phi = phi + self.augment(augment)
        if self.label is not None and self.label_bias is not None:
            phi = phi + self.label(label) * math.sqrt(self.classes) + self.label_bias()
        e = self.time_out(self.silu(self.time_in(phi)))
        if c_end is not None:
            e = e + self.end_out(self.silu(self.end_in(self.features(c_end))))
        if self.label is not None and self.label_bias is None:
            e = e + self.label(label)
        return self.silu(e)

    def features(self, c: Array) -> Array:
        """Return phi(c), (B, features)."""
        phi = self.phi(c)
        if not self.sine_first:
            return phi
        cosines, sines = self.halves(phi)
        return self.concat(sines, cosines)


class Level(Part):
    """A level's blocks on one of the two ways, with what leads into it and what leads past the level before."""

    def __init__(self, lead: Block | Resized | None, aux: _Aside | None, blocks: Sequence[Block]) -> None:
        self.lead, self.aux, self.blocks = lead, aux, list(blocks)


class Block(Part):
    """A residual block, modulated by the embedding, with or without attention; see `UNet`."""

    def __init__(self, settings: UNet, c_in: int, c_out: int, attends: bool, resize: Resample | None = None) -> None:
        s = settings
        self.scale, self.scale_shift = s.skip_scale, s.scale_shift
        self.silu, self.resize = SiLU(), resize
        self.norm0, self.conv0 = GroupNorm(c_in, norm_groups(s, c_in), s.eps), Conv(c_in, c_out)
        self.affine = Linear(4 * s.width, c_out * (2 if s.scale_shift else 1), gain=0.0 if s.scale_shift else 1.0)
        self.norm1 = GroupNorm(c_out, norm_groups(s, c_out), s.eps)
        self.dropout, self.conv1 = Dropout(s.dropout), Conv(c_out, c_out, gain=0.0)
        needed = c_in != c_out or (resize is not None and s.skip_conv)
        self.skip = Conv(c_in, c_out, kernel=1) if needed else None
        if attends:
            self.norm2 = GroupNorm(c_out, norm_groups(s, c_out), s.eps)
            self.qkv, self.proj = Linear(c_out, 3 * c_out), Linear(c_out, c_out, gain=0.0)
            self.attention = Attention(c_out // min(s.head_channels, c_out) if s.head_channels else 1)
        self.attends = attends

    def __call__(self, h: Array, e: Array, dropout: Array | None) -> Array:
        """Return h after the block."""
        r = self.silu(self.norm0(h))
        if self.resize is not None:
            r, h = self.resize(r), self.resize(h)
        r = self.conv0(r)
        if self.scale_shift:
            scale, shift = self.halves(self.per_channel(self.affine(e), r))
            r = self.norm1(r) * (1 + scale) + shift
        else:
            r = self.norm1(r + self.per_channel(self.affine(e), r))
        r = self.conv1(self.dropout(self.silu(r), dropout))
        h = ((h if self.skip is None else self.skip(h)) + r) * self.scale
        return self.attended(h) if self.attends else h

    def attended(self, h: Array) -> Array:
        """Return h after the attention."""
        rows = self.qkv(self.tokens(self.norm2(h)))
        c = rows.shape[2] // 3
        mixed = self.proj(self.attention(rows[:, :, :c], rows[:, :, c : 2 * c], rows[:, :, 2 * c :]))
        return (h + self.untokens(mixed, h)) * self.scale


class Resized(Part):
    """Images halved or doubled by a convolution."""

    def __init__(self, channels: int, resize: Resample) -> None:
        self.conv, self.resize, self.doubles = Conv(channels, channels), resize, resize.up

    def __call__(self, h: Array, e: Array, dropout: Array | None) -> Array:
        """Return h halved after the convolution, or doubled before it."""
        return self.conv(self.resize(h)) if self.doubles else self.resize(self.conv(h))


class _Aside(Part):
    """What leads the smaller image past a level: a convolution, whose filtered values are taken beyond the edges too."""

    def __init__(self, settings: UNet, c_in: int, c_out: int) -> None:
        self.conv = Conv(c_in, c_out, beyond=(len(settings.taps) - 1) // 2)
        self.resize = Resample(up=False, taps=settings.taps, within=True)

    def __call__(self, aux: Array) -> Array:
        return self.resize(self.conv(aux))


def _also(settings: UNet, block: int) -> bool:
    """Whether a block on the way up attends, where its level does."""
    return block == settings.blocks or not settings.attend_last


def _smaller(settings: UNet, channels: int) -> Block | Resized:
    if settings.resize == "block":
        return Block(settings, channels, channels, False, Resample(up=False, taps=settings.taps))
    # The first of each two pixels, or, with the zeros at the end alone, the second.
    taps = (0.0, 1.0) if settings.resize == "conv-end" else (1.0, 0.0)
    return Resized(channels, Resample(up=False, taps=taps))


def _larger(settings: UNet, channels: int) -> Block | Resized:
    if settings.resize == "block":
        return Block(settings, channels, channels, False, Resample(up=True, taps=settings.taps))
    return Resized(channels, Resample(up=True))
