"""What a network costs: its weights, the products of an evaluation, and the numbers that its gradient needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cmcore.networks import layers
from cmcore.networks.architecture import Architecture
from cmcore.networks.part import Part, methods, realised


def parameters(architecture: Architecture) -> int:
    """Return the number of weights."""
    return sum(math.prod(shape) for shape in architecture.layout().values())


def multiply_adds(architecture: Architecture) -> int:
    """Return the multiplications, each with an addition, of one evaluation of one sample: those of matrices and convolutions.

    What is done to each number by itself, normalisations and filters are not counted.
    """
    return _traced(architecture)[0]


def activations(architecture: Architecture) -> int:
    """Return how many numbers of a sample's evaluation are kept for its gradient, about: what goes into layers, and what
    comes out of normalisations, which is multiplied. Filters need nothing of it.

    Attention is taken to keep no matrix of all pairs, as the fused kernels do not.
    """
    return _traced(architecture)[1]


def _traced(architecture: Architecture) -> tuple[int, int]:
    """The products of an evaluation of one sample, and the numbers that its gradient needs. No weight is made."""
    total = 0
    # By identity, for what comes out of one layer goes into others; kept, so that no identity is used twice.
    arrays: dict[int, Any] = {}

    def leaf(layer: layers.Layer, path: str) -> Any:
        def count(*inputs: Any) -> Any:
            nonlocal total
            rule: Rule = _RULES.get(type(layer), _unchanged)
            shape, products = rule(layer, *inputs)
            total += products
            out = np.zeros(shape, np.float32)
            kept = (
                ()
                if isinstance(layer, layers.Resample)
                else (*inputs, out)
                if isinstance(layer, layers.Norm)
                else inputs
            )
            arrays.update((id(a), a) for a in kept if isinstance(a, np.ndarray))
            return out

        return count

    def node(cls: type[Part], attributes: Mapping[str, Any]) -> Any:
        part: Any = object.__new__(type(cls.__name__, (), methods(cls)))
        vars(part).update(attributes)
        return part

    # A batch of none: shapes go all the way and no number is computed.
    net: Any = realised(architecture.part(), leaf, node, lambda children: children)
    times = np.zeros(0, np.float32)
    cond: dict[str, Any] = {"label": np.zeros(0, np.int32)} if architecture.classes else {}
    if architecture.two_times:
        cond["c_end"] = times
    net(np.zeros((0, *architecture.shape), np.float32), times, **cond)
    # What has no axis of samples, such as a table of positions, is made once.
    return total, sum(math.prod(a.shape[1:]) for a in arrays.values() if a.shape[:1] == (0,))


Rule = Callable[..., tuple[tuple[int, ...], int]]
"""The shape of what a layer gives and the products of a sample, from the layer and its inputs."""


def _unchanged(layer: Any, h: Any, *_: Any) -> tuple[tuple[int, ...], int]:
    return h.shape, 0


def _linear(layer: layers.Linear, x: Any) -> tuple[tuple[int, ...], int]:
    return (*x.shape[:-1], layer.n_out), math.prod(x.shape[1:-1]) * layer.n_in * layer.n_out


def _conv(layer: layers.Conv, h: Any) -> tuple[tuple[int, ...], int]:
    sides = tuple(side + 2 * layer.beyond for side in h.shape[2:])
    return (h.shape[0], layer.c_out, *sides), math.prod(sides) * layer.c_in * layer.c_out * layer.kernel**2


def _patch_embedding(layer: layers.PatchEmbedding, h: Any) -> tuple[tuple[int, ...], int]:
    sides = tuple(side // layer.patch for side in h.shape[2:])
    return (h.shape[0], layer.width, *sides), math.prod(sides) * layer.c_in * layer.width * layer.patch**2


def _attention(layer: layers.Attention, q: Any, k: Any, v: Any) -> tuple[tuple[int, ...], int]:
    return q.shape, 2 * q.shape[1] * k.shape[1] * q.shape[2]


def _embedding(layer: layers.Embedding, label: Any) -> tuple[tuple[int, ...], int]:
    return (*label.shape, layer.width), 0


def _weight(layer: layers.Weight) -> tuple[tuple[int, ...], int]:
    return layer.shape, 0


def _sine_cosine(layer: layers.SineCosine, tokens: Any) -> tuple[tuple[int, ...], int]:
    return (layer.rows * layer.columns, layer.channels), 0


def _fourier(layer: layers.Fourier, *times: Any) -> tuple[tuple[int, ...], int]:
    return (times[0].shape[0], 2 * len(layer.frequencies) * len(times)), 0


def _resample(layer: layers.Resample, h: Any) -> tuple[tuple[int, ...], int]:
    fewer = len(layer.taps) // 2 - 1 if layer.within else 0
    return (*h.shape[:2], *(2 * n if layer.up else n // 2 - fewer for n in h.shape[2:])), 0


_RULES: dict[type[layers.Layer], Rule] = {
    layers.Attention: _attention,
    layers.Conv: _conv,
    layers.Embedding: _embedding,
    layers.Fourier: _fourier,
    layers.Linear: _linear,
    layers.PatchEmbedding: _patch_embedding,
    layers.Resample: _resample,
    layers.SineCosine: _sine_cosine,
    layers.Weight: _weight,
}
