"""The architectures of `cmcore.architectures` as equinox modules, whose tree paths are the layout's names.

Modules are written for one sample and mapped over the batch; under `jax.jit` that costs nothing. Inside, images are
(H, W, C): measured on the CPU, that compiles in half the time of (C, H, W) and is no slower. So convolution and group
norm are ours, since equinox's are channels-first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from cmcore import architectures as arch
from cmcore_jax.parameters import path_name

Placement = Callable[[np.ndarray], jax.Array]


class Conv(eqx.Module):
    """A convolution of one image that keeps its size."""

    weight: jax.Array
    bias: jax.Array

    def __init__(self, c_in: int, c_out: int, kernel: int = 3):
        self.weight = jnp.zeros((c_out, c_in, kernel, kernel))
        self.bias = jnp.zeros(c_out)

    def __call__(self, h: jax.Array) -> jax.Array:
        """Convolve h, (H, W, C)."""
        formats = ("NHWC", "OIHW", "NHWC")
        out = jax.lax.conv_general_dilated(h[None], self.weight, (1, 1), "SAME", dimension_numbers=formats)
        return out[0] + self.bias


class GroupNorm(eqx.Module):
    """Normalisation of one image over its pixels and the channels of each group."""

    weight: jax.Array
    bias: jax.Array
    groups: int = eqx.field(static=True)

    def __init__(self, groups: int, channels: int):
        self.weight = jnp.ones(channels)
        self.bias = jnp.zeros(channels)
        self.groups = groups

    def __call__(self, h: jax.Array) -> jax.Array:
        """Normalise h, (H, W, C)."""
        grouped = h.reshape(-1, self.groups, h.shape[-1] // self.groups)
        centred = grouped - grouped.mean((0, 2), keepdims=True)
        scale = jax.lax.rsqrt(jnp.square(centred).mean((0, 2), keepdims=True) + 1e-5)
        return (centred * scale).reshape(h.shape) * self.weight + self.bias


class MLPBlock(eqx.Module):
    """A residual block of `ResidualMLP`."""

    norm: eqx.nn.LayerNorm
    first: eqx.nn.Linear
    modulation: eqx.nn.Linear
    second: eqx.nn.Linear

    def __init__(self, width: int):
        self.norm = eqx.nn.LayerNorm(width)
        self.first = _linear(width, width)
        self.modulation = _linear(width, 2 * width)
        self.second = _linear(width, width)

    def __call__(self, h: jax.Array, e: jax.Array) -> jax.Array:
        """Return h, (width,), with the block's contribution added."""
        scale, shift = jnp.split(self.modulation(e), 2)
        return h + self.second(jax.nn.silu(self.first(self.norm(h)) * (1 + scale) + shift))


class ConvBlock(eqx.Module):
    """A residual block of `ResidualConv`."""

    norm1: GroupNorm
    first: Conv
    modulation: eqx.nn.Linear
    norm2: GroupNorm
    second: Conv
    skip: Conv | None

    def __init__(self, c_in: int, c_out: int, embedding: int, groups: int):
        self.norm1 = GroupNorm(groups, c_in)
        self.first = Conv(c_in, c_out)
        self.modulation = _linear(embedding, 2 * c_out)
        self.norm2 = GroupNorm(groups, c_out)
        self.second = Conv(c_out, c_out)
        self.skip = Conv(c_in, c_out, kernel=1) if c_in != c_out else None

    def __call__(self, h: jax.Array, e: jax.Array) -> jax.Array:
        """Return h, (H, W, C), brought to the block's channels with its contribution added."""
        scale, shift = jnp.split(self.modulation(e), 2)
        r = self.first(jax.nn.silu(self.norm1(h)))
        r = self.second(jax.nn.silu(self.norm2(r) * (1 + scale) + shift))
        return (h if self.skip is None else self.skip(h)) + r


