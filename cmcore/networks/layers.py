"""What networks are made of: layers, each a frozen description with its weights' shapes and initial values.

A backend computes them: for each class here it has a native one, made of the description (`cmcore.backend.Backend`).
Images are (B, C, H, W) as far as anything outside a network sees; a backend may keep another order inside
(`cmcore.networks.Part` has the functions that a part calls to stay out of it). Matrices are (out, in).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

Layout = dict[str, tuple[int, ...]]
"""The shape of every weight by name."""


class Layer:
    """A leaf of a network; without weights unless it says otherwise."""

    gain = 1.0
    """Initial matrices and kernels are normal with variance gain^2 / fan-in, or 0, and nothing is drawn; biases are 0."""

    def layout(self) -> Layout:
        """Return the shape of every weight by its name within the layer."""
        return {}

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Return initial weights, float32, drawn from rng in the order of the layout."""
        values = {name: np.zeros(shape, np.float32) for name, shape in self.layout().items()}
        if self.gain and "weight" in values:
            shape = values["weight"].shape
            values["weight"] = _normal(shape, self.gain, math.sqrt(math.prod(shape[1:])), rng)
        return values

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Raise `TypeError`: a description computes nothing."""
        raise TypeError(
            f"A {type(self).__name__} of cmcore.networks describes a layer and computes nothing; "
            "make its network a backend's own with backend.network(architecture)."
        )


@dataclass(frozen=True)
class Linear(Layer):
    """``x W^T + b`` over the last axis, (..., n_in) -> (..., n_out)."""

    n_in: int
    n_out: int
    bias: bool = True
    gain: float = 1.0

    def layout(self) -> Layout:
        return {"weight": (self.n_out, self.n_in)} | ({"bias": (self.n_out,)} if self.bias else {})


@dataclass(frozen=True)
class Conv(Layer):
    """A convolution with a bias, with zeros beyond the edges; the kernel is odd.

    It keeps height and width, or gives ``beyond`` more pixels at each edge: what the convolution is outside of the image.
    """

    c_in: int
    c_out: int
    kernel: int = 3
    gain: float = 1.0
    beyond: int = 0

    def __post_init__(self) -> None:
        if self.beyond < 0:
            raise ValueError(f"A convolution gives at least as many pixels as it has, got beyond={self.beyond}.")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(f"A convolution that keeps its size has a kernel of odd size, got {self.kernel}.")

    @property
    def padding(self) -> int:
        """How many zeros are beyond each edge."""
        return self.kernel // 2 + self.beyond

    def layout(self) -> Layout:
        return {"weight": (self.c_out, self.c_in, self.kernel, self.kernel), "bias": (self.c_out,)}


@dataclass(frozen=True)
class PatchEmbedding(Layer):
    """A linear map of each patch of ``patch`` x ``patch`` pixels: images (B, C, H, W) -> (B, width, H / patch, W / patch).

    It is a convolution with a bias whose stride is its kernel. `ValueError` for sides that the patch does not divide.
    """

    c_in: int
    width: int
    patch: int
    gain: float = 1.0

    def check(self, rows: int, columns: int) -> None:
        """Raise `ValueError` unless the patch divides both sides of what is to be cut into patches."""
        if rows % self.patch or columns % self.patch:
            raise ValueError(f"Images of {rows} x {columns} cannot be cut into patches of {self.patch} x {self.patch}.")

    def layout(self) -> Layout:
        return {"weight": (self.width, self.c_in, self.patch, self.patch), "bias": (self.width,)}


class Norm(Layer):
    """A normalisation, followed by a scale, 1 at first, and a shift, 0 at first, for each channel."""

    channels: int
    affine: bool = True

    def check(self, channels: int) -> None:
        """Raise `ValueError` unless what is to be normalised has this layer's number of channels."""
        if channels != self.channels:
            raise ValueError(f"A norm of {self.channels} channels was given {channels}.")

    def layout(self) -> Layout:
        return {"weight": (self.channels,), "bias": (self.channels,)} if self.affine else {}

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {name: np.full(shape, float(name == "weight"), np.float32) for name, shape in self.layout().items()}


