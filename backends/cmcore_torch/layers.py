"""The layers of `cmcore.networks` as torch's own modules; what each computes is said there."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn import functional as F

from cmcore import networks
from cmcore.networks.dropout import kept
from cmcore.networks.resampling import filtered


class Linear(nn.Linear):
    def __init__(self, layer: networks.Linear) -> None:
        super().__init__(layer.n_in, layer.n_out, layer.bias)


class Conv(nn.Conv2d):
    def __init__(self, layer: networks.Conv) -> None:
        super().__init__(layer.c_in, layer.c_out, layer.kernel, padding=layer.padding)


class PatchEmbedding(nn.Conv2d):
    def __init__(self, layer: networks.PatchEmbedding) -> None:
        super().__init__(layer.c_in, layer.width, layer.patch, stride=layer.patch)
        self._layer = layer

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        self._layer.check(*h.shape[2:])
        return super().forward(h)


class LayerNorm(nn.LayerNorm):
    """`cmcore.networks.LayerNorm` in elementary operations.

    torch's own takes its saved mean and deviation for constants when the derivative that `torch.func.jvp` gives is
    differentiated in turn, so that the gradient is wrong (github.com/pytorch/pytorch/issues/196700).
    """

    def __init__(self, layer: networks.LayerNorm) -> None:
        super().__init__(layer.channels, layer.eps, elementwise_affine=layer.affine)
        self._layer = layer

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        self._layer.check(h.shape[-1])
        centred = h - h.mean(-1, keepdim=True)
        deviation = torch.sqrt(centred.square().mean(-1, keepdim=True) + self.eps)
        normal = centred / deviation
        return normal if self.weight is None else normal * self.weight + self.bias


class GroupNorm(nn.GroupNorm):
    """`cmcore.networks.GroupNorm`, in elementary operations where `torch.func.jvp` is at work.

    torch.compile cannot trace torch's own there. Elsewhere torch's own is taken, whose gradient is the faster.
    """

    def __init__(self, layer: networks.GroupNorm) -> None:
        super().__init__(layer.groups, layer.channels, layer.eps)
        self._layer = layer

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        self._layer.check(h.shape[1])
        if forward_ad.unpack_dual(h).tangent is None:
            return super().forward(h)
        grouped = h.reshape(h.shape[0], self.num_groups, h.shape[1] // self.num_groups, -1)
        centred = grouped - grouped.mean((2, 3), keepdim=True)
        deviation = torch.sqrt(centred.square().mean((2, 3), keepdim=True) + self.eps)
        weight, bias = (p.reshape(1, self.num_groups, -1, 1) for p in (self.weight, self.bias))
        return (centred * (weight / deviation) + bias).reshape(h.shape)


class Embedding(nn.Embedding):
    def __init__(self, layer: networks.Embedding) -> None:
        super().__init__(layer.rows, layer.width)

    def forward(self, label: torch.Tensor) -> torch.Tensor:
        # A matrix product, whose gradient torch.compile adds up in a fixed order; that of a look-up it does not.
        # A negative label, which is no class, matches none.
        matches = label[:, None] == torch.arange(self.num_embeddings, device=label.device)
        return matches.to(self.weight.dtype) @ self.weight


class Weight(nn.Module):
    def __init__(self, layer: networks.Weight) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(layer.shape))

    def forward(self) -> torch.Tensor:
        return self.weight


class Fourier(nn.Module):
    def __init__(self, layer: networks.Fourier | networks.LogWeight) -> None:
        super().__init__()
        self._values = layer.frequencies
        self.register_buffer("frequencies", torch.tensor(layer.frequencies), persistent=False)

    def place(self, device: str, dtype: torch.dtype) -> None:
        """Round the frequencies from float64 to the dtype, on the device."""
        self.frequencies = torch.tensor(self._values, dtype=torch.float64).to(device, dtype)

    def forward(self, *times: torch.Tensor) -> torch.Tensor:
        angles = [c[:, None] * self.frequencies for c in times]
        return torch.cat([part for a in angles for part in (a.cos(), a.sin())], dim=1)


class SineCosine(nn.Module):
    def __init__(self, layer: networks.SineCosine) -> None:
        super().__init__()
        self._layer = layer
        self.register_buffer("table", torch.empty(layer.rows * layer.columns, layer.channels), persistent=False)

    def place(self, device: str, dtype: torch.dtype) -> None:
        """Round the table from float64 to the dtype, on the device."""
        self.table = torch.tensor(self._layer.table()).to(device, dtype)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return self.table.to(h.dtype)


class LogWeight(nn.Linear):
    """`cmcore.networks.LogWeight`; without parameters where it is not enabled."""

    def __init__(self, layer: networks.LogWeight) -> None:
        super().__init__(layer.linear.n_in, 1)
        self._layer, self.phi = layer, Fourier(layer)
        if not layer.enabled:
            self.weight = self.bias = None  # type: ignore[assignment]

    def forward(self, *times: torch.Tensor) -> torch.Tensor:
        self._layer.check(*times)
        return super().forward(self.phi(*times))[:, 0]


class Attention(nn.Module):
    """`cmcore.networks.Attention` by torch's fused kernels, or by plain arithmetic.

    Plain where `torch.func.jvp` is at work, as not all of the kernels have a forward-mode derivative, and in narrow numbers on
    a CPU, whose kernel has a gradient that takes longer than a convolution's.
    """

    def __init__(self, layer: networks.Attention) -> None:
        super().__init__()
        self.heads = layer.heads

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        narrow = q.device.type == "cpu" and q.dtype in (torch.bfloat16, torch.float16)
        plain = narrow or any(forward_ad.unpack_dual(t).tangent is not None for t in (q, k, v))
        q, k, v = (t.unflatten(2, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        if plain:
            attended = torch.softmax(q @ k.transpose(2, 3) / q.shape[3] ** 0.5, dim=-1) @ v
        else:
            attended = F.scaled_dot_product_attention(q, k, v)
        return attended.transpose(1, 2).flatten(2)


class Resample(nn.Module):
    def __init__(self, layer: networks.Resample) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        if not self.layer.plain:
            return filtered(h, (2, 3), self.layer.taps, self.layer.up, self.layer.within)
        return F.interpolate(h, scale_factor=2, mode="nearest") if self.layer.up else F.avg_pool2d(h, 2)


class Dropout(nn.Module):
    """`cmcore.networks.Dropout`; torch's own mode of training or evaluation plays no part.

    ``share`` is (first, own, whole) where the batch is ``own`` samples, from ``first`` on, of one of ``whole`` samples.
    """

    share: tuple[int, int, int] | None = None

    def __init__(self, layer: networks.Dropout) -> None:
        super().__init__()
        self.rate, self.number = layer.rate, layer.number

    def forward(self, h: torch.Tensor, key: torch.Tensor | None = None) -> torch.Tensor:
        if key is None or not self.rate:
            return h
        sample = torch.arange(h.shape[0], dtype=torch.int32, device=h.device).reshape(-1, *(1,) * (h.ndim - 1))
        if self.share:
            first, own, whole = self.share
            # A batch that is evaluated several times over at once begins anew after each time.
            sample = sample + first + sample // own * (whole - own)
        element = torch.arange(h[0].numel(), dtype=torch.int32, device=h.device).reshape(1, *h.shape[1:])
        mask = kept(key, self.number, sample, element, self.rate)
        return torch.where(mask, h / (1 - self.rate), 0.0)


def _silu(_: networks.SiLU) -> nn.Module:
    return nn.SiLU()


def _gelu(_: networks.GELU) -> nn.Module:
    return nn.GELU(approximate="tanh")


LAYERS: dict[type[networks.Layer], Any] = {
    networks.Attention: Attention,
    networks.Conv: Conv,
    networks.Dropout: Dropout,
    networks.Embedding: Embedding,
    networks.Fourier: Fourier,
    networks.GELU: _gelu,
    networks.GroupNorm: GroupNorm,
    networks.LayerNorm: LayerNorm,
    networks.Linear: Linear,
    networks.LogWeight: LogWeight,
    networks.PatchEmbedding: PatchEmbedding,
    networks.Resample: Resample,
    networks.SiLU: _silu,
    networks.SineCosine: SineCosine,
    networks.Weight: Weight,
}
