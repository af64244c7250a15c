"""Every layer over the Array API, and networks made of them: what a backend has that brings no layers of its own.

A function here computes a layer: ``function(self, *inputs)``, where self holds the layer's description, ``layer``, and its
weights by name. A backend passes `build` a table with its own functions in place of some of these.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, cast

import numpy as np

from cmcore._arrays import device_of
from cmcore.backend import namespace
from cmcore.networks import layers
from cmcore.networks.architecture import Architecture, check_weights
from cmcore.networks.dropout import kept
from cmcore.networks.part import Part, methods, picklable, realised
from cmcore.networks.resampling import filtered
from cmcore.types import Array

Functions = Mapping[type[layers.Layer], Callable[..., Array]]


class Native:
    """A layer with its weights as attributes; a class derived from it computes."""

    def __init__(self, layer: layers.Layer, weights: Mapping[str, Any]) -> None:
        self.layer = layer
        vars(self).update(weights)


def build(
    architecture: Architecture,
    weights: Mapping[str, np.ndarray],
    place: Callable[[np.ndarray], Array],
    functions: Functions | None = None,
) -> Any:
    """Return the architecture's network with the weights, each passed through ``place``; `ValueError` if they do not fit.

    Its attributes' paths are the names of the layout. ``functions`` are the layers', by default those over the Array API.
    """
    check_weights(architecture, weights)
    table = LAYERS if functions is None else functions

    def leaf(layer: layers.Layer, path: str) -> Native:
        own = {name: place(weights[f"{path}.{name}"]) for name in layer.layout()}
        native = cast(Any, _native_layer)(type(layer), table[type(layer)])
        return cast(Native, native(layer, own))

    def node(cls: type[Part], attributes: Mapping[str, Any]) -> Any:
        part = cast(Any, _native_part)(cls)()
        vars(part).update(attributes)
        return part

    return realised(architecture.part(), leaf, node, lambda children: children)


def natives(net: Any, path: str = "") -> Iterator[tuple[str, Native]]:
    """Yield the layers of a network that `build` returned, with their paths."""
    if isinstance(net, Native):
        yield path, net
    elif isinstance(net, (list, dict)) or hasattr(net, "__dict__"):
        items = enumerate(net) if isinstance(net, list) else (net if isinstance(net, dict) else vars(net)).items()
        for name, child in items:
            yield from natives(child, f"{path}.{name}" if path else str(name))


def weights_of(net: Any) -> dict[str, Array]:
    """Return the weights of a network that `build` returned, by name."""
    return {f"{path}.{n}": getattr(layer, n) for path, layer in natives(net) for n in layer.layer.layout()}


def with_weights(net: Any, weights: Mapping[str, Array]) -> Any:
    """Return a network that `build` returned with other weights, by name, in place of its own; the one given stays as it is.

    So a loss becomes a function of the weights, as a framework with functional gradients needs it.
    """
    return copy.deepcopy(net, {id(w): weights[name] for name, w in weights_of(net).items()})


def linear(self: Any, x: Array) -> Array:
    out = x @ self.weight.T
    return out + self.bias if self.layer.bias else out


def conv(self: Any, h: Array) -> Array:
    """A sum over the kernel of products with the shifted image."""
    xp, k, padding = namespace(h), self.layer.kernel, self.layer.padding
    for axis in (2, 3):
        edge = xp.zeros((*h.shape[:axis], padding, *h.shape[axis + 1 :]), dtype=h.dtype, device=device_of(h))
        h = xp.concat([edge, h, edge], axis=axis) if padding else h
    b, c, rows, columns = h.shape[0], h.shape[1], h.shape[2] - k + 1, h.shape[3] - k + 1
    out = 0.0
    for i in range(k):
        for j in range(k):
            shifted = xp.reshape(h[:, :, i : i + rows, j : j + columns], (b, c, rows * columns))
            out = out + xp.matmul(self.weight[:, :, i, j], shifted)
    return xp.reshape(out, (b, -1, rows, columns)) + self.bias[:, None, None]


def patch_embedding(self: Any, h: Array) -> Array:
    xp, p, (b, c, rows, columns) = namespace(h), self.layer.patch, h.shape
    self.layer.check(rows, columns)
    rows, columns = rows // p, columns // p
    patches = xp.permute_dims(xp.reshape(h, (b, c, rows, p, columns, p)), (0, 1, 3, 5, 2, 4))
    kernel = xp.reshape(self.weight, (self.layer.width, c * p * p))
    out = xp.matmul(kernel, xp.reshape(patches, (b, c * p * p, rows * columns)))
    return xp.reshape(out, (b, self.layer.width, rows, columns)) + self.bias[:, None, None]


def group_norm(self: Any, h: Array) -> Array:
    self.layer.check(h.shape[1])
    xp = namespace(h)
    grouped = xp.reshape(h, (h.shape[0], self.layer.groups, -1))
    normal = xp.reshape(_normalised(grouped, self.layer.eps), h.shape)
    return normal * self.weight[:, None, None] + self.bias[:, None, None]


def layer_norm(self: Any, h: Array) -> Array:
    self.layer.check(h.shape[-1])
    normal = _normalised(h, self.layer.eps)
    return normal * self.weight + self.bias if self.layer.affine else normal


def embedding(self: Any, label: Array) -> Array:
    # A negative label, which is no class, matches none.
    xp = namespace(label)
    rows = xp.arange(self.layer.rows, dtype=label.dtype, device=device_of(label))
    return xp.astype(label[:, None] == rows, self.weight.dtype) @ self.weight


def weight(self: Any) -> Array:
    return self.weight


def sine_cosine(self: Any, h: Array) -> Array:
    return namespace(h).asarray(self.layer.table(), dtype=h.dtype, device=device_of(h))


def fourier(self: Any, *times: Array) -> Array:
    xp = namespace(*times)
    w = [xp.asarray(self.layer.frequencies, dtype=c.dtype, device=device_of(c)) for c in times]
    angles = [c[:, None] * each for c, each in zip(times, w, strict=True)]
    return xp.concat([part for a in angles for part in (xp.cos(a), xp.sin(a))], axis=1)


def log_weight(self: Any, *times: Array) -> Array:
    self.layer.check(*times)
    return (fourier(self, *times) @ self.weight.T + self.bias)[:, 0]


def attention(self: Any, q: Array, k: Array, v: Array) -> Array:
    xp, heads = namespace(q), self.layer.heads
    q, k, v = (xp.permute_dims(xp.reshape(t, (*t.shape[:2], heads, -1)), (0, 2, 1, 3)) for t in (q, k, v))
    scores = xp.matmul(q, xp.matrix_transpose(k)) / math.sqrt(q.shape[3])
    exp = xp.exp(scores - xp.max(scores, axis=-1, keepdims=True))
    out = xp.permute_dims(xp.matmul(exp / xp.sum(exp, axis=-1, keepdims=True), v), (0, 2, 1, 3))
    return xp.reshape(out, (*out.shape[:2], -1))


def resample(self: Any, h: Array) -> Array:
    xp, (b, c, rows, columns) = namespace(h), h.shape
    if not self.layer.plain:
        return filtered(h, (2, 3), self.layer.taps, self.layer.up, self.layer.within)
    if not self.layer.up:
        return xp.mean(xp.reshape(h, (b, c, rows // 2, 2, columns // 2, 2)), axis=(3, 5))
    twice = xp.broadcast_to(h[:, :, :, None, :, None], (b, c, rows, 2, columns, 2))
    return xp.reshape(twice, (b, c, 2 * rows, 2 * columns))


def dropout(self: Any, h: Array, key: Array | None = None) -> Array:
    if key is None or not self.layer.rate:
        return h
    xp = namespace(h)
    samples, elements = (
        xp.arange(n, dtype=xp.int32, device=device_of(h)) for n in (h.shape[0], math.prod(h.shape[1:]))
    )
    sample, element = xp.reshape(samples, (-1, *(1,) * (h.ndim - 1))), xp.reshape(elements, (1, *h.shape[1:]))
    mask = kept(key, self.layer.number, sample, element, self.layer.rate)
    return xp.where(mask, h / (1 - self.layer.rate), xp.zeros_like(h))


def silu(self: Any, x: Array) -> Array:
    # tanh rather than exp, which overflows (and warns) for large negative x.
    return x * (0.5 * (1.0 + namespace(x).tanh(0.5 * x)))


def gelu(self: Any, x: Array) -> Array:
    return x * (0.5 * (1.0 + namespace(x).tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * (x * x * x)))))


LAYERS: dict[type[layers.Layer], Callable[..., Array]] = {
    layers.Attention: attention,
    layers.Conv: conv,
    layers.Dropout: dropout,
    layers.Embedding: embedding,
    layers.Fourier: fourier,
    layers.GELU: gelu,
    layers.GroupNorm: group_norm,
    layers.LayerNorm: layer_norm,
    layers.Linear: linear,
    layers.LogWeight: log_weight,
    layers.PatchEmbedding: patch_embedding,
    layers.Resample: resample,
    layers.SiLU: silu,
    layers.SineCosine: sine_cosine,
    layers.Weight: weight,
}


def _normalised(h: Array, eps: float) -> Array:
    xp = namespace(h)
    centred = h - xp.mean(h, axis=-1, keepdims=True)
    return centred / xp.sqrt(xp.mean(centred**2, axis=-1, keepdims=True) + eps)


@cache
def _native_layer(cls: Any, function: Callable[..., Array]) -> type[Native]:
    return type(cls.__name__, (Native,), {"__call__": function, **picklable(_native_layer, cls, function)})


@cache
def _native_part(cls: Any) -> type:
    return type(cls.__name__, (), {**methods(cls), "__module__": cls.__module__, **picklable(_native_part, cls)})
