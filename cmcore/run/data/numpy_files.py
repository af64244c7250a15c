"""NumPy's files: .npz and .npy, mapped where they are stored unpacked, and read without ever unpickling."""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from cmcore._words import printable
from cmcore.errors import Error
from cmcore.run.data.convert import Raw, channels_first
from cmcore.run.data.mapped import opened
from cmcore.run.data.unpacking import check_archive

SAMPLES = ("x", "images", "x_train", "train_images", "arr_0", "features", "data")
LABELS = ("y", "labels", "label", "y_train", "train_labels", "arr_1", "targets", "target")
HELD_OUT = ("x_test", "test_images")
"""The names that arrays are known by, in small letters or others; keras's, MedMNIST's and scikit-learn's, and those of the
samples that evaluators read, among them."""

MAGIC = b"\x93NUMPY"
"""What an .npy file begins with."""

LARGE = 2**20
"""Arrays of so many bytes are mapped where they are stored unpacked in an archive, rather than read."""

OBJECTS = np.empty(0, object)
"""Stands for an array of Python objects, which is not read."""

ROUNDING = 1e-2
"""How much of a column's deviation single precision may take away."""


def read_npz(path: Path, latents: bool = False) -> Raw:
    """Return the samples, or the only array there is, with the labels and what is held out, if any, by their known names."""
    arrays = _arrays(path)
    if not isinstance(arrays, dict):
        raise Error(f"{path} is a single array and not an .npz archive; give it the ending .npy.")
    labels = next((name for name in _known(LABELS, arrays) if arrays[name].ndim in (1, 2)), None)
    kept = next(_known(HELD_OUT, arrays), None)
    others = [name for name in arrays if name not in (labels, kept)]
    samples = next(_known(SAMPLES, others), others[0] if len(others) == 1 else None)
    if samples is None:
        raise Error(
            f"{path} must hold its samples as x, images, features, data, x_train or arr_0, or hold one array only; "
            f"it holds {', '.join(map(printable, arrays)) or 'none'}."
        )
    held_out = None if kept is None else _samples(arrays[kept], path, latents).x
    if (
        labels is not None
        and arrays[labels].dtype != OBJECTS.dtype
        and arrays[labels].shape[:1] != arrays[samples].shape[:1]
    ):
        raise ValueError(
            f"{path} must hold one label for each sample; its {samples} has shape {arrays[samples].shape} "
            f"and its {labels} {arrays[labels].shape}."
        )
    return _samples(arrays[samples], path, latents, None if labels is None else arrays[labels], held_out)


def _known(names: Sequence[str], there: Iterable[str]) -> Iterator[str]:
    """Those of the names that are there, as they are spelt there."""
    exact = {name: name for name in there}
    spelt = {**{name.lower(): name for name in reversed(exact)}, **exact}
    return (spelt[name] for name in names if name in spelt)


def read_npy(path: Path, latents: bool = False) -> Raw:
    """Return the samples of an .npy file."""
    array = _arrays(path)
    if isinstance(array, dict):
        raise Error(f"{path} is an archive of arrays; give it the ending .npz.")
    return _samples(array, path, latents)


def _arrays(path: Path) -> np.ndarray | dict[str, np.ndarray]:
    try:
        if zipfile.is_zipfile(path):
            check_archive(path)
            return _members(path)
        with path.open("rb") as file:
            if file.read(len(MAGIC)) == MAGIC:
                return mapped(path, 0, path.stat().st_size)
        raise ValueError("it does not begin as an array does")
    except Error:
        raise
    # Damaged archives make zipfile, zlib and NumPy raise nearly anything.
    except Exception as error:
        raise Error(
            f"{path} cannot be read as {path.suffix} ({error}); it is truncated, damaged, of another kind, "
            "or holds Python objects, which are never loaded."
        ) from error


def _members(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an archive: what is packed in memory, what is not mapped."""
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            with archive.open(member) as file:
                if file.read(len(MAGIC)) != MAGIC:
                    raise ValueError(f"its member {name!r} is no array")
            if member.compress_type == zipfile.ZIP_STORED and member.file_size >= LARGE:
                arrays[name] = mapped(path, _start(path, member), member.file_size)
            else:
                arrays[name] = _read(archive, member)
    return arrays


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    try:
        with archive.open(member) as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except ValueError as unfit:
        if "Object arrays" not in str(unfit):
            raise
        # Others may be all that is needed.
        return OBJECTS


def _start(path: Path, member: zipfile.ZipInfo) -> int:
    """Where the bytes of a member that is not packed begin, which its own header tells and not the archive's list."""
    with path.open("rb") as file:
        file.seek(member.header_offset)
        header = file.read(30)
        if len(header) < 30 or header[:4] != b"PK\3\4":
            raise ValueError(f"its member {member.filename!r} has no header")
        name, extra = struct.unpack("<HH", header[26:])
    return member.header_offset + 30 + int(name) + int(extra)


def mapped(path: Path, start: int, length: int) -> np.ndarray:
    """Return an .npy array of so many bytes within a file, mapped, so that only what is looked at is read; read-only."""
    with path.open("rb") as file:
        file.seek(start)
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in read_header:
            raise ValueError(f"its format version {version} is not known")
        shape, fortran, dtype = read_header[version](file)
        if dtype.hasobject:
            return OBJECTS
        begin, expected = file.tell(), math.prod(shape) * dtype.itemsize
        there = min(start + length, path.stat().st_size) - begin
        if there < expected:
            raise ValueError(
                f"it should have {expected:,} bytes for an array of shape {shape} and has {max(there, 0):,}"
            )
        if not expected:
            return np.zeros(shape, dtype)
    return np.ndarray(shape, dtype, opened(path), begin, order="F" if fortran else "C")


def _samples(
    x: np.ndarray, path: Path, latents: bool, labels: np.ndarray | None = None, held_out: np.ndarray | None = None
) -> Raw:
    if x.dtype == OBJECTS.dtype:
        raise Error(
            f"The samples in {path} are Python objects, which are never loaded; store them as numbers of one shape, "
            'such as x.astype("float32").'
        )
    if x.dtype.kind not in "bfiu":
        raise ValueError(f"{path} must hold real numbers, got {x.dtype}.")
    if x.ndim == 1:
        x = x[:, None]
    if x.ndim == 2 or latents:
        if latents and x.ndim != 4:
            raise ValueError(f"Latents are arrays (N, C, H, W); {path} holds an array of shape {x.shape}.")
        return Raw(_single(x, path), images=False, labels=labels, held_out=held_out)
    return Raw(channels_first(x, path), labels=labels, held_out=held_out)


def _single(x: np.ndarray, path: Path) -> np.ndarray:
    """The values in single precision; an `Error` if that would take away what tells them apart."""
    if x.dtype == np.float32:
        return x
    with np.errstate(over="ignore"):
        rounded = x.astype(np.float32)
    wide = x.astype(np.float64)
    if not x.size:
        return rounded  # which is refused as data
    if np.isfinite(rounded).all():
        lost, spread = np.sqrt(np.mean((wide - rounded) ** 2, axis=0)), wide.std(axis=0)
        # What is constant has nothing to be told apart by.
        if ((lost > ROUNDING * spread) & (wide.max(axis=0) > wide.min(axis=0))).any():
            raise Error(
                f"The values of {path} differ by less than single precision tells apart at their size "
                f"({np.abs(wide).max():.3g}); subtract their mean first."
            )
    elif np.isfinite(wide).all():
        raise Error(
            f"The values of {path} are too large for single precision ({np.abs(wide).max():.3g}); scale them down."
        )
    return rounded
