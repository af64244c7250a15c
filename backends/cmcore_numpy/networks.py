"""The architectures evaluated in NumPy, as their docstrings in `cmcore.architectures` define them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cmcore.architectures import NO_LOG_WEIGHT, Architecture, ResidualConv, ResidualMLP, check_end, check_weights

EPS = 1e-5


@dataclass(frozen=True)
class NumpyNetwork:
    """A callable ``net(x, c_noise, label=None, c_end=None)``, x of shape (B, *shape); its weights are plain arrays."""

    architecture: Architecture
    weights: Mapping[str, np.ndarray]

    @staticmethod
    def create(architecture: Architecture, weights: Mapping[str, np.ndarray], dtype: str) -> NumpyNetwork:
        """Return the network with checked weights of the given dtype."""
        check_weights(architecture, weights)
        return NumpyNetwork(architecture, {name: np.asarray(w, dtype=dtype) for name, w in weights.items()})

    def __call__(
        self, x: np.ndarray, c_noise: np.ndarray, label: np.ndarray | None = None, c_end: np.ndarray | None = None
    ) -> np.ndarray:
        """Return F(x, c_noise, label, c_end), shaped like x."""
        if (label is None) == (self.architecture.classes > 0):
            raise ValueError(
                f"The network has {self.architecture.classes} classes, so a label must "
                f"{'be given' if label is None else 'not be given'}."
            )
        e = self._embed(self._times(c_noise, c_end), label)
        if isinstance(self.architecture, ResidualMLP):
            return self._mlp(self.architecture, x, e)
        return self._conv_net(self.architecture, x, e)

    def log_weight(self, c_noise: np.ndarray, c_end: np.ndarray | None = None) -> np.ndarray:
        """Return the logarithm of the loss's weight at these times, (B,)."""
        if not self.architecture.log_weight:
            raise ValueError(NO_LOG_WEIGHT)
        phi = np.concatenate([self._features(c) for c in self._times(c_noise, c_end)], axis=1)
        return self._linear("log_weight", phi)[:, 0]

    def _times(self, c_noise: np.ndarray, c_end: np.ndarray | None) -> tuple[np.ndarray, ...]:
        check_end(self.architecture, c_noise, c_end)
        return (c_noise,) if c_end is None else (c_noise, c_end)

    def _features(self, c: np.ndarray) -> np.ndarray:
        angles = c[:, None] * self.architecture.frequencies().astype(c.dtype)
        return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)

    def _embed(self, times: tuple[np.ndarray, ...], label: np.ndarray | None) -> np.ndarray:
        e = 0.0
        for layer, c in zip(("time", "end"), times, strict=False):
            e = e + self._linear(f"{layer}_out", _silu(self._linear(f"{layer}_in", self._features(c))))
        if label is not None:
            # A negative label, which is no class, matches none.
            e = e + (label[:, None] == np.arange(self.architecture.classes)) @ self.weights["label.weight"]
        return _silu(e)

    def _mlp(self, architecture: ResidualMLP, x: np.ndarray, e: np.ndarray) -> np.ndarray:
        h = self._linear("stem", x.reshape(len(x), -1))
        for i in range(architecture.blocks):
            block = f"blocks.{i}"
            scale, shift = np.split(self._linear(f"{block}.modulation", e), 2, axis=1)
            r = self._linear(f"{block}.first", self._norm(f"{block}.norm", h, groups=1))
            h = h + self._linear(f"{block}.second", _silu(r * (1 + scale) + shift))
        return self._linear("head", self._norm("norm", h, groups=1)).reshape(x.shape)

    def _conv_net(self, architecture: ResidualConv, x: np.ndarray, e: np.ndarray) -> np.ndarray:
        h, skips = self._conv("stem", x), {}
        last = len(architecture.multipliers) - 1
        for level in range(last + 1):
            for b in range(architecture.blocks):
                h = self._block(architecture, f"down.{level}.{b}", h, e)
            if level < last:
                skips[level] = h
                n, c, height, width = h.shape
                h = h.reshape(n, c, height // 2, 2, width // 2, 2).mean(axis=(3, 5))
        for level in reversed(range(last)):
            h = np.concatenate([h.repeat(2, axis=2).repeat(2, axis=3), skips[level]], axis=1)
            for b in range(architecture.blocks):
                h = self._block(architecture, f"up.{level}.{b}", h, e)
        return self._conv("head", _silu(self._norm("norm", h, architecture.groups)))

    def _block(self, architecture: ResidualConv, name: str, h: np.ndarray, e: np.ndarray) -> np.ndarray:
        scale, shift = np.split(self._linear(f"{name}.modulation", e)[:, :, None, None], 2, axis=1)
        r = self._conv(f"{name}.first", _silu(self._norm(f"{name}.norm1", h, architecture.groups)))
        r = self._norm(f"{name}.norm2", r, architecture.groups) * (1 + scale) + shift
        r = self._conv(f"{name}.second", _silu(r))
        return (self._conv(f"{name}.skip", h) if f"{name}.skip.weight" in self.weights else h) + r

    def _linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def _conv(self, name: str, x: np.ndarray) -> np.ndarray:
        weight = self.weights[f"{name}.weight"]
        k = weight.shape[-1]
        padded = np.pad(x, ((0, 0), (0, 0), (k // 2, k // 2), (k // 2, k // 2)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (k, k), axis=(2, 3))
        out = np.tensordot(windows, weight, axes=((1, 4, 5), (1, 2, 3)))
        return np.moveaxis(out, -1, 1) + self.weights[f"{name}.bias"][:, None, None]

    def _norm(self, name: str, x: np.ndarray, groups: int) -> np.ndarray:
        """Group norm over channels and space; a layer norm is the case of one group and no space."""
        grouped = x.reshape(len(x), groups, -1)
        centred = grouped - grouped.mean(axis=2, keepdims=True)
        normed = centred / np.sqrt((centred**2).mean(axis=2, keepdims=True) + EPS)
        channels = (-1,) + (1,) * (x.ndim - 2)
        scale, shift = (self.weights[f"{name}.{kind}"].reshape(channels) for kind in ("weight", "bias"))
        return normed.reshape(x.shape) * scale + shift


def _silu(x: np.ndarray) -> np.ndarray:
    # tanh rather than exp, which overflows (and warns) for large negative x.
    return x * (0.5 * (1.0 + np.tanh(0.5 * x)))
