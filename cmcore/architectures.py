"""The networks every backend can build: their settings, the names and shapes of their weights, and their initial values.

A backend turns an architecture into a network of its framework; because names, shapes and initial values are decided
here, weights trained in one framework load in every other. All arrays are channels-first and matrices are (out, in), as
on disk.

Both networks compute ``F(x, c_noise, label)`` of the same shape as x, where c_noise is the (B,) time input of the
parametrisation and label, (B,) integers below ``classes``, is given only where ``classes > 0``; a negative label is no
class, as classifier-free guidance needs it. Two options of both, off by default:

- ``two_times``: a flow map's network ``F(x, c_noise, label, c_end)``, whose c_end, (B,), is the time input of the end.
- ``log_weight``: the network has a function ``net.log_weight(c_noise, c_end) -> (B,)``, linear in the features phi of
  its times, 0 at first: the learned logarithm of a loss's weight at these times, trained with the rest (Karras et al.,
  2024, arXiv:2312.02696, appendix B.3, call it u(sigma); Lu & Song, 2024, arXiv:2410.11081, w_phi(t)).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

Layout = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class ResidualMLP:
    """A residual perceptron for flat or small data.

    With e the time embedding below, on the flattened input::

        h = stem(x)
        for each block:  h = h + second(silu(first(norm(h)) * (1 + scale) + shift))   (scale, shift) = modulation(e)
        F = head(norm(h))

    The time embedding, shared with `ResidualConv`, is ``e = silu(time_out(silu(time_in(phi(c_noise)))) + end + label)``
    with ``phi(c) = [cos(w c), sin(w c)]`` and w = `frequencies()`; ``label`` is the row of the label table, if any, and 0
    for a negative label; ``end = end_out(silu(end_in(phi(c_end))))`` with two times, else nothing. ``log_weight`` reads
    ``phi(c_noise)`` or, with two times, ``[phi(c_noise), phi(c_end)]``. Norms are layer norms with eps 1e-5; linear
    layers have biases.
    """

    shape: tuple[int, ...]
    width: int = 256
    blocks: int = 3
    classes: int = 0
    features: int = 64
    max_frequency: float = 16.0
    two_times: bool = False
    log_weight: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        _require_positive(self, "width", "blocks")
        _require_time_features(self)

    def frequencies(self) -> np.ndarray:
        """Return w, (features / 2,), float64: a geometric ladder from 1 to max_frequency."""
        return np.geomspace(1.0, self.max_frequency, self.features // 2)

    def layout(self) -> Layout:
        """Return the shape of every weight by name."""
        size, w = math.prod(self.shape), self.width
        layout = _embedding(self, w) | _linear("stem", size, w)
        for i in range(self.blocks):
            block = f"blocks.{i}"
            layout |= _norm(f"{block}.norm", w) | _linear(f"{block}.first", w, w)
            layout |= _linear(f"{block}.modulation", w, 2 * w) | _linear(f"{block}.second", w, w)
        return layout | _norm("norm", w) | _linear("head", w, size) | _options(self, w)

    def init(self, seed: int = 0) -> dict[str, np.ndarray]:
        """Return initial weights, float32; the same for every backend."""
        return _initial(self.layout(), seed)


@dataclass(frozen=True)
class ResidualConv:
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
    are group norms of ``groups`` groups with eps 1e-5. The time embedding e, ``4 * width`` wide, is `ResidualMLP`'s.
    """

    shape: tuple[int, int, int]
    width: int = 32
    multipliers: tuple[int, ...] = (1, 2, 2)
    blocks: int = 2
    classes: int = 0
    groups: int = 8
    features: int = 64
    max_frequency: float = 16.0
    two_times: bool = False
    log_weight: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        object.__setattr__(self, "multipliers", tuple(self.multipliers))
        _require_positive(self, "width", "blocks", "groups")
        _require_time_features(self)
        if len(self.shape) != 3:
            raise ValueError(f"A convolutional network needs data of shape (C, H, W), got {self.shape}.")
        if not self.multipliers or any(m < 1 for m in self.multipliers):
            raise ValueError(f"The channel multipliers must be positive, got {self.multipliers}.")
        factor = 2 ** (len(self.multipliers) - 1)
        if self.shape[1] % factor or self.shape[2] % factor:
            raise ValueError(
                f"Images of {self.shape[1]} x {self.shape[2]} cannot be halved {len(self.multipliers) - 1} times; "
                f"use sides divisible by {factor} or fewer multipliers."
            )
        if self.width % self.groups:
            raise ValueError(f"The width {self.width} is not divisible into {self.groups} groups.")

    def frequencies(self) -> np.ndarray:
        """Return w, (features / 2,), float64: a geometric ladder from 1 to max_frequency."""
        return np.geomspace(1.0, self.max_frequency, self.features // 2)

    def block_channels(self) -> dict[str, tuple[int, int]]:
        """Return (channels in, channels out) of every residual block, by its name and in the order of evaluation."""
        channels = [self.width * m for m in self.multipliers]
        blocks, current = {}, self.width
        for level, c in enumerate(channels):
            for b in range(self.blocks):
                blocks[f"down.{level}.{b}"] = (current, c)
                current = c
        for level in reversed(range(len(channels) - 1)):
            current += channels[level]
            for b in range(self.blocks):
                blocks[f"up.{level}.{b}"] = (current, channels[level])
                current = channels[level]
        return blocks

    def layout(self) -> Layout:
        """Return the shape of every weight by name."""
        w, emb = self.width, 4 * self.width
        layout = _embedding(self, emb) | _conv("stem", self.shape[0], w)
        for name, (c_in, c_out) in self.block_channels().items():
            layout |= _norm(f"{name}.norm1", c_in) | _conv(f"{name}.first", c_in, c_out)
            layout |= _linear(f"{name}.modulation", emb, 2 * c_out) | _norm(f"{name}.norm2", c_out)
            layout |= _conv(f"{name}.second", c_out, c_out)
            if c_in != c_out:
                layout |= _conv(f"{name}.skip", c_in, c_out, kernel=1)
        last = w * self.multipliers[0]
        return layout | _norm("norm", last) | _conv("head", last, self.shape[0]) | _options(self, emb)

    def init(self, seed: int = 0) -> dict[str, np.ndarray]:
        """Return initial weights, float32; the same for every backend."""
        return _initial(self.layout(), seed)


Architecture = ResidualMLP | ResidualConv
_KINDS: dict[str, type[ResidualMLP] | type[ResidualConv]] = {"mlp": ResidualMLP, "conv": ResidualConv}


def to_config(architecture: Architecture) -> dict[str, Any]:
    """Return an architecture as plain JSON data, without the options that are off; `from_config` is its inverse."""
    kind = next(name for name, cls in _KINDS.items() if isinstance(architecture, cls))
    return {"kind": kind, **{name: value for name, value in asdict(architecture).items() if value is not False}}


def from_config(config: Mapping[str, Any]) -> Architecture:
    """Return the architecture that `to_config` described; what it does not know is a `ValueError`."""
    settings = dict(config)
    kind = settings.pop("kind", None)
    if kind not in _KINDS:
        raise ValueError(f"Unknown network {kind!r}; the known ones are {', '.join(_KINDS)}.")
    try:
        return _KINDS[kind](**settings)
    except TypeError as mismatch:
        raise ValueError(f"The settings of the network {kind!r} do not fit: {mismatch}.") from mismatch


def check_weights(architecture: Architecture, weights: Mapping[str, np.ndarray]) -> None:
    """Raise `ValueError` unless the weights have exactly the architecture's names and shapes."""
    layout = architecture.layout()
    if missing := sorted(layout.keys() - weights.keys()):
        raise ValueError(f"The weights lack {missing[0]!r}{_and_more(missing)}.")
    if extra := sorted(weights.keys() - layout.keys()):
        raise ValueError(f"The network has no weight named {extra[0]!r}{_and_more(extra)}.")
    for name, shape in layout.items():
        if tuple(weights[name].shape) != shape:
            raise ValueError(f"The weight {name!r} has shape {tuple(weights[name].shape)}; expected {shape}.")


def grown(weights: Mapping[str, np.ndarray], architecture: Architecture, seed: int = 0) -> dict[str, np.ndarray]:
    """Return the weights completed with the architecture's initial values of its options ``two_times`` and ``log_weight``.

    The grown network computes what the given weights computed, whatever c_end, until it is trained: so a network of one
    time starts one of two. Anything else that is missing, superfluous or misshapen is a `ValueError`.
    """
    fresh = {n: w for n, w in architecture.init(seed).items() if n not in weights and n.partition(".")[0] in _OPTIONS}
    complete = {**weights, **fresh}
    check_weights(architecture, complete)
    return complete


NO_LOG_WEIGHT = "The network has no log weight; build it with log_weight=True."
"""What a network says that is asked for a log weight and has none."""


def check_end(architecture: Architecture, c_noise: Any, c_end: Any) -> None:
    """Raise `ValueError` unless c_end is given where the architecture has two times, shaped like c_noise, and only there."""
    if c_end is None and architecture.two_times:
        raise ValueError("The network has two times: give c_end, (B,), the time input of the end.")
    if c_end is not None and not architecture.two_times:
        raise ValueError("The network has one time, so it takes no c_end; build it with two_times=True.")
    if c_end is not None and tuple(c_end.shape) != tuple(c_noise.shape):
        raise ValueError(f"The network expects c_end shaped like c_noise, {c_noise.shape}, got {c_end.shape}.")


def _and_more(items: list[str]) -> str:
    return f" and {len(items) - 1} more" if len(items) > 1 else ""


def _require_positive(architecture: Any, *fields: str) -> None:
    for field in fields:
        if getattr(architecture, field) < 1:
            raise ValueError(f"The network's {field} must be at least 1, got {getattr(architecture, field)}.")
    if not architecture.shape or any(n < 1 for n in architecture.shape):
        raise ValueError(f"The data's shape must be positive in every dimension, got {architecture.shape}.")
    if architecture.classes < 0:
        raise ValueError(f"The number of classes cannot be negative, got {architecture.classes}.")


def _require_time_features(architecture: Any) -> None:
    if architecture.features < 2 or architecture.features % 2:
        raise ValueError(f"The number of time features must be even and positive, got {architecture.features}.")
    if not architecture.max_frequency >= 1:
        raise ValueError(f"The highest time frequency must be at least 1, got {architecture.max_frequency}.")


def _linear(name: str, n_in: int, n_out: int) -> Layout:
    return {f"{name}.weight": (n_out, n_in), f"{name}.bias": (n_out,)}


def _conv(name: str, c_in: int, c_out: int, kernel: int = 3) -> Layout:
    return {f"{name}.weight": (c_out, c_in, kernel, kernel), f"{name}.bias": (c_out,)}


def _norm(name: str, channels: int) -> Layout:
    return {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}


def _embedding(architecture: Any, width: int) -> Layout:
    layout = _linear("time_in", architecture.features, width) | _linear("time_out", width, width)
    return layout | ({"label.weight": (architecture.classes, width)} if architecture.classes else {})


_OPTIONS = ("end_in", "end_out", "log_weight")
"""The layers that an option adds."""


def _options(architecture: Any, width: int) -> Layout:
    """The layers of the options; last in the layout, so that they do not change the initial values of the others."""
    features = architecture.features
    layout: Layout = {}
    if architecture.two_times:
        layout |= _linear("end_in", features, width) | _linear("end_out", width, width)
    if architecture.log_weight:
        layout |= _linear("log_weight", features * (2 if architecture.two_times else 1), 1)
    return layout


def _initial(layout: Layout, seed: int) -> dict[str, np.ndarray]:
    """Scaled normal matrices; zero for biases and for the layers that end a residual branch, an option or the network."""
    rng = np.random.Generator(np.random.Philox(key=seed))
    return {name: _initial_value(name, shape, rng) for name, shape in layout.items()}


def _initial_value(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    layer, _, kind = name.rpartition(".")
    role = layer.rpartition(".")[2]
    if role.startswith("norm") and kind == "weight":
        return np.ones(shape, np.float32)
    if kind == "bias" or role in ("second", "head", "modulation", "end_out", "log_weight"):
        return np.zeros(shape, np.float32)
    fan_in = 1 if role == "label" else math.prod(shape[1:])
    return (rng.standard_normal(shape) / math.sqrt(fan_in)).astype(np.float32)
