"""Samples as rows of numbers, read in blocks of float64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import numpy as np

from cmcore._arrays import to_host
from cmcore.backend import Array

NUMBERS = 2**22
"""About how many numbers, of samples or of distances between them, are held in float64 at once."""


@final
class Rows:
    """Samples (N, ...) as N vectors of ``width`` numbers, checked; float arrays of NumPy are not copied.

    `ValueError` for fewer than two samples, for none of their numbers, and for those that are not finite.
    """

    def __init__(self, x: Array, name: str) -> None:
        stored = x if isinstance(x, np.ndarray) and x.dtype in (np.float32, np.float64) else to_host(x, name)
        if stored.ndim < 1 or len(stored) < 2 or not stored.size:
            raise ValueError(f"{name} must hold at least two samples, (N, ...), got shape {stored.shape}.")
        self._stored = stored.reshape(len(stored), -1)
        self.width = self._stored.shape[1]
        for block in self.blocks():
            if not np.isfinite(block).all():
                raise ValueError(f"{name} must be finite.")

    def __len__(self) -> int:
        return len(self._stored)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        return np.asarray(self._stored[rows], np.float64)

    def blocks(self, size: int | None = None) -> Iterator[np.ndarray]:
        """Yield the rows in order, as many at once as fit, or ``size``."""
        size = size or max(1, NUMBERS // self.width)
        return (self[i : i + size] for i in range(0, len(self), size))


def pair(x: Array, y: Array, x_name: str = "x", y_name: str = "y") -> tuple[Rows, Rows]:
    """Return two sets of samples that can be compared; `ValueError` if their sizes differ."""
    one, other = Rows(x, x_name), Rows(y, y_name)
    if one.width != other.width:
        raise ValueError(
            f"Samples must have as many numbers in {x_name} as in {y_name}, got {one.width} and {other.width}."
        )
    return one, other
