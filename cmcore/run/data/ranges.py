"""Which numbers are black and white: told by the dtype or by the user, and never guessed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cmcore.errors import Error
from cmcore.run.data.samples import Samples, counts, ends

Range = tuple[float, float]

LEAST_SPAN = 1.0
"""Pictures in [-1, 1] that together span less than this are probably not in that range."""

USUAL = (
    (0, 1),
    (-0.5, 0.5),
    (-1, 1),
    (0, 255),
    (-128, 127),
    (0, 1023),
    (0, 4095),
    (0, 16383),
    (0, 65535),
    (-32768, 32767),
)
"""The ranges that pictures come in: floats, bytes, and what cameras and scanners give."""

ROUNDING = 1e-4
"""How far beyond its range a float may be for having been rounded."""

LEAST_BYTE = 64
"""Pictures of bytes that are all darker than this are probably not in 0 ... 255."""


def scaled(x: np.ndarray, value_range: Range | None, name: str, note: Callable[[str], None]) -> Samples:
    """Return pixels as samples in [-1, 1]; bytes and what is float32 already stay as and where they are stored.

    bool and uint8 have ranges of their own, floats are taken to be in [-1, 1], and ``value_range`` (low, high) says otherwise.
    Where that is not plausible, an `Error` asks. Values beyond a range that is given are clipped, which ``note`` is told.
    """
    if x.dtype == bool:
        x, value_range = x.view(np.uint8), value_range or (0.0, 1.0)
    if x.dtype.kind not in "fiu":
        raise ValueError(f"{name} must hold real numbers, got {x.dtype}.")
    if x.dtype == np.uint8 and value_range is None and is_bright(x):
        return Samples(x)
    low, high = ends(x)
    if not np.isfinite([low, high]).all():
        raise ValueError(f"{name} holds NaN or infinite values; remove or replace those samples.")
    if value_range is not None:
        return _affine(x, value_range, name, note)
    if x.dtype == np.uint8 and low == high:
        return Samples(x)
    if x.dtype.kind == "f" and low == high:
        return Samples(x.astype(np.float32))  # there is nothing to learn, which is another matter
    if x.dtype.kind == "f" and -1 - ROUNDING <= low < 0 <= high <= 1 + ROUNDING and high - low > LEAST_SPAN:
        if x.dtype == np.float32 and -1 <= low <= high <= 1:
            return Samples(x)
        return Samples(np.ascontiguousarray(x, np.float32).clip(-1, 1))
    expected = "0 to 255" if x.dtype == np.uint8 else "-1 to 1 (or unsigned bytes)"
    raise Error(
        f"The values of {name} range from {low:g} to {high:g}, and pictures were expected to range from {expected}. "
        f"Which values are black and white? Say so with --range, such as --range={_suggested(float(low), float(high), x.dtype.kind == 'f')}"
        + ("; if these are latents rather than pictures, with --kind latents." if x.dtype.kind == "f" else ".")
    )


def is_bright(x: np.ndarray) -> bool:
    """Whether any of these bytes is so high that they hardly range to less than 255; they are looked at only so far."""
    return any(piece.max() >= LEAST_BYTE for piece in Samples(x).pieces() if piece.size)


def _affine(x: np.ndarray, value_range: Range, name: str, note: Callable[[str], None]) -> Samples:
    low, high = value_range
    values = np.arange(256, dtype=np.uint8) if x.dtype == np.uint8 else x
    out = ((values.astype(np.float64) - low) * (2 / (high - low)) - 1).astype(np.float32)
    outside = np.abs(out) > 1 + ROUNDING
    out.clip(-1, 1, out=out)
    if x.dtype == np.uint8:
        beyond = int(counts(x) @ outside)
    else:
        beyond = int(outside.sum())
    if beyond:
        note(f"{beyond / x.size:.2%} of the values of {name} lie beyond {low:g} to {high:g} and were clipped.")
    return Samples(x, table=out) if x.dtype == np.uint8 else Samples(out)


def _suggested(low: float, high: float, floats: bool) -> str:
    """The smallest usual range that holds the values, if they fill a quarter of it; else from the lowest to the highest.

    Bytes may be dark.
    """
    for a, b in USUAL:
        if a <= low and high <= b and (b - a <= 2 or (a, b) == (0, 255) or high - low >= (b - a) / 4):
            return f"{a:g},{b:g}"
    if floats and -10 < low < 0 < high < 10:
        return "-1,1"  # samples of a network, say, that were not clipped
    return f"{low:.6g},{high:.6g}"
