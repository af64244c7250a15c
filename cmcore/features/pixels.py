"""What features are, and the simplest: the pictures' own values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Features(Protocol):
    """A function of pictures, (N, C, H, W) float32 in [-1, 1], to vectors, (N, d) float32, on the host."""

    @property
    def name(self) -> str:
        """What they are, in a word or two."""

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the vector of each picture."""


@dataclass(frozen=True)
class Pixels:
    """The values themselves, of pictures or of any samples, (N, ...)."""

    name: str = "pixels"

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the samples as vectors."""
        return np.asarray(x, np.float32).reshape(len(x), -1)