class LogWeight(eqx.Module):
    """``net.log_weight(c_noise, c_end=None)``; without weights where the architecture has none."""

    architecture: arch.Architecture = eqx.field(static=True)
    weight: jax.Array | None
    bias: jax.Array | None

    def __init__(self, architecture: arch.Architecture):
        features = architecture.features * (2 if architecture.two_times else 1)
        self.architecture = architecture
        self.weight = jnp.zeros((1, features)) if architecture.log_weight else None
        self.bias = jnp.zeros(1) if architecture.log_weight else None

    def __call__(self, c_noise: jax.Array, c_end: jax.Array | None = None) -> jax.Array:
        """Return the logarithm of the loss's weight at these times, (B,)."""
        if self.weight is None:
            raise ValueError(arch.NO_LOG_WEIGHT)
        arch.check_end(self.architecture, c_noise, c_end)
        times = (c_noise,) if c_end is None else (c_noise, c_end)
        phi = jnp.concatenate([_features(self.architecture, c) for c in times], axis=1).astype(self.weight.dtype)
        return jnp.sum(phi * self.weight, axis=1) + self.bias


class JaxNetwork(eqx.Module):
    """A network ``net(x, c_noise, label=None, c_end=None)`` of batches: its embedding, and its checks of its input."""

    architecture: arch.Architecture = eqx.field(static=True)
    time_in: eqx.nn.Linear
    time_out: eqx.nn.Linear
    end_in: eqx.nn.Linear | None
    end_out: eqx.nn.Linear | None
    label: eqx.nn.Embedding | None
    log_weight: LogWeight

    def __init__(self, architecture: arch.Architecture, width: int):
        features, classes, two = architecture.features, architecture.classes, architecture.two_times
        self.architecture = architecture
        self.time_in, self.time_out = _linear(features, width), _linear(width, width)
        self.end_in, self.end_out = (_linear(features, width), _linear(width, width)) if two else (None, None)
        self.label = eqx.nn.Embedding(classes, width, key=jax.random.key(0)) if classes else None
        self.log_weight = LogWeight(architecture)

    def __call__(
        self, x: jax.Array, c_noise: jax.Array, label: jax.Array | None = None, c_end: jax.Array | None = None
    ) -> jax.Array:
        """Return F(x, c_noise, label, c_end), shaped like x, (B, *shape)."""
        a = self.architecture
        if x.shape[1:] != a.shape or c_noise.shape != x.shape[:1]:
            raise ValueError(
                f"The network takes x of shape (B, {', '.join(map(str, a.shape))}) and c_noise of shape (B,), "
                f"got {x.shape} and {c_noise.shape}."
            )
        if a.classes and label is None:
            raise ValueError(f"The network has {a.classes} classes; give label, (B,) integers below that.")
        if label is not None and not a.classes:
            raise ValueError("The network has no classes, so it takes no label; build it with classes > 0.")
        arch.check_end(a, c_noise, c_end)
        return jax.vmap(lambda x, *cond: self._one(x, self._embed(*cond)))(x, c_noise, label, c_end)

    def _embed(self, c_noise: jax.Array, label: jax.Array | None, c_end: jax.Array | None) -> jax.Array:
        """Return the embedding e of one sample's times and label."""
        e = self._time(self.time_in, self.time_out, c_noise)
        if c_end is not None:
            e = e + self._time(self.end_in, self.end_out, c_end)
        if label is not None:
            e = e + jnp.where(label < 0, 0.0, self.label(label))
        return jax.nn.silu(e)

    def _time(self, first: eqx.nn.Linear, second: eqx.nn.Linear, c: jax.Array) -> jax.Array:
        return second(jax.nn.silu(first(_features(self.architecture, c).astype(first.weight.dtype))))

    def _one(self, x: jax.Array, e: jax.Array) -> jax.Array:
        """Return F of one sample, shaped like x, given its embedding."""
        raise NotImplementedError


