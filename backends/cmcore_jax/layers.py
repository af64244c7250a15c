"""The layers of `cmcore.networks` in JAX, images being (B, H, W, C); those that are not here are over the Array API.

Measured on the CPU, channels last compile in half the time of (B, C, H, W) and are no slower. What is written for one sample
is mapped over the batch, which costs nothing under `jax.jit`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from cmcore import networks
from cmcore.networks import generic
from cmcore.networks.dropout import kept
from cmcore.networks.resampling import filtered


def linear(self: Any, x: jax.Array) -> jax.Array:
    def row(x: jax.Array) -> jax.Array:
        return self.weight @ x + self.bias if self.layer.bias else self.weight @ x

    return _over_rows(row, x)


def conv(self: Any, h: jax.Array) -> jax.Array:
    formats = ("NHWC", "OIHW", "NHWC")
    padding = [(self.layer.padding, self.layer.padding)] * 2
    return jax.lax.conv_general_dilated(h, self.weight, (1, 1), padding, dimension_numbers=formats) + self.bias


def patch_embedding(self: Any, h: jax.Array) -> jax.Array:
    p, (batch, rows, columns, c) = self.layer.patch, h.shape
    self.layer.check(rows, columns)
    patches = h.reshape(batch, rows // p, p, columns // p, p, c)
    return jnp.einsum("brpsqc,wcpq->brsw", patches, self.weight) + self.bias


def group_norm(self: Any, h: jax.Array) -> jax.Array:
    self.layer.check(h.shape[-1])
    grouped = h.reshape(h.shape[0], -1, self.layer.groups, h.shape[-1] // self.layer.groups)
    centred = grouped - grouped.mean((1, 3), keepdims=True)
    scale = jax.lax.rsqrt(jnp.square(centred).mean((1, 3), keepdims=True) + self.layer.eps)
    return (centred * scale).reshape(h.shape) * self.weight + self.bias


def layer_norm(self: Any, h: jax.Array) -> jax.Array:
    self.layer.check(h.shape[-1])
    normal = _over_rows(eqx.nn.LayerNorm(self.layer.channels, self.layer.eps, use_weight=False, use_bias=False), h)
    return self.weight * normal + self.bias if self.layer.affine else normal


def embedding(self: Any, label: jax.Array) -> jax.Array:
    def row(one: jax.Array) -> jax.Array:
        return jnp.where((one < 0) | (one >= self.layer.rows), 0.0, self.weight[one])

    return jax.vmap(row)(label)


def sine_cosine(self: Any, h: jax.Array) -> jax.Array:
    return jnp.asarray(self.layer.table(), h.dtype)


def fourier(self: Any, *times: jax.Array) -> jax.Array:
    """In the dtype of the network's weights."""
    angles = [jnp.asarray(np.asarray(self.layer.frequencies), c.dtype) * c[..., None] for c in times]
    return jnp.concatenate([f(a) for a in angles for f in (jnp.cos, jnp.sin)], axis=-1).astype(self.dtype)


def log_weight(self: Any, *times: jax.Array) -> jax.Array:
    self.layer.check(*times)
    return jnp.sum(fourier(self, *times) * self.weight, axis=1) + self.bias


def attention(self: Any, q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    if q.dtype == jnp.float64:  # of which JAX's own takes the softmax in float32
        return generic.attention(self, q, k, v)
    q, k, v = (t.reshape(*t.shape[:2], self.layer.heads, -1) for t in (q, k, v))
    out = jax.nn.dot_product_attention(q, k, v)
    return out.reshape(*out.shape[:2], -1)


def resample(self: Any, h: jax.Array) -> jax.Array:
    if not self.layer.plain:
        return filtered(h, (1, 2), self.layer.taps, self.layer.up, self.layer.within)
    if self.layer.up:
        return jnp.repeat(jnp.repeat(h, 2, axis=1), 2, axis=2)
    batch, rows, columns, c = h.shape
    return h.reshape(batch, rows // 2, 2, columns // 2, 2, c).mean((2, 4))


def dropout(self: Any, h: jax.Array, key: jax.Array | None = None) -> jax.Array:
    if h.ndim < 4 or key is None or not self.layer.rate:
        return generic.dropout(self, h, key)
    batch, rows, columns, c = h.shape
    # Numbered as (C, H, W), whatever the order of axes.
    element = jnp.moveaxis(jnp.arange(c * rows * columns, dtype=jnp.int32).reshape(1, c, rows, columns), 1, -1)
    sample = jnp.arange(batch, dtype=jnp.int32).reshape(-1, 1, 1, 1)
    mask = kept(key, self.layer.number, sample, element, self.layer.rate)
    return jnp.where(mask, h / (1 - self.layer.rate), jnp.zeros_like(h))


def silu(self: Any, x: jax.Array) -> jax.Array:
    return jax.nn.silu(x)


def gelu(self: Any, x: jax.Array) -> jax.Array:
    return jax.nn.gelu(x, approximate=True)


LAYERS = generic.LAYERS | {
    networks.Attention: attention,
    networks.Conv: conv,
    networks.Dropout: dropout,
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


def _over_rows(f: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """Map a function of one row over all axes but the last."""
    for _ in range(x.ndim - 1):
        f = jax.vmap(f)
    return f(x)
