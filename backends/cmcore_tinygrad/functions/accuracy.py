"""What accurate elementary functions share: constants in parts, exact reductions, polynomials."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import wraps
from typing import Any

from tinygrad import Tensor, dtypes

from cmcore_tinygrad.functions.dtypes import DEFAULT_FLOAT, is_floating


def in_full_precision(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Let a function written for float32 and float64 take integers, as float32, and narrower floats, by way of it."""

    @wraps(f)
    def widened(x: Tensor) -> Tensor:
        if x.dtype in (dtypes.float32, dtypes.float64):
            return f(x)
        y = f(x.cast(DEFAULT_FLOAT))
        return y.cast(x.dtype) if is_floating(x) else y

    return widened


def parts(value: Fraction, bits: tuple[int, ...], dtype: type) -> list[float]:
    """Return numbers that sum to ``value`` beyond the type's accuracy, all but the last of few bits.

    A part of n bits times an integer of 24 - n (float32) or 53 - n bits (float64) is exact.
    """
    found: list[Fraction] = []
    for n in bits:
        unit = Fraction(2) ** (math.floor(math.log2(abs(value))) - n + 1)
        found.append(math.floor(value / unit) * unit)
        value -= found[-1]
    return [float(dtype(float(p))) for p in [*found, value]]


def minus_multiple(x: Tensor, n: Tensor, of: list[float]) -> Tensor:
    """Return x - n c, where c is given in `parts`."""
    for part in of:
        x = _kept(x - n * part)
    return x


def _kept(x: Tensor) -> Tensor:
    """Return x, hidden from tinygrad's algebra, which would otherwise add up the parts that are apart for a reason."""
    return x.ne(x).where(float("nan"), x)


def polynomial(x: Tensor, coefficients: list[float]) -> Tensor:
    """Return a polynomial by Horner's scheme, highest power first."""
    value: Any = coefficients[0]
    for c in coefficients[1:]:
        value = value * x + c
    return value
