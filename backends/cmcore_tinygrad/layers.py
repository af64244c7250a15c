"""The layers of `cmcore.networks` by tinygrad's own functions; those that are not here are over the Array API.

What goes into a product, in the backward pass as well, is computed once beforehand: fused into the product, as tinygrad
would have it, an activation is computed anew for each output.
"""

from __future__ import annotations

from typing import Any

from tinygrad import Tensor, nn

from cmcore import networks
from cmcore.networks import generic
from cmcore.networks.resampling import filtered
from cmcore_tinygrad.functions.circular import cos, sin


def linear(self: Any, x: Tensor) -> Tensor:
    bias = self.bias if self.layer.bias else None
    return x.contiguous().linear(self.weight.transpose(), bias).contiguous_backward()


def conv(self: Any, h: Tensor) -> Tensor:
    return h.contiguous().conv2d(self.weight, self.bias, padding=self.layer.padding).contiguous_backward()


def patch_embedding(self: Any, h: Tensor) -> Tensor:
    p, (b, c, rows, columns) = self.layer.patch, h.shape
    self.layer.check(rows, columns)
    rows, columns = rows // p, columns // p
    patches = h.reshape(b, c, rows, p, columns, p).permute(0, 2, 4, 1, 3, 5).reshape(b, rows * columns, c * p * p)
    out = patches.contiguous().linear(self.weight.flatten(1).transpose(), self.bias).contiguous_backward()
    return out.transpose(1, 2).reshape(b, self.layer.width, rows, columns)


def group_norm(self: Any, h: Tensor) -> Tensor:
    self.layer.check(h.shape[1])
    normal = h.reshape(h.shape[0], self.layer.groups, -1).layernorm(eps=self.layer.eps).reshape(h.shape)
    return normal * self.weight.reshape(1, -1, 1, 1) + self.bias.reshape(1, -1, 1, 1)


def layer_norm(self: Any, h: Tensor) -> Tensor:
    self.layer.check(h.shape[-1])
    normal = h.layernorm(eps=self.layer.eps)
    return normal * self.weight + self.bias if self.layer.affine else normal


def embedding(self: Any, label: Tensor) -> Tensor:
    return (label < 0).unsqueeze(1).where(0.0, nn.Embedding.__call__(self, label.maximum(0)))


def sine_cosine(self: Any, h: Tensor) -> Tensor:
    return self.constant.value.cast(h.dtype)


def fourier(self: Any, *times: Tensor) -> Tensor:
    angles = [c.unsqueeze(1) * self.constant.value for c in times]
    parts = [part for a in angles for part in (cos(a), sin(a))]
    return parts[0].cat(*parts[1:], dim=1)


def log_weight(self: Any, *times: Tensor) -> Tensor:
    self.layer.check(*times)
    return (fourier(self, *times) * self.weight).sum(1) + self.bias


def attention(self: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (t.reshape(*t.shape[:2], self.layer.heads, -1).transpose(1, 2) for t in (q, k, v))
    return q.scaled_dot_product_attention(k, v).transpose(1, 2).flatten(2)


def resample(self: Any, h: Tensor) -> Tensor:
    if not self.layer.plain:
        return filtered(h, (2, 3), self.layer.taps, self.layer.up, self.layer.within)
    if not self.layer.up:
        return h.avg_pool2d((2, 2))
    b, c, rows, columns = h.shape
    twice = h.reshape(b, c, rows, 1, columns, 1).expand(b, c, rows, 2, columns, 2)
    return twice.reshape(b, c, 2 * rows, 2 * columns)


def silu(self: Any, x: Tensor) -> Tensor:
    return x.silu()


def gelu(self: Any, x: Tensor) -> Tensor:
    return x.gelu()


LAYERS = generic.LAYERS | {
    networks.Attention: attention,
    networks.Conv: conv,
    networks.Embedding: embedding,
    networks.Fourier: fourier,
    networks.GELU: gelu,
    networks.GroupNorm: group_norm,
    networks.LayerNorm: layer_norm,
    networks.Linear: linear,
    networks.LogWeight: log_weight,
    networks.PatchEmbedding: patch_embedding,
    networks.Resample: resample,
    networks.SiLU: silu,
    networks.SineCosine: sine_cosine,
}
