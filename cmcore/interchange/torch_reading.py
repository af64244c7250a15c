"""Tensors in files of torch and in pickles: the zip of ``torch.save``, its older form, and EDM's pickled modules."""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cmcore.interchange.opcodes import Bounded, Made, Named, said

_TYPES = {
    "DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2", "BFloat16Storage": "bf16", "LongStorage": "<i8",
    "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "?",
}  # fmt: skip
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


@dataclass
class Storage:
    """Numbers that lie outside the pickle, ``count`` of a type; ``raw`` once they are there."""

    kind: str
    count: int
    raw: bytes | None = None

    def numbers(self) -> np.ndarray:
        """Return the numbers, (count,)."""
        size = 2 if self.kind == "bf16" else np.dtype(self.kind).itemsize
        if self.raw is None or len(self.raw) != size * self.count:
            raise ValueError("a tensor's numbers are missing, or not as many as it says")
        if self.kind == "bf16":
            return (np.frombuffer(self.raw, "<u2").astype(np.uint32) << 16).view(np.float32)
        return np.frombuffer(self.raw, self.kind)


@dataclass(frozen=True)
class Tensor:
    """A view of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> np.ndarray:
        """Return it as an array of its own; `ValueError` if it reaches beyond its storage."""
        flat = self.storage.numbers()
        sizes = (*self.shape, *self.strides, self.offset)
        if len(self.shape) != len(self.strides) or not all(isinstance(n, int) and n >= 0 for n in sizes):
            raise ValueError("a tensor's shape and strides are no whole numbers, or of different lengths")
        if not math.prod(self.shape):
            return np.zeros(self.shape, flat.dtype)
        last = self.offset + sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))
        if last >= len(flat) or math.prod(self.shape) > len(flat):
            raise ValueError("a tensor reaches beyond its numbers")
        strides = tuple(s * flat.itemsize for s in self.strides)
        return np.array(np.lib.stride_tricks.as_strided(flat[self.offset :], self.shape, strides), order="C")


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    if not isinstance(storage, Storage) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise ValueError("a tensor is made of what is none")
    return Tensor(storage, offset, shape, strides)


def _bytes_of_storage(raw: Any) -> Any:
    if not isinstance(raw, (bytes, bytearray)):
        raise ValueError("a tensor's numbers are no bytes")
    return older(io.BytesIO(raw), nested=True)


def _known(nested: bool) -> dict[tuple[str, str], Callable[..., Any]]:
    known: dict[tuple[str, str], Callable[..., Any]] = {
        ("collections", "OrderedDict"): lambda *_: {},
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    }
    # A storage within a storage's bytes would nest without end.
    return known if nested else known | {("torch.storage", "_load_from_bytes"): _bytes_of_storage}


class _Storages:
    """The storages that a pickle speaks of, by key."""

    def __init__(self) -> None:
        self.by_key: dict[str, Storage] = {}

    def __call__(self, identifier: Any) -> Storage:
        if not isinstance(identifier, tuple) or len(identifier) < 5 or identifier[0] != "storage":
            raise ValueError("it speaks of something outside that is no tensor's numbers")
        kind, key, count = identifier[1], str(identifier[2]), identifier[4]
        if not isinstance(kind, Named) or kind.name not in _TYPES or not isinstance(count, int) or count < 0:
            raise ValueError("a tensor's numbers are of a type that is not known here")
        return self.by_key.setdefault(key, Storage(_TYPES[kind.name], count))


def zipped(path: Path) -> Any:
    """Return what is in a file of ``torch.save``, a zip; `ValueError` for a broken one."""
    with zipfile.ZipFile(path) as archive:
        (pickle,) = [n for n in archive.namelist() if n.endswith("/data.pkl")] or [""]
        if not pickle or archive.getinfo(pickle).file_size > 64 * 2**20:
            raise ValueError("it has no data.pkl of a plausible size")
        storages = _Storages()
        content = said(Bounded(io.BytesIO(archive.read(pickle))), _known(nested=True), storages)
        for key, storage in storages.by_key.items():
            entry = archive.getinfo(f"{pickle.removesuffix('data.pkl')}data/{key}")
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise ValueError("a tensor's numbers are compressed")
            storage.raw = archive.read(entry)
    return content


def older(source: BinaryIO, nested: bool = False) -> Any:
    """Return what is in a file of ``torch.save`` as it was before it was a zip."""
    storages, file = _Storages(), Bounded(source)
    if (said(file, {}, storages), said(file, {}, storages)) != (_MAGIC, _PROTOCOL):
        raise ValueError("it is no file of torch.save")
    said(file, {}, storages)
    content, keys = said(file, _known(nested), storages), said(file, {}, storages)
    for key in keys:
        storage = storages.by_key[str(key)]
        (count,) = struct.unpack("<q", file.read(8))
        size = 2 if storage.kind == "bf16" else np.dtype(storage.kind).itemsize
        if count != storage.count:
            raise ValueError("a tensor's numbers are not as many as it says")
        storage.raw = file.read(size * count)
    return content


def pickled(file: BinaryIO) -> Any:
    """Return what is in a pickle that has tensors by themselves, as EDM's have."""
    return said(Bounded(file), _known(nested=False), _Storages())


__all__ = ["Made", "Named", "Storage", "Tensor", "older", "pickled", "zipped"]