class ResidualMLP(JaxNetwork):
    """`cmcore.architectures.ResidualMLP`, called on batches."""

    stem: eqx.nn.Linear
    blocks: tuple[MLPBlock, ...]
    norm: eqx.nn.LayerNorm
    head: eqx.nn.Linear

    def __init__(self, architecture: arch.ResidualMLP):
        size, width = math.prod(architecture.shape), architecture.width
        super().__init__(architecture, width)
        self.stem = _linear(size, width)
        self.blocks = tuple(MLPBlock(width) for _ in range(architecture.blocks))
        self.norm = eqx.nn.LayerNorm(width)
        self.head = _linear(width, size)

    def _one(self, x: jax.Array, e: jax.Array) -> jax.Array:
        h = self.stem(x.reshape(-1))
        for block in self.blocks:
            h = block(h, e)
        return self.head(self.norm(h)).reshape(x.shape)


class ResidualConv(JaxNetwork):
    """`cmcore.architectures.ResidualConv`, called on batches."""

    stem: Conv
    down: tuple[tuple[ConvBlock, ...], ...]
    up: tuple[tuple[ConvBlock, ...], ...]
    norm: GroupNorm
    head: Conv

    def __init__(self, architecture: arch.ResidualConv):
        width, embedding, groups = architecture.width, 4 * architecture.width, architecture.groups
        channels, levels = architecture.block_channels(), range(len(architecture.multipliers))

        def level_blocks(level: str) -> tuple[ConvBlock, ...]:
            names = (f"{level}.{b}" for b in range(architecture.blocks))
            return tuple(ConvBlock(*channels[name], embedding, groups) for name in names)

        super().__init__(architecture, embedding)
        self.stem = Conv(architecture.shape[0], width)
        self.down = tuple(level_blocks(f"down.{level}") for level in levels)
        self.up = tuple(level_blocks(f"up.{level}") for level in levels[:-1])
        self.norm = GroupNorm(groups, width * architecture.multipliers[0])
        self.head = Conv(width * architecture.multipliers[0], architecture.shape[0])

    def _one(self, x: jax.Array, e: jax.Array) -> jax.Array:
        h = self.stem(jnp.moveaxis(x, 0, -1))
        skips = []
        for blocks in self.down:
            h = _half(h) if skips else h
            for block in blocks:
                h = block(h, e)
            skips.append(h)
        for blocks, skip in zip(reversed(self.up), reversed(skips[:-1]), strict=True):
            h = jnp.concatenate([_double(h), skip], axis=-1)
            for block in blocks:
                h = block(h, e)
        return jnp.moveaxis(self.head(jax.nn.silu(self.norm(h))), -1, 0)


def build(
    architecture: arch.Architecture, weights: Mapping[str, np.ndarray], place: Placement
) -> ResidualMLP | ResidualConv:
    """Return the architecture's module with the given weights, each passed through ``place``."""
    arch.check_weights(architecture, weights)
    module = _MODULES[type(architecture)]
    # Only shapes are traced: the arrays of the module's own initialisation are never made.
    skeleton = eqx.filter_eval_shape(module, architecture)
    return jax.tree.map_with_path(lambda path, _: place(weights[path_name(path, ".")]), skeleton)


_MODULES: dict[type, type[eqx.Module]] = {arch.ResidualMLP: ResidualMLP, arch.ResidualConv: ResidualConv}


def _linear(n_in: int, n_out: int) -> eqx.nn.Linear:
    return eqx.nn.Linear(n_in, n_out, key=jax.random.key(0))


def _features(architecture: arch.Architecture, c: jax.Array) -> jax.Array:
    """Return the features phi of time inputs c, (..., n)."""
    angles = jnp.asarray(architecture.frequencies(), c.dtype) * c[..., None]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def _half(h: jax.Array) -> jax.Array:
    """Average 2 x 2 pixels of h, (H, W, C)."""
    rows, columns, c = h.shape
    return h.reshape(rows // 2, 2, columns // 2, 2, c).mean((1, 3))


def _double(h: jax.Array) -> jax.Array:
    """Repeat each pixel of h, (H, W, C), 2 x 2 times."""
    return jnp.repeat(jnp.repeat(h, 2, axis=0), 2, axis=1)
