"""The architectures of `cmcore.architectures` as modules; their docstrings there say what is computed."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn import functional as F

from cmcore import architectures
from cmcore.architectures import NO_LOG_WEIGHT, Architecture, check_end, check_weights


class TimeFeatures(nn.Module):
    """The features phi of time inputs, those of several side by side."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.tensor(architecture.frequencies()), persistent=False)

    def forward(self, *times: torch.Tensor) -> torch.Tensor:
        """Return phi of each time input (B,), (B, n)."""
        angles = [c[:, None] * self.frequencies for c in times]
        return torch.cat([part for a in angles for part in (a.cos(), a.sin())], dim=1)


class LogWeight(nn.Module):
    """``net.log_weight(c_noise, c_end=None)``; without weights where the architecture has none."""

    def __init__(self, architecture: Architecture, phi: TimeFeatures) -> None:
        super().__init__()
        self.architecture, self.phi = architecture, phi
        features = architecture.features * (2 if architecture.two_times else 1)
        self.weight, self.bias = None, None
        if architecture.log_weight:
            self.weight, self.bias = nn.Parameter(torch.zeros(1, features)), nn.Parameter(torch.zeros(1))

    def forward(self, c_noise: torch.Tensor, c_end: torch.Tensor | None = None) -> torch.Tensor:
        """Return the logarithm of the loss's weight at these times, (B,)."""
        if self.weight is None:
            raise ValueError(NO_LOG_WEIGHT)
        check_end(self.architecture, c_noise, c_end)
        times = (c_noise,) if c_end is None else (c_noise, c_end)
        return F.linear(self.phi(*times), self.weight, self.bias)[:, 0]


