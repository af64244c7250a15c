"""Flax's msgpack: maps, numbers, text and arrays."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np

from cmcore.interchange.bounds import VALUES, lengths
from cmcore.interchange.safetensors_reading import widened

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
    "bfloat16",
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


_CHUNKED = "__msgpack_chunked_array__"


def read(raw: bytes) -> Any:
    """Return the value that the bytes are; `ValueError` for what is broken or not known."""
    reader = _Reader(raw)
    value = reader.value()
    if reader.left:
        raise ValueError("there is more after its end")
    return value


class _Reader:
    """Reads values one after another from bytes, and of extensions ``arrays`` only where it is asked to."""

    def __init__(self, raw: bytes, arrays: bool = True) -> None:
        self._raw, self._at, self._arrays, self._values = memoryview(raw), 0, arrays, 0

    @property
    def left(self) -> int:
        """How many bytes have not been read."""
        return len(self._raw) - self._at

    def value(self, depth: int = 0) -> Any:
        """Return the next value."""
        self._values += 1
        if depth > DEEPEST or self._values > VALUES:
            raise ValueError("its values nest too deep, or are too many")
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
            named = {_name(self.value(depth + 1)): self.value(depth + 1) for _ in range(self._plausible(count))}
            return _joined(named) if _CHUNKED in named else named
        if kind == "list":
            return [self.value(depth + 1) for _ in range(self._plausible(count))]
        if kind == "ext":
            code = self._take(1)[0]
            if not self._arrays:
                raise ValueError("an array is made of arrays")
            return _extension(code, bytes(self._take(count)))
        raw = bytes(self._take(count))
        return raw.decode() if kind == "text" else raw

    def _plausible(self, count: int) -> int:
        if count > self.left:
            raise ValueError("it has fewer values than it says")
        return count

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _take(self, count: int) -> memoryview:
        if count > self.left:
            raise ValueError("it ends too early")
        self._at += count
        return self._raw[self._at - count : self._at]


def _name(key: Any) -> str:
    if not isinstance(key, str):
        raise ValueError("it has a value under what is no name")
    return key


def _extension(code: int, raw: bytes) -> Any:
    if code not in (1, 3):
        return None
    shape, kind, numbers = _Reader(raw, arrays=False).value()
    if kind not in _DTYPES or not isinstance(numbers, bytes):
        raise ValueError("an array is of a type that is not known here")
    stored = np.dtype("<u2" if kind == "bfloat16" else kind).newbyteorder("<")
    if len(numbers) != stored.itemsize * math.prod(lengths(shape)):
        raise ValueError("an array is not as large as it says")
    flat = np.frombuffer(numbers, stored)
    return (widened(flat) if kind == "bfloat16" else flat).reshape(shape)


def _joined(chunked: dict[str, Any]) -> np.ndarray:
    """An array that Flax has cut, for it is larger than a gigabyte."""
    shape, chunks = ([part[str(i)] for i in range(len(part))] for part in (chunked["shape"], chunked["chunks"]))
    if not all(isinstance(chunk, np.ndarray) for chunk in chunks):
        raise ValueError("the parts of an array are no arrays")
    return np.concatenate(chunks).reshape(lengths(shape))