@dataclass(frozen=True)
class GroupNorm(Norm):
    """Normalisation of images over the pixels and channels of each group of channels."""

    channels: int
    groups: int = 32
    eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.groups < 1 or self.channels % self.groups:
            raise ValueError(f"{self.channels} channels cannot be divided into {self.groups} groups of equal size.")


@dataclass(frozen=True)
class LayerNorm(Norm):
    """Normalisation over the last axis, (..., channels); without scale and shift where ``affine`` is False."""

    channels: int
    eps: float = 1e-5
    affine: bool = True


@dataclass(frozen=True)
class Embedding(Layer):
    """The row of each label, (B,) integers -> (B, width); a label that is no class, negative or too large, has a row of 0."""

    rows: int
    width: int
    std: float = 1.0
    """The deviation of the initial rows, which are normal."""

    def layout(self) -> Layout:
        return {"weight": (self.rows, self.width)}

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {"weight": _normal((self.rows, self.width), self.std, 1.0, rng)}


@dataclass(frozen=True)
class Weight(Layer):
    """A weight by itself, such as a table of positions: calling it returns the array. Initially normal, of that deviation."""

    shape: tuple[int, ...]
    std: float = 0.0

    def layout(self) -> Layout:
        return {"weight": self.shape}

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {"weight": _normal(self.shape, self.std, 1.0, rng) if self.std else np.zeros(self.shape, np.float32)}


@dataclass(frozen=True)
class SineCosine(Layer):
    """A fixed table of positions on a grid: ``layer(tokens)`` is `table`, (N, channels), of the tokens' dtype and on their device.

    The position (i, j), row ``i columns + j``, has ``[sin(w j), cos(w j), sin(w i), cos(w i)]`` with the channels / 4
    frequencies ``w_k = 10000^(-4 k / channels)`` (Vaswani et al., 2017, arXiv:1706.03762, for two dimensions, columns first, as
    He et al., 2022, arXiv:2111.06377, and Peebles & Xie, 2023, arXiv:2212.09748, have it).
    """

    rows: int
    columns: int
    channels: int

    def __post_init__(self) -> None:
        if self.channels < 4 or self.channels % 4:
            raise ValueError(
                f"Sines and cosines of two coordinates need a number of channels divisible by 4, got {self.channels}."
            )

    def table(self) -> np.ndarray:
        """Return the table, (rows * columns, channels), float64."""
        return _sine_cosine(self.rows, self.columns, self.channels)


@dataclass(frozen=True)
class Fourier(Layer):
    """Features ``phi(c) = [cos(w c), sin(w c)]`` of times c, (B,), those of several times side by side: (B, n)."""

    frequencies: tuple[float, ...]


@dataclass(frozen=True)
class LogWeight(Layer):
    """The learned logarithm of a loss's weight, linear in the features of one time or two: (B,) -> (B,), 0 at first.

    Without weights, where it is not ``enabled``, a call is a `ValueError`. (Karras et al., 2024, arXiv:2312.02696, appendix
    B.3, call it u(sigma); Lu & Song, 2024, arXiv:2410.11081, w_phi(t).)
    """

    frequencies: tuple[float, ...]
    times: int = 1
    enabled: bool = True
    gain = 0.0

    @property
    def linear(self) -> Linear:
        """The linear layer."""
        return Linear(2 * len(self.frequencies) * self.times, 1, gain=0.0)

    def layout(self) -> Layout:
        return self.linear.layout() if self.enabled else {}

    def check(self, *times: Any) -> None:
        """Raise `ValueError` unless the layer is enabled and given as many times as it was made for."""
        if not self.enabled:
            raise ValueError("The network has no log weight; build it with log_weight=True.")
        check_end(self.times == 2, *times)


