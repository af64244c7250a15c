"""Flax's msgpack: maps, numbers, text and arrays."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np

_DTYPES = (
    "float16",
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "bool",
)
_FIXED = {
    0xCA: ">f",
    0xCB: ">d",
    0xCC: ">B",
    0xCD: ">H",
    0xCE: ">I",
    0xCF: ">Q",
    0xD0: ">b",
    0xD1: ">h",
    0xD2: ">i",
    0xD3: ">q",
}
_SIZED = {
    0xC4: ("bytes", ">B"), 0xC5: ("bytes", ">H"), 0xC6: ("bytes", ">I"), 0xC7: ("ext", ">B"), 0xC8: ("ext", ">H"),
    0xC9: ("ext", ">I"), 0xD9: ("text", ">B"), 0xDA: ("text", ">H"), 0xDB: ("text", ">I"), 0xDC: ("list", ">H"),
    0xDD: ("list", ">I"), 0xDE: ("map", ">H"), 0xDF: ("map", ">I"),
}  # fmt: skip
DEEPEST = 64
"""Deeper than this no honest file nests."""


class Reader:
    """Reads values one after another from bytes; `ValueError` for what is broken or not known."""

    def __init__(self, raw: bytes) -> None:
        self._raw, self._at = memoryview(raw), 0

    def value(self, depth: int = 0) -> Any:
        """Return the next value."""
        if depth > DEEPEST:
            raise ValueError("its values nest too deep")
        head = self._take(1)[0]
        if head < 0x80 or head >= 0xE0:
            return head if head < 0x80 else head - 0x100
        if head < 0xC0:
            kind, count = (
                ("map", head & 15) if head < 0x90 else ("list", head & 15) if head < 0xA0 else ("text", head & 31)
            )
            return self._sized(kind, count, depth)
        if head in (0xC0, 0xC2, 0xC3):
            return {0xC0: None, 0xC2: False, 0xC3: True}[head]
        if head in _FIXED:
            return self._number(_FIXED[head])
        if 0xD4 <= head <= 0xD8:
            return self._sized("ext", 1 << (head - 0xD4), depth)
        if head in _SIZED:
            kind, form = _SIZED[head]
            return self._sized(kind, self._number(form), depth)
        raise ValueError(f"the byte {head} begins no value")

    def _sized(self, kind: str, count: int, depth: int) -> Any:
        if kind == "map":
            return {str(self.value(depth + 1)): self.value(depth + 1) for _ in range(self._plausible(count))}
        if kind == "list":
            return [self.value(depth + 1) for _ in range(self._plausible(count))]
        if kind == "ext":
            code = self._take(1)[0]
            return _extension(code, bytes(self._take(count)))
        raw = bytes(self._take(count))
        return raw.decode() if kind == "text" else raw

    def _plausible(self, count: int) -> int:
        if count > len(self._raw) - self._at:
            raise ValueError("it has fewer values than it says")
        return count

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _take(self, count: int) -> memoryview:
        if count > len(self._raw) - self._at:
            raise ValueError("it ends too early")
        self._at += count
        return self._raw[self._at - count : self._at]


def _extension(code: int, raw: bytes) -> Any:
    if code not in (1, 3):
        return None
    shape, kind, numbers = Reader(raw).value()
    if kind not in _DTYPES or len(numbers) != np.dtype(kind).itemsize * math.prod(shape):
        raise ValueError("an array is of a type that is not known here, or not as large as it says")
    return np.frombuffer(numbers, kind).reshape(shape)
