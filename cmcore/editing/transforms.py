"""Orthogonal changes of basis, in which what is known of a picture is some of the coordinates.

A direction v becomes the first coordinate by the Householder reflection ``H = I - 2 u u^T / (u^T u)`` with ``u = e_1 - v / |v|``: its
first column is ``v / |v|``, it is its own inverse, and no matrix product rounds it. Which vectors complete the basis has no bearing on
editing, for only the share along v is known, and the noise is the same in every direction.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cmcore._arrays import check_state, from_host, to_host
from cmcore._options import check_count
from cmcore.backend import Array, namespace

LUMA = (0.299, 0.587, 0.114)
"""ITU-R BT.601's shares of red, green and blue in grey, Pillow's too. They sum to 1, so that grey pixels keep their value; the
paper's authors write 0.2989, 0.5870, 0.1140."""


class Transform(ABC):
    """An orthogonal map of samples (B, ...) to coordinates (B, ..., k)."""

    @abstractmethod
    def forward(self, x: Array) -> Array:
        """Return the coordinates of samples."""

    @abstractmethod
    def inverse(self, y: Array) -> Array:
        """Return the samples that have these coordinates."""


@dataclass(frozen=True)
class Identity(Transform):
    """The samples themselves, (B, ...): what is known is known to the bit."""

    def forward(self, x: Array) -> Array:
        """Return x."""
        check_state(x)
        return x

    def inverse(self, y: Array) -> Array:
        """Return y."""
        return y


@dataclass(frozen=True)
class Channels(Transform):
    """Samples (B, C, ...) as (B, ..., C), of whose coordinates the first is that along a direction of C numbers, by default grey."""

    direction: Sequence[float] = LUMA

    def __post_init__(self) -> None:
        _mirror(self.direction)

    def forward(self, x: Array) -> Array:
        """Return the channels' coordinates, (B, ..., C)."""
        xp = check_state(x)
        if x.ndim < 2 or x.shape[1] != len(self.direction):
            raise ValueError(f"x must have {len(self.direction)} channels, (B, C, ...), got {tuple(x.shape)}.")
        return _reflected(xp.moveaxis(x, 1, -1), self.direction)

    def inverse(self, y: Array) -> Array:
        """Return samples (B, C, ...)."""
        return namespace(y).moveaxis(_reflected(y, self.direction), -1, 1)


@dataclass(frozen=True)
class Patches(Transform):
    """Images (B, C, H, W) as (B, C, H / p, W / p, p^2): each channel of each patch by itself, the first coordinate ``p mean``."""

    size: int

    def __post_init__(self) -> None:
        check_count("The side of a patch", self.size, 1)

    def forward(self, x: Array) -> Array:
        """Return the patches' coordinates, (B, C, H / p, W / p, p^2)."""
        xp, p = check_state(x), self.size
        if x.ndim != 4 or x.shape[2] % p or x.shape[3] % p:
            raise ValueError(f"Patches of {p} x {p} pixels must fill images (B, C, H, W), got {tuple(x.shape)}.")
        b, c, h, w = x.shape[0], x.shape[1], x.shape[2] // p, x.shape[3] // p
        parts = xp.permute_dims(xp.reshape(x, (b, c, h, p, w, p)), (0, 1, 2, 4, 3, 5))
        return _reflected(xp.reshape(parts, (b, c, h, w, p * p)), (1.0,) * (p * p))

    def inverse(self, y: Array) -> Array:
        """Return images (B, C, H, W)."""
        xp, p = namespace(y), self.size
        b, c, h, w = y.shape[:4]
        parts = xp.reshape(_reflected(y, (1.0,) * (p * p)), (b, c, h, w, p, p))
        return xp.reshape(xp.permute_dims(parts, (0, 1, 2, 4, 3, 5)), (b, c, h * p, w * p))


@dataclass(frozen=True, eq=False)
class Basis(Transform):
    """Samples (B, D) in the basis of the columns of an orthogonal matrix (D, D), ``x Q``, of any shape when flattened."""

    matrix: Any

    def __post_init__(self) -> None:
        q = to_host(self.matrix, "The matrix")
        if q.ndim != 2 or q.shape[0] != q.shape[1] or not np.allclose(q @ q.T, np.eye(len(q)), rtol=0, atol=1e-6):
            raise ValueError(f"The matrix must be orthogonal, (D, D), which the one given, {q.shape}, is not.")
        object.__setattr__(self, "matrix", q)

    def forward(self, x: Array) -> Array:
        """Return the coordinates, (B, D)."""
        xp = check_state(x)
        if x.ndim != 2 or x.shape[1] != len(self.matrix):
            raise ValueError(f"x must have shape (B, {len(self.matrix)}), got {tuple(x.shape)}.")
        return xp.matmul(x, from_host(self.matrix, like=x))

    def inverse(self, y: Array) -> Array:
        """Return the samples, (B, D)."""
        return namespace(y).matmul(y, from_host(self.matrix.T, like=y))


def _mirror(direction: Sequence[float]) -> tuple[np.ndarray, float]:
    """u and ``2 / (u^T u)`` of the reflection whose first column is a direction; the latter is 0 where it is e_1 itself."""
    v = to_host(direction, "The direction")
    length = math.sqrt(float(v @ v)) if v.ndim == 1 else 0.0
    if not length:
        raise ValueError(f"The direction must be numbers that are not all 0, got {direction}.")
    u = -v / length
    u[0] += 1.0
    squared = float(u @ u)
    return u, 2.0 / squared if squared else 0.0


def _reflected(rows: Array, direction: Sequence[float]) -> Array:
    """Vectors along the last axis, reflected."""
    host, factor = _mirror(direction)
    u, xp = from_host(host, like=rows), namespace(rows)
    return rows - (factor * xp.sum(rows * u, axis=-1, keepdims=True)) * u