@dataclass(frozen=True)
class Attention(Layer):
    """Softmax attention with that many heads: queries, keys and values, each (B, N, C), give (B, N, C).

    Head h has the channels from ``h C / heads`` on; the scores are divided by ``sqrt(C / heads)``.
    """

    heads: int


@dataclass(frozen=True)
class Resample(Layer):
    """Images of twice or half the height and width, filtered by the taps along both, with zeros beyond the edges.

    Down, a pixel is the taps' weighted mean about each second one; up, zeros between the pixels are filled by the taps'
    weighted sum, which are normalised to 2 along each side (Karras et al., 2022, their resample_filter). Taps (1, 1) are the
    mean of 2 x 2 pixels down and each pixel repeated 2 x 2 times up. ``within``, down, gives only the pixels whose taps are all
    within the image, len(taps) / 2 - 1 fewer than half.
    """

    up: bool
    taps: tuple[float, ...] = (1.0, 1.0)
    within: bool = False

    def __post_init__(self) -> None:
        if self.up and self.within:
            raise ValueError("Images are doubled with zeros beyond the edges; within is for halving.")
        if len(self.taps) < 2 or len(self.taps) % 2 or not sum(self.taps) > 0:
            raise ValueError(f"The taps must be an even number of weights with a positive sum, got {self.taps}.")

    @property
    def plain(self) -> bool:
        """Whether the filter is the mean of 2 x 2 pixels, or the nearest pixel."""
        return len(self.taps) == 2 and self.taps[0] == self.taps[1]


@dataclass(frozen=True)
class Dropout(Layer):
    """Each number is 0 with the probability ``rate`` and otherwise divided by ``1 - rate``: ``layer(h, key)``.

    ``key``, () int32 of at least 0, is the train step's; without it, None, nothing is dropped. Which numbers are is told by
    the key, the layer's ``number`` in its network, the sample's place in the batch and the number's in (C, H, W), so that
    both evaluations of a pair, and all frameworks, drop the same (`cmcore.networks.dropout`).
    """

    rate: float
    number: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise ValueError(f"The rate of dropout must be at least 0 and less than 1, got {self.rate}.")


@dataclass(frozen=True)
class SiLU(Layer):
    """``x sigmoid(x)``."""


@dataclass(frozen=True)
class GELU(Layer):
    """``x Phi(x)`` with the normal distribution function by a tanh: ``0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))``.

    (Hendrycks & Gimpel, 2016, arXiv:1606.08415, section 2.)
    """


KINDS = (
    Linear, Conv, PatchEmbedding, GroupNorm, LayerNorm, Embedding, Weight, SineCosine, Fourier, LogWeight, Attention, Resample,
    Dropout, SiLU, GELU
)  # fmt: skip
"""All layers: what a backend computes."""


def check_end(two_times: bool, c_noise: Any, c_end: Any = None) -> None:
    """Raise `ValueError` unless c_end is given where a network has two times, shaped like c_noise, and only there."""
    if c_end is None and two_times:
        raise ValueError("The network has two times: give c_end, (B,), the time input of the end.")
    if c_end is not None and not two_times:
        raise ValueError("The network has one time, so it takes no c_end; build it with two_times=True.")
    if c_end is not None and tuple(c_end.shape) != tuple(c_noise.shape):
        raise ValueError(
            f"The network expects c_end shaped like c_noise, {tuple(c_noise.shape)}, got {tuple(c_end.shape)}."
        )


@cache
def _sine_cosine(rows: int, columns: int, channels: int) -> np.ndarray:
    w = 10000.0 ** (-np.arange(channels // 4) / (channels // 4))
    i, j = np.divmod(np.arange(rows * columns), columns)
    table = np.concatenate([f(np.outer(position, w)) for position in (j, i) for f in (np.sin, np.cos)], axis=1)
    table.flags.writeable = False
    return table


def _normal(shape: tuple[int, ...], gain: float, divisor: float, rng: np.random.Generator) -> np.ndarray:
    return (gain * rng.standard_normal(shape) / divisor).astype(np.float32)
