"""Tensors in files of torch and in pickles: the zip of ``torch.save``, its older form, and EDM's pickled modules."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cmcore.interchange.bounds import Bounded, lengths
from cmcore.interchange.opcodes import Made, Named, said
from cmcore.interchange.safetensors_reading import widened

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

    @property
    def size(self) -> int:
        """How many bytes the numbers need."""
        return self.count * (2 if self.kind == "bf16" else np.dtype(self.kind).itemsize)

    def numbers(self) -> np.ndarray:
        """Return the numbers, (count,)."""
        if self.raw is None or len(self.raw) != self.size:
            raise ValueError("a tensor's numbers are missing, or not as many as it says")
        return widened(np.frombuffer(self.raw, "<u2")) if self.kind == "bf16" else np.frombuffer(self.raw, self.kind)


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
        if not math.prod(self.shape):
            return np.zeros(self.shape, flat.dtype)
        last = self.offset + sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))
        if last >= len(flat):
            raise ValueError("a tensor reaches beyond its numbers")
        strides = tuple(s * flat.itemsize for s in self.strides)
        return np.array(np.lib.stride_tricks.as_strided(flat[self.offset :], self.shape, strides), order="C")


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    if not isinstance(storage, Storage):
        raise ValueError("a tensor is made of what is none")
    (start,) = lengths((offset,))
    if len(lengths(shape)) != len(lengths(strides)):
        raise ValueError("a tensor's shape and strides are of different lengths")
    return Tensor(storage, start, lengths(shape), lengths(strides))


def _empty(*items: Any) -> dict[Any, Any]:
    if items:
        raise ValueError("it is a pickle of Python 2, whose dicts are not read here")
    return {}


class _BytesOfStorages:
    """Storages that a pickle holds as the bytes of older files, each of them read once."""

    def __init__(self) -> None:
        self._read: dict[int, tuple[Any, Any]] = {}

    def __call__(self, raw: Any) -> Any:
        if not isinstance(raw, (bytes, bytearray)):
            raise ValueError("a tensor's numbers are no bytes")
        if id(raw) not in self._read:
            self._read[id(raw)] = raw, older(io.BytesIO(raw), nested=True)
        return self._read[id(raw)][1]


def _known(nested: bool) -> dict[tuple[str, str], Callable[..., Any]]:
    known: dict[tuple[str, str], Callable[..., Any]] = {
        ("collections", "OrderedDict"): _empty,
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
        ("torch._utils", "_rebuild_parameter_with_state"): lambda data, *_: data,
    }
    # A storage within a storage's bytes would nest without end.
    return known if nested else known | {("torch.storage", "_load_from_bytes"): _BytesOfStorages()}


class _Storages:
    """The storages that a pickle speaks of, by key."""

    def __init__(self) -> None:
        self.by_key: dict[str, Storage] = {}

    def __call__(self, identifier: Any) -> Storage:
        if not isinstance(identifier, tuple) or len(identifier) < 5 or identifier[0] != "storage":
            raise ValueError("it speaks of something outside that is no tensor's numbers")
        kind, key, count = identifier[1], identifier[2], identifier[4]
        if not isinstance(kind, Named) or kind.name not in _TYPES or not isinstance(key, str):
            raise ValueError("a tensor's numbers are of a type that is not known here")
        if len(identifier) > 5 and identifier[5] is not None:
            raise ValueError("a tensor's numbers are a part of others, as torch had it before version 0.4")
        (numbers,) = lengths((count,))
        told = Storage(_TYPES[kind.name], numbers)
        kept = self.by_key.setdefault(key, told)
        if (kept.kind, kept.count) != (told.kind, told.count):
            raise ValueError("it speaks of the same numbers in two ways")
        return kept


def zipped(path: Path) -> Any:
    """Return what is in a file of ``torch.save``, a zip; `ValueError` for a broken one."""
    with zipfile.ZipFile(path) as archive:
        members = _Members(archive, path.stat().st_size)
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError(f"it has {'several' if pickles else 'no'} data.pkl")
        place = pickles[0].removesuffix("data.pkl")
        if f"{place}byteorder" in archive.namelist() and members.read(f"{place}byteorder") != b"little":
            raise ValueError(_BIG_ENDIAN)
        storages = _Storages()
        content = said(Bounded(io.BytesIO(members.read(pickles[0]))), _known(nested=True), storages)
        for key, storage in storages.by_key.items():
            storage.raw = members.read(f"{place}data/{key}", storage.size)
    return content


_BIG_ENDIAN = "its numbers are big-endian, which is not read here"


@dataclass
class _Members:
    """The members of a zip, which together are no larger than it: stored as they are, and each in a place of its own."""

    archive: zipfile.ZipFile
    left: int

    def read(self, name: str, size: int | None = None) -> bytes:
        """Return a member's bytes; ``size`` is how many there must be."""
        entry = self.archive.getinfo(name)
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size or entry.flag_bits & 1:
            raise ValueError(f"its part {name[:80]} is compressed or encrypted, which torch's are not")
        self.left -= entry.file_size
        if self.left < 0 or entry.header_offset < 0 or size not in (None, entry.file_size):
            raise ValueError(f"its part {name[:80]} is not as large as it says")
        return self.archive.read(entry)


def older(binary: BinaryIO, nested: bool = False) -> Any:
    """Return what is in a file of ``torch.save`` as it was before it was a zip."""
    file, storages = Bounded(binary), _Storages()
    if (said(file, {}, storages), said(file, {}, storages)) != (_MAGIC, _PROTOCOL):
        raise ValueError("it is no file of torch.save")
    system = said(file, {}, storages)
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise ValueError(_BIG_ENDIAN)
    content, keys = said(file, _known(nested), storages), said(file, {}, storages)
    for key in keys:
        if not isinstance(key, str):
            raise ValueError("its tensors' numbers have names that are none")
        storage = storages.by_key[key]
        if file.read(8) != storage.count.to_bytes(8, "little"):
            raise ValueError("a tensor's numbers are not as many as it says, or missing")
        storage.raw = file.read(storage.size)
    return content


def pickled(file: BinaryIO) -> Any:
    """Return what is in a pickle that has tensors by themselves, as EDM's have."""
    return said(Bounded(file), _known(nested=False), _Storages())


__all__ = ["Made", "Named", "Storage", "Tensor", "older", "pickled", "zipped"]
