"""The architectures of `cmcore.architectures` as tinygrad classes; their docstrings there say what is computed.

Attribute paths are the names of the layout, so that ``nn.state.get_state_dict`` gives and takes its weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from tinygrad import Tensor, nn
from tinygrad.dtype import DType
from tinygrad.nn.state import get_state_dict

from cmcore import architectures
from cmcore.architectures import NO_LOG_WEIGHT, Architecture, check_end, check_weights
from cmcore_tinygrad.functions.circular import cos, sin
from cmcore_tinygrad.layers import Conv2d, Embedding, Linear


class Constant:
    """A tensor that is no weight: without a ``__dict__``, ``get_state_dict`` passes it by."""

    __slots__ = ("value",)

    def __init__(self, value: Tensor) -> None:
        self.value = value

    def __deepcopy__(self, memo: dict[int, Any]) -> Constant:
        return self


class TimeFeatures:
    """The features phi of time inputs, those of several side by side."""

    frequencies: Constant

    def __call__(self, *times: Tensor) -> Tensor:
        """Return phi of each time input (B,), (B, n)."""
        angles = [c.unsqueeze(1) * self.frequencies.value for c in times]
        parts = [part for a in angles for part in (cos(a), sin(a))]
        return parts[0].cat(*parts[1:], dim=1)


class LogWeight:
    """``net.log_weight(c_noise, c_end=None)``; without weights where the architecture has none."""

    def __init__(self, architecture: Architecture, phi: TimeFeatures) -> None:
        self.architecture, self.phi = architecture, phi
        features = architecture.features * (2 if architecture.two_times else 1)
        self.weight = Tensor.empty(1, features) if architecture.log_weight else None
        self.bias = Tensor.empty(1) if architecture.log_weight else None

    def __call__(self, c_noise: Tensor, c_end: Tensor | None = None) -> Tensor:
        """Return the logarithm of the loss's weight at these times, (B,)."""
        if self.weight is None:
            raise ValueError(NO_LOG_WEIGHT)
        check_end(self.architecture, c_noise, c_end)
        times = (c_noise,) if c_end is None else (c_noise, c_end)
        return (self.phi(*times) * self.weight).sum(1) + self.bias


class TinygradNetwork:
    """A network ``net(x, c_noise, label=None, c_end=None)``: its embedding of times and label, and its checks of them."""

    def __init__(self, architecture: Architecture, embedding: int) -> None:
        self.architecture = architecture
        self.phi = TimeFeatures()
        self.time_in = Linear(architecture.features, embedding)
        self.time_out = Linear(embedding, embedding)
        if architecture.two_times:
            self.end_in = Linear(architecture.features, embedding)
            self.end_out = Linear(embedding, embedding)
        self.label = Embedding(architecture.classes, embedding) if architecture.classes else None
        self.log_weight = LogWeight(architecture, self.phi)

    def __call__(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None, c_end: Tensor | None = None) -> Tensor:
        """Return F(x, c_noise, label, c_end), shaped like x."""
        return self.answer(x, self.embed(x, c_noise, label, c_end))

    def answer(self, x: Tensor, e: Tensor) -> Tensor:
        """Return F, shaped like x, from x and the embedding e."""
        raise NotImplementedError

    def embed(self, x: Tensor, c_noise: Tensor, label: Tensor | None, c_end: Tensor | None) -> Tensor:
        """Return the embedding e, (B, embedding), of the time inputs and the label."""
        self._check(x, c_noise, label)
        check_end(self.architecture, c_noise, c_end)
        e = self.time_out(self.time_in(self.phi(c_noise)).silu())
        if c_end is not None:
            e = e + self.end_out(self.end_in(self.phi(c_end)).silu())
        if label is not None:
            e = e + (label < 0).unsqueeze(1).where(0.0, self.label(label.maximum(0)))
        return e.silu()

    def _check(self, x: Tensor, c_noise: Tensor, label: Tensor | None) -> None:
        shape = self.architecture.shape
        if x.shape[1:] != shape:
            raise ValueError(f"The network expects x of shape (B, {str(shape)[1:-1]}), got {x.shape}.")
        if c_noise.shape != x.shape[:1]:
            raise ValueError(
                f"The network expects c_noise of shape ({x.shape[0]},), one per sample, got {c_noise.shape}."
            )
        if label is None and self.label is not None:
            raise ValueError(
                f"The network is conditioned on a label: give label, (B,) integers below {self.architecture.classes}."
            )
        if label is not None and self.label is None:
            raise ValueError("The network has no classes, so it takes no label; build it with classes > 0.")


