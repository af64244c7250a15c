"""Files of arrays that are larger than the memory: mapped to be looked through, read row by row where any are asked for.

A system maps more than it is asked for, megabytes around each row where it keeps a file in large pieces, and all of that counts as this
process's memory. So rows at random are read, not looked at, and what was looked at in order is let go of now and then.
"""

from __future__ import annotations

import errno
import mmap
import os
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

RESIDENT = 2**26
"""How many bytes of a mapped file are looked at before its pages are let go of."""

SPREAD = 4
"""A row is read whole with what lies between its values, unless that is so many times more."""


@final
class MappedFile(mmap.mmap):
    """A whole file, mapped read-only, that can be read as well; ``path`` names it."""

    path: Path
    handle: int


def opened(path: Path) -> MappedFile:
    """Map a file, which must not be empty."""
    with path.open("rb") as file:
        mapped = MappedFile(file.fileno(), 0, access=mmap.ACCESS_READ)
        mapped.path, mapped.handle = path, os.dup(file.fileno())
    weakref.finalize(mapped, os.close, mapped.handle)
    return mapped


def mapping(array: np.ndarray) -> MappedFile | None:
    """Return the mapped file that an array is a view of, if it is one."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base if isinstance(base, MappedFile) else None


@dataclass
class Rows:
    """The rows of an array (N, ...), in memory or mapped."""

    array: np.ndarray
    _looked_at: int = 0

    def __post_init__(self) -> None:
        self._file = mapping(self.array)
        if self._file is not None:
            whole = np.frombuffer(self._file, np.uint8)
            self._start = _address(self.array) - _address(whole)
            strides = self.array.strides[1:]
            self._extent = self.array.itemsize + sum(
                (n - 1) * stride for n, stride in zip(self.array.shape[1:], strides, strict=True)
            )
            own = [n for n, stride in zip(self.array.shape[1:], strides, strict=True) if stride]
            dense = self._extent <= SPREAD * self.array.itemsize * int(np.prod(own))
            self._readable = dense and min(self.array.strides) >= 0 and hasattr(os, "preadv")

    def at(self, rows: np.ndarray) -> np.ndarray:
        """Return rows by their numbers, (B, ...), in memory of their own."""
        if self._file is None or not self._readable:
            # Not np.take, which first makes a copy of all that does not lie in order.
            return self._noted(self.array[rows])
        read, each = np.empty(len(rows) * self._extent, np.uint8), self._extent
        out, step = read.data, self.array.strides[0]
        for index, row in enumerate(rows.tolist()):
            piece = out[index * each : (index + 1) * each]
            if os.preadv(self._file.handle, (piece,), self._start + row * step) != each:
                raise OSError(errno.EIO, "The file has become shorter", str(self._file.path))
        shape = (len(rows), *self.array.shape[1:])
        return np.ndarray(shape, self.array.dtype, read, 0, (each, *self.array.strides[1:]))

    def between(self, start: int, stop: int) -> np.ndarray:
        """Return the rows [start, stop) as a view, to be used before any others are asked for."""
        return self._noted(self.array[start:stop])

    def _noted(self, seen: np.ndarray) -> np.ndarray:
        """Let go of what was looked at before, once that is much."""
        if self._file is None:
            return seen
        if self._looked_at + seen.nbytes > RESIDENT and hasattr(self._file, "madvise"):  # Windows has its own ways
            # The pages stay in the system's memory as long as there is room, so that little is read from the disk again.
            self._file.madvise(mmap.MADV_DONTNEED)
            self._looked_at = 0
        self._looked_at += seen.nbytes
        return seen


def _address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])
