"""Samples as they are stored, in memory or mapped from a file: pictures as bytes, which become float32 batch by batch."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, final

import numpy as np
from PIL import Image

from cmcore.run.data.convert import from_bytes
from cmcore.run.data.mapped import Rows

PIECE = 2**22
"""How many values are looked through at once."""


@dataclass(frozen=True)
class Facts:
    """What is known of stored samples once all were looked through: their lowest and highest value, the standard deviation of
    all values about their common mean, and a digest of their bytes as they are stored."""

    low: float
    high: float
    deviation: float
    digest: str

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data, whose floats are exact."""
        return asdict(self)


@final
@dataclass(frozen=True, eq=False)
class Samples:
    """N samples of one shape, float32 or uint8, of which any are taken as float32.

    ``stored`` is (M, \\*shape); ``rows`` (N,) says which of them are meant, by default all. Bytes become [-1, 1], 0 and 255 its
    ends, or what ``table``, (256,) float32, has for each. ``known`` are the facts, where they need not be looked for.
    """

    stored: np.ndarray
    rows: np.ndarray | None = None
    table: np.ndarray | None = None
    known: Facts | None = None
    _rows: Rows = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_rows", Rows(self.stored))

    def __len__(self) -> int:
        return len(self.stored if self.rows is None else self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return self.stored.shape[1:]

    @property
    def bytes(self) -> bool:
        """Whether the samples are stored as uint8."""
        return self.stored.dtype == np.uint8

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return samples by their numbers, (B, \\*shape) float32, in an array of its own."""
        return self._floats(self._rows.at(rows if self.rows is None else self.rows[rows]))

    def whole(self) -> np.ndarray:
        """Return all samples as float32, (N, \\*shape): those stored if they are such, else an array four times as large."""
        if not self.bytes:
            return self.stored if self.rows is None else self.stored[self.rows]
        out = np.empty((len(self), *self.shape), np.float32)
        start = 0
        for piece in self.floats():
            out[start : start + len(piece)] = piece
            start += len(piece)
        return out

    def floats(self, count: int | None = None) -> Iterator[np.ndarray]:
        """Return all samples in order as float32, ``count`` at a time, each array (n, \\*shape)."""
        for piece in self.pieces(count):
            yield self._floats(piece) if self.bytes else piece

    def pieces(self, count: int | None = None) -> Iterator[np.ndarray]:
        """Return all samples in order as they are stored, ``count`` at a time, by default so many that memory is bounded."""
        each = count or max(1, PIECE // max(1, math.prod(self.shape)))
        for start in range(0, len(self), each):
            stop = min(start + each, len(self))
            yield self._rows.between(start, stop) if self.rows is None else self._rows.at(self.rows[start:stop])

    @functools.cached_property
    def facts(self) -> Facts:
        """Look through all samples once, in pieces, unless it is known what would be found."""
        return self.known or self.look()

    def look(self, progress: Callable[[int, int], None] = lambda *_: None) -> Facts:
        """Look through all samples; ``progress`` is told how many of how many."""
        digest, done = hashlib.sha256(b"" if self.table is None else self.table.tobytes()), 0
        found, limits = np.zeros(256, np.int64), []
        # Beside what is counted meanwhile, which takes as long.
        with ThreadPoolExecutor(1) as beside:
            for piece in self.pieces():
                dense = np.ascontiguousarray(piece)
                digesting = beside.submit(digest.update, dense.data)
                if self.bytes:
                    found += _histogram(dense)
                else:
                    limits += [dense.min(), dense.max()]
                digesting.result()
                done += len(piece)
                progress(done, len(self))
        said = digest.hexdigest()
        if self.bytes:
            return Facts(*self._of_counts(found), said)
        # NumPy's, for they tell of NaN.
        low, high = float(np.min(limits)), float(np.max(limits))
        return Facts(low, high, self._deviation() if math.isfinite(high - low) else math.nan, said)

    def _floats(self, taken: np.ndarray) -> np.ndarray:
        if not self.bytes:
            return np.ascontiguousarray(taken)
        if self.table is not None:
            return np.ascontiguousarray(self.table[taken])
        return from_bytes(taken)

    def _of_counts(self, often: np.ndarray) -> tuple[float, float, float]:
        """The lowest and highest value and the deviation of bytes, by how often each is there."""
        values = (from_bytes(np.arange(256, dtype=np.uint8)) if self.table is None else self.table).astype(np.float64)
        there, total = values[often > 0], int(often.sum())
        mean = float(often @ values) / total
        return float(there.min()), float(there.max()), math.sqrt(float(often @ np.square(values - mean)) / total)

    def _deviation(self) -> float:
        # In pieces, so that the float64 copies stay small.
        size = len(self) * math.prod(self.shape)
        mean = sum(float(piece.sum(dtype=np.float64)) for piece in self.pieces()) / size
        return math.sqrt(sum(float(np.square(p.astype(np.float64) - mean).sum()) for p in self.pieces()) / size)


def as_samples(x: np.ndarray | Samples) -> Samples:
    """Return samples as `Samples`."""
    return x if isinstance(x, Samples) else Samples(x)


def ends(x: np.ndarray) -> tuple[Any, Any]:
    """Return the lowest and the highest value of an array, which may be mapped; NaN if there is one, 0 of an empty one."""
    if not x.size:
        return 0, 0
    found = [(piece.min(), piece.max()) for piece in Samples(x).pieces()]
    return np.min([low for low, _ in found]), np.max([high for _, high in found])


def counts(x: np.ndarray) -> np.ndarray:
    """Return how often each byte is in a uint8 array, which may be mapped: (256,) int64."""
    return sum((_histogram(np.ascontiguousarray(p)) for p in Samples(x).pieces()), np.zeros(256, np.int64))


def _histogram(dense: np.ndarray) -> np.ndarray:
    # Pillow counts faster than NumPy.
    return np.array(Image.fromarray(dense.reshape(len(dense), -1)).histogram(), np.int64)