class ResidualMLP(TinygradNetwork):
    """`cmcore.architectures.ResidualMLP` as a tinygrad class."""

    def __init__(self, architecture: architectures.ResidualMLP) -> None:
        width, size = architecture.width, math.prod(architecture.shape)
        super().__init__(architecture, width)
        self.stem = Linear(size, width)
        self.blocks = [MLPBlock(width) for _ in range(architecture.blocks)]
        self.norm = nn.LayerNorm(width)
        self.head = Linear(width, size)

    def answer(self, x: Tensor, e: Tensor) -> Tensor:
        """Return F, shaped like x, from x and the embedding e."""
        h = self.stem(x.flatten(1))
        for block in self.blocks:
            h = block(h, e)
        return self.head(self.norm(h)).reshape(x.shape)


class MLPBlock:
    """A residual block of two linear layers, modulated by the embedding."""

    def __init__(self, width: int) -> None:
        self.norm = nn.LayerNorm(width)
        self.first = Linear(width, width)
        self.modulation = Linear(width, 2 * width)
        self.second = Linear(width, width)

    def __call__(self, h: Tensor, e: Tensor) -> Tensor:
        """Return h, (B, width), with its residual added."""
        scale, shift = self.modulation(e).chunk(2, dim=1)
        return h + self.second((self.first(self.norm(h)) * (1 + scale) + shift).silu())


class ResidualConv(TinygradNetwork):
    """`cmcore.architectures.ResidualConv` as a tinygrad class."""

    def __init__(self, architecture: architectures.ResidualConv) -> None:
        width, groups, levels = architecture.width, architecture.groups, len(architecture.multipliers)
        super().__init__(architecture, 4 * width)
        self.stem = Conv2d(architecture.shape[0], width, 3)
        blocks = {
            name: ConvBlock(c_in, c_out, 4 * width, groups)
            for name, (c_in, c_out) in architecture.block_channels().items()
        }
        self.down = [[blocks[f"down.{i}.{b}"] for b in range(architecture.blocks)] for i in range(levels)]
        self.up = [[blocks[f"up.{i}.{b}"] for b in range(architecture.blocks)] for i in range(levels - 1)]
        self.norm = nn.GroupNorm(groups, width * architecture.multipliers[0])
        self.head = Conv2d(width * architecture.multipliers[0], architecture.shape[0], 3)

    def answer(self, x: Tensor, e: Tensor) -> Tensor:
        """Return F, shaped like x, from x and the embedding e."""
        h = self.stem(x)
        skips = []
        for i, level in enumerate(self.down):
            h = h.avg_pool2d(2) if i else h
            for block in level:
                h = block(h, e)
            skips.append(h)
        for level, skip in zip(reversed(self.up), reversed(skips[:-1]), strict=True):
            h = _doubled(h).cat(skip, dim=1)
            for block in level:
                h = block(h, e)
        return self.head(self.norm(h).silu())


class ConvBlock:
    """A residual block of two 3 x 3 convolutions, modulated by the embedding."""

    def __init__(self, c_in: int, c_out: int, embedding: int, groups: int) -> None:
        self.norm1 = nn.GroupNorm(groups, c_in)
        self.first = Conv2d(c_in, c_out, 3)
        self.modulation = Linear(embedding, 2 * c_out)
        self.norm2 = nn.GroupNorm(groups, c_out)
        self.second = Conv2d(c_out, c_out, 3)
        self.skip = None if c_in == c_out else Conv2d(c_in, c_out, 1)

    def __call__(self, h: Tensor, e: Tensor) -> Tensor:
        """Return h, (B, c_out, H, W), after the block."""
        modulation = self.modulation(e)
        scale, shift = modulation.reshape(*modulation.shape, 1, 1).chunk(2, dim=1)
        r = self.first(self.norm1(h).silu())
        r = self.second((self.norm2(r) * (1 + scale) + shift).silu())
        return (h if self.skip is None else self.skip(h)) + r


def _doubled(h: Tensor) -> Tensor:
    """Repeat each pixel twice along both sides."""
    b, c, height, width = h.shape
    return h.reshape(b, c, height, 1, width, 1).expand(b, c, height, 2, width, 2).reshape(b, c, 2 * height, 2 * width)


_CLASSES: dict[type, Any] = {architectures.ResidualMLP: ResidualMLP, architectures.ResidualConv: ResidualConv}


def build(architecture: Architecture, weights: Mapping[str, np.ndarray], device: str, dtype: DType) -> TinygradNetwork:
    """Return the architecture's network with copies of these weights; `ValueError` if they do not fit."""
    check_weights(architecture, weights)
    net = _CLASSES[type(architecture)](architecture)
    for name, tensor in get_state_dict(net).items():
        tensor.replace(Tensor(np.array(weights[name]), device=device, dtype=dtype))
    net.phi.frequencies = Constant(Tensor(architecture.frequencies(), device=device, dtype=dtype))
    Tensor.realize(net.phi.frequencies.value, *get_state_dict(net).values())
    return net
