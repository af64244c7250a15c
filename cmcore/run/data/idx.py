"""IDX files, the format of MNIST: two zero bytes, a type, the number of axes, their lengths, then big-endian values."""

from __future__ import annotations

import math
import mmap
import struct
import zlib
from pathlib import Path

import numpy as np

from cmcore.errors import Error
from cmcore.run.data.convert import Raw, channels_first
from cmcore.run.data.mapped import opened
from cmcore.run.data.unpacking import gunzipped

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read(path: Path) -> Raw:
    """Return the images of a uint8 IDX file, gzipped or not, and the labels of the file beside it if there is one.

    For ``train-images-idx3-ubyte`` that is ``train-labels-idx1-ubyte``, gzipped or not.
    """
    x = read_array(path)
    if x.dtype != np.uint8 or x.ndim not in (3, 4):
        raise Error(f"{path} must hold images of unsigned bytes with 3 or 4 axes, got {x.dtype} of shape {x.shape}.")
    labels = next((read_array(p) for p in _label_files(path) if p.is_file()), None)
    if labels is not None and labels.shape != x.shape[:1]:
        raise Error(f"{path} holds {len(x)} images, but the labels beside it have shape {labels.shape}.")
    return Raw(channels_first(x, path), labels=labels)


def read_array(path: Path) -> np.ndarray:
    """Return the array of an IDX file, gzipped or not, in native byte order; bytes that are not gzipped are mapped."""
    data = _bytes(path)
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in TYPES:
        raise Error(f"{path} is not an IDX file; data files can be .npz, .npy or IDX, and images come as a folder.")
    dtype, start = np.dtype(TYPES[data[2]]), 4 + 4 * data[3]
    if len(data) < start:
        raise Error(f"{path} is truncated: it ends within its header.")
    shape = struct.unpack(f">{data[3]}I", data[4:start])
    expected = start + math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise Error(
            f"{path} should have {expected} bytes for an array of shape {shape} and has {len(data)}; "
            "it is truncated or damaged, so get it again."
        )
    return np.ndarray(shape, dtype, data, start).astype(dtype.newbyteorder("="), copy=False)


def _bytes(path: Path) -> bytes | mmap.mmap:
    """The content: mapped, unless it is gzipped."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            if packed or not path.stat().st_size:
                return gunzipped(path) if packed else b""
        return opened(path)
    except (OSError, EOFError, zlib.error) as error:
        raise Error(f"{path} cannot be read ({error}); it may be truncated or damaged.") from error


def _label_files(path: Path) -> tuple[Path, ...]:
    name = path.name.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1").replace("idx4", "idx1")
    return () if "images" not in path.name else (path.with_name(name), path.with_name(f"{name}.gz"))
