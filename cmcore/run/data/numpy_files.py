"""NumPy's files: .npz and .npy, read without ever unpickling."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cmcore.errors import Error
from cmcore.run.data.convert import Raw, channels_first, from_bytes

SAMPLES = ("x", "images", "arr_0")
LABELS = ("y", "labels")


def read_npz(path: Path) -> Raw:
    """Return the array "x", "images" or "arr_0", or the only one there is, and the labels "y" or "labels", if any."""
    arrays = _arrays(path)
    if not isinstance(arrays, dict):
        raise Error(f"{path} is a single array and not an .npz archive; give it the ending .npy.")
    labels = next((name for name in LABELS if name in arrays), None)
    others = [name for name in arrays if name != labels]
    samples = next((name for name in SAMPLES if name in arrays), others[0] if len(others) == 1 else None)
    if samples is None:
        raise Error(
            f"{path} must hold its samples as x, images or arr_0, or hold one array only; "
            f"it holds {', '.join(arrays) or 'none'}."
        )
    if labels is None:
        return _samples(arrays[samples], path)
    if arrays[labels].shape[:1] != arrays[samples].shape[:1]:
        raise ValueError(
            f"{path} must hold one label for each sample; its {samples} has shape {arrays[samples].shape} "
            f"and its {labels} {arrays[labels].shape}."
        )
    return _samples(arrays[samples], path, arrays[labels])


def read_npy(path: Path) -> Raw:
    """Return the samples of an .npy file."""
    array = _arrays(path)
    if isinstance(array, dict):
        raise Error(f"{path} is an archive of arrays; give it the ending .npz.")
    return _samples(array, path)


def _arrays(path: Path) -> np.ndarray | dict[str, np.ndarray]:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return dict(loaded)
    # Damaged archives make zipfile, zlib and NumPy raise nearly anything.
    except Exception as error:
        raise Error(
            f"{path} cannot be read as {path.suffix} ({error}); it is truncated, damaged, of another kind, "
            "or holds Python objects, which are never loaded."
        ) from error


def _samples(x: np.ndarray, path: Path, labels: np.ndarray | None = None) -> Raw:
    if x.dtype.kind not in "fiu":
        raise ValueError(f"{path} must hold real numbers, got {x.dtype}.")
    if x.ndim == 2:
        return Raw(x.astype(np.float32), images=False, labels=labels)
    x = channels_first(x, path)
    if x.dtype == np.uint8:
        return Raw(from_bytes(x), labels=labels)
    if x.dtype.kind != "f":
        raise ValueError(f"The images in {path} must be uint8, or floating-point numbers in [-1, 1], got {x.dtype}.")
    return Raw(np.ascontiguousarray(x, np.float32), labels=labels)