class TorchNetwork(nn.Module):
    """A network ``net(x, c_noise, label=None, c_end=None)``: its embedding of times and label, and its checks of them."""

    def __init__(self, architecture: Architecture, embedding: int) -> None:
        super().__init__()
        self.architecture = architecture
        self.phi = TimeFeatures(architecture)
        self.time_in = nn.Linear(architecture.features, embedding)
        self.time_out = nn.Linear(embedding, embedding)
        if architecture.two_times:
            self.end_in = nn.Linear(architecture.features, embedding)
            self.end_out = nn.Linear(embedding, embedding)
        self.label = nn.Embedding(architecture.classes, embedding) if architecture.classes else None
        self.log_weight = LogWeight(architecture, self.phi)

    def forward(
        self,
        x: torch.Tensor,
        c_noise: torch.Tensor,
        label: torch.Tensor | None = None,
        c_end: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return F(x, c_noise, label, c_end), shaped like x."""
        return self.answer(x, self.embed(x, c_noise, label, c_end))

    def answer(self, x: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
        """Return F, shaped like x, from x and the embedding e."""
        raise NotImplementedError

    def embed(
        self, x: torch.Tensor, c_noise: torch.Tensor, label: torch.Tensor | None, c_end: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the embedding e, (B, embedding), of the time inputs and the label."""
        self._check(x, c_noise, label)
        check_end(self.architecture, c_noise, c_end)
        e = self.time_out(F.silu(self.time_in(self.phi(c_noise))))
        if c_end is not None:
            e = e + self.end_out(F.silu(self.end_in(self.phi(c_end))))
        if label is not None:
            # A matrix product, whose gradient torch.compile adds up in a fixed order; that of a look-up it does not.
            # A negative label, which is no class, matches none.
            matches = label[:, None] == torch.arange(self.architecture.classes, device=label.device)
            e = e + matches.to(e.dtype) @ self.label.weight
        return F.silu(e)

    def _check(self, x: torch.Tensor, c_noise: torch.Tensor, label: torch.Tensor | None) -> None:
        shape = self.architecture.shape
        if tuple(x.shape[1:]) != shape:
            raise ValueError(f"The network expects x of shape (B, {str(shape)[1:-1]}), got {tuple(x.shape)}.")
        if c_noise.shape != x.shape[:1]:
            raise ValueError(
                f"The network expects c_noise of shape ({x.shape[0]},), one a sample, got {tuple(c_noise.shape)}."
            )
        if label is None and self.label is not None:
            raise ValueError(f"The network needs a label: give label, (B,) integers below {self.architecture.classes}.")
        if label is not None and self.label is None:
            raise ValueError("The network has no classes, so it takes no label; build it with classes > 0.")


class ResidualMLP(TorchNetwork):
    """`cmcore.architectures.ResidualMLP` as a module."""

    def __init__(self, architecture: architectures.ResidualMLP) -> None:
        width, size = architecture.width, math.prod(architecture.shape)
        super().__init__(architecture, width)
        self.stem = nn.Linear(size, width)
        self.blocks = nn.ModuleList(MLPBlock(width) for _ in range(architecture.blocks))
        self.norm = LayerNorm(width)
        self.head = nn.Linear(width, size)

    def answer(self, x: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
        """Return F, shaped like x, from x and the embedding e."""
        h = self.stem(x.flatten(1))
        for block in self.blocks:
            h = block(h, e)
        return self.head(self.norm(h)).reshape(x.shape)


class MLPBlock(nn.Module):
    """A residual block of two linear layers, modulated by the embedding."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = LayerNorm(width)
        self.first = nn.Linear(width, width)
        self.modulation = nn.Linear(width, 2 * width)
        self.second = nn.Linear(width, width)

    def forward(self, h: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
        """Return h, (B, width), with its residual added."""
        scale, shift = self.modulation(e).chunk(2, dim=1)
        return h + self.second(F.silu(self.first(self.norm(h)) * (1 + scale) + shift))


class LayerNorm(nn.LayerNorm):
    """`nn.LayerNorm` in elementary operations.

    torch's own takes its saved mean and deviation for constants when the derivative that `torch.func.jvp` gives is
    differentiated in turn, so that the gradient is wrong (github.com/pytorch/pytorch/issues/196700).
    """

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """Return h, (B, width), normalised over its width."""
        centred = h - h.mean(1, keepdim=True)
        deviation = torch.sqrt(centred.square().mean(1, keepdim=True) + self.eps)
        return centred / deviation * self.weight + self.bias


class GroupNorm(nn.GroupNorm):
    """`nn.GroupNorm`, in elementary operations where `torch.func.jvp` is at work: torch.compile cannot trace its own there.

    Elsewhere torch's own is taken, whose gradient is the faster.
    """

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """Return h, (B, C, H, W), normalised over the pixels and channels of each group."""
        if forward_ad.unpack_dual(h).tangent is None:
            return super().forward(h)
        grouped = h.reshape(h.shape[0], self.num_groups, h.shape[1] // self.num_groups, -1)
        centred = grouped - grouped.mean((2, 3), keepdim=True)
        deviation = torch.sqrt(centred.square().mean((2, 3), keepdim=True) + self.eps)
        weight, bias = (p.reshape(1, self.num_groups, -1, 1) for p in (self.weight, self.bias))
        return (centred * (weight / deviation) + bias).reshape(h.shape)


class ResidualConv(TorchNetwork):
    """`cmcore.architectures.ResidualConv` as a module."""

    def __init__(self, architecture: architectures.ResidualConv) -> None:
        width, groups, levels = architecture.width, architecture.groups, len(architecture.multipliers)
        super().__init__(architecture, 4 * width)
        self.stem = nn.Conv2d(architecture.shape[0], width, 3, padding=1)
        blocks = {
            name: ConvBlock(c_in, c_out, 4 * width, groups)
            for name, (c_in, c_out) in architecture.block_channels().items()
        }

        def level(path: str) -> nn.ModuleList:
            return nn.ModuleList(blocks[f"{path}.{b}"] for b in range(architecture.blocks))

        self.down = nn.ModuleList(level(f"down.{i}") for i in range(levels))
        self.up = nn.ModuleList(level(f"up.{i}") for i in range(levels - 1))
        self.norm = GroupNorm(groups, width * architecture.multipliers[0])
        self.head = nn.Conv2d(width * architecture.multipliers[0], architecture.shape[0], 3, padding=1)

    def answer(self, x: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
        """Return F, shaped like x, from x and the embedding e."""
        h = self.stem(x)
        skips = []
        for i, level in enumerate(self.down):
            h = F.avg_pool2d(h, 2) if i else h
            for block in level:
                h = block(h, e)
            skips.append(h)
        for level, skip in zip(reversed(self.up), reversed(skips[:-1]), strict=True):
            h = torch.cat([F.interpolate(h, scale_factor=2, mode="nearest"), skip], dim=1)
            for block in level:
                h = block(h, e)
        return self.head(F.silu(self.norm(h)))


class ConvBlock(nn.Module):
    """A residual block of two 3 x 3 convolutions, modulated by the embedding."""

    def __init__(self, c_in: int, c_out: int, embedding: int, groups: int) -> None:
        super().__init__()
        self.norm1 = GroupNorm(groups, c_in)
        self.first = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * c_out)
        self.norm2 = GroupNorm(groups, c_out)
        self.second = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.skip = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)

    def forward(self, h: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
        """Return h, (B, c_out, H, W), after the block."""
        scale, shift = self.modulation(e)[:, :, None, None].chunk(2, dim=1)
        r = self.first(F.silu(self.norm1(h)))
        r = self.second(F.silu(self.norm2(r) * (1 + scale) + shift))
        return self.skip(h) + r


_MODULES: dict[type, type[TorchNetwork]] = {
    architectures.ResidualMLP: ResidualMLP,
    architectures.ResidualConv: ResidualConv,
}


def build(
    architecture: Architecture, weights: Mapping[str, np.ndarray], device: str, dtype: torch.dtype
) -> TorchNetwork:
    """Return the architecture's module with copies of these weights; `ValueError` if they do not fit."""
    check_weights(architecture, weights)
    # On the meta device nothing is initialised, so torch's global generator is not advanced.
    with torch.device("meta"):
        net = _MODULES[type(architecture)](architecture)
    tensors = {name: torch.tensor(np.asarray(w), dtype=dtype, device=device) for name, w in weights.items()}
    net.load_state_dict(tensors, assign=True)
    net.phi.frequencies = torch.tensor(architecture.frequencies(), dtype=dtype, device=device)
    return net
