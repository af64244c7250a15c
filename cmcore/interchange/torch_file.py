"""Tensors by name as ``torch.save`` writes a state dict, without torch: a zip of raw numbers and a pickle that names them.

The pickle is written opcode by opcode and holds names, shapes and numbers of bytes; ``torch.load(weights_only=True)`` and
this package's own reader take it.
"""

from __future__ import annotations

import math
import pickle
import struct
import zipfile
from collections.abc import Mapping
from os import PathLike
from typing import BinaryIO

import numpy as np

from cmcore._files import atomic_write

_STORAGES = {"float64": "DoubleStorage", "float32": "FloatStorage", "float16": "HalfStorage", "int64": "LongStorage"}
_ORDERED = b"ccollections\nOrderedDict\n)R"


def write_state_dict(path: str | PathLike[str], tensors: Mapping[str, np.ndarray]) -> None:
    """Write tensors of float64, float32, float16 or int64, atomically; `ValueError` for other types."""
    if odd := [name for name, a in tensors.items() if str(a.dtype) not in _STORAGES]:
        raise ValueError(f"The tensor {odd[0]!r} is of type {tensors[odd[0]].dtype}, which this file cannot hold.")

    def write(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name, content in (("data.pkl", _pickled(tensors)), ("byteorder", b"little"), ("version", b"3\n")):
                archive.writestr(_member(name), content)
            for key, array in enumerate(tensors.values()):
                with archive.open(_member(f"data/{key}"), "w", force_zip64=array.nbytes >= 2**31) as member:
                    member.write(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())

    atomic_write(path, write)


def _member(name: str) -> zipfile.ZipInfo:
    # The same bytes whenever they are written.
    return zipfile.ZipInfo(f"archive/{name}", (1980, 1, 1, 0, 0, 0))


def _pickled(tensors: Mapping[str, np.ndarray]) -> bytes:
    items = b"".join(_text(name) + _tensor(str(key), array) for key, (name, array) in enumerate(tensors.items()))
    return pickle.PROTO + b"\x02" + _ORDERED + pickle.MARK + items + pickle.SETITEMS + pickle.STOP


def _tensor(key: str, array: np.ndarray) -> bytes:
    strides = [math.prod(array.shape[i + 1 :]) for i in range(array.ndim)]
    storage = b"ctorch\n" + _STORAGES[str(array.dtype)].encode() + b"\n"
    where = _text("storage") + storage + _text(key) + _text("cpu") + _int(array.size)
    rebuilt = _tuple(where) + pickle.BINPERSID + _int(0) + _ints(array.shape) + _ints(strides)
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + _tuple(rebuilt + pickle.NEWFALSE + _ORDERED) + pickle.REDUCE


def _tuple(items: bytes) -> bytes:
    return pickle.MARK + items + pickle.TUPLE


def _ints(numbers: tuple[int, ...] | list[int]) -> bytes:
    return _tuple(b"".join(map(_int, numbers)))


def _int(number: int) -> bytes:
    if number < 2**31:
        return pickle.BININT + struct.pack("<i", number)
    return pickle.LONG1 + b"\x08" + struct.pack("<q", number)


def _text(text: str) -> bytes:
    encoded = text.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(encoded)) + encoded
