"""Circular functions, accurate to a few units in the last place for arguments of any size.

tinygrad's cos loses digits away from 0, its float64 sin beyond 30, and its atan is a polynomial of seven digits.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache

import numpy as np
from tinygrad import Tensor, dtypes

from cmcore_tinygrad.functions.accuracy import in_full_precision, minus_multiple, parts, polynomial

__all__ = ["atan", "cos", "sin", "tan"]

_BITS = 1200


def _pi() -> int:
    """Return floor(2^_BITS pi) but for the last few bits, by Machin's formula."""

    def arccot(n: int) -> int:
        term, total, k = (1 << _BITS) // n, 0, 0
        while term:
            total += (-1) ** k * term // (2 * k + 1)
            term, k = term // (n * n), k + 1
        return total

    return 4 * (4 * arccot(5) - arccot(239))


_PI = Fraction(_pi(), 1 << _BITS)
_PI_PARTS = {dtypes.float32: parts(_PI, (9, 9), np.float32), dtypes.float64: parts(_PI, (30, 30, 30), np.float64)}
# Below, multiples of the parts of pi are exact.
_MODERATE = {dtypes.float32: 2.0**16, dtypes.float64: 2.0**24}
_MANTISSA = {dtypes.float32: 23, dtypes.float64: 52}
_TERMS = {dtypes.float32: 7, dtypes.float64: 12}
_LEAST_EXPONENT, _GREATEST_EXPONENT = -32, 971


@in_full_precision
def sin(x: Tensor, /) -> Tensor:
    """Return the sine."""
    value = _sine(_magnitude(x), quarter=0)
    return (x < 0).where(-value, value)


@in_full_precision
def cos(x: Tensor, /) -> Tensor:
    """Return the cosine: the sine a quarter turn on, which is added exactly."""
    return _sine(_magnitude(x), quarter=1)


@in_full_precision
def tan(x: Tensor, /) -> Tensor:
    """Return the tangent."""
    return sin(x) / cos(x)


def _magnitude(x: Tensor) -> Tensor:
    return (x < 0).where(-x, x)


def _sine(x: Tensor, quarter: int) -> Tensor:
    """Return sin(x + quarter pi / 2) for x >= 0, from its distance to the nearest multiple of pi, odd or even."""
    half_turns = (x * (1 / math.pi) + (quarter + 1) / 2).trunc()
    near = minus_multiple(x, half_turns - quarter / 2, _PI_PARTS[x.dtype])
    near_odd = (half_turns * 0.5).trunc().ne(half_turns * 0.5)
    far, far_odd = _reduced_exactly(x.detach(), quarter)
    is_far = x > _MODERATE[x.dtype]
    # What is added is 0; it gives the distance its derivative.
    distance = is_far.where(far + (x - x.detach()), near)
    square = distance * distance
    series = [(-1) ** k / math.factorial(2 * k + 1) for k in range(_TERMS[x.dtype] - 1, -1, -1)]
    value = distance * polynomial(square, series)
    return is_far.where(far_odd, near_odd).where(-value, value)


def _reduced_exactly(x: Tensor, quarter: int) -> tuple[Tensor, Tensor]:
    """Return the distance of x + quarter pi / 2 to the nearest multiple of pi, and whether that is odd.

    After Payne and Hanek (1983): with x = m 2^e, only those bits of 1 / pi matter that move m 2^e / pi modulo 2. They are
    looked up, and the product is taken in 64-bit fixed point, whose unit here is 2^-63.
    """
    size = _MANTISSA[x.dtype]
    bits = x.bitcast(dtypes.uint32 if x.dtype == dtypes.float32 else dtypes.uint64).cast(dtypes.uint64)
    m = (bits & (2**size - 1)) | 2**size
    exponent = (bits >> size).cast(dtypes.int32) - (size + {23: 127, 52: 1023}[size])
    position = exponent.clip(_LEAST_EXPONENT, _GREATEST_EXPONENT) - _LEAST_EXPONENT
    high, low = (Tensor(words, device=x.device)[position] for words in _inverse_pi())
    m1, m0, low1, low0 = m >> 32, m & 0xFFFFFFFF, low >> 32, low & 0xFFFFFFFF
    turn = m * high + m1 * low1 + ((m1 * low0) >> 32) + ((m0 * low1) >> 32) + (quarter << 62)
    odd = (turn + (1 << 62)) >> 63 & 1
    distance = (turn - odd * (1 << 63)).bitcast(dtypes.int64).cast(x.dtype) * (math.pi / 2**63)
    return x.eq(float("inf")).where(float("nan"), distance), odd.ne(0)


@cache
def _inverse_pi() -> tuple[np.ndarray, np.ndarray]:
    """Return, for each exponent e, the 128 bits of 1 / pi from weight 2^-e on, as two arrays of 64."""
    digits = (1 << 2 * _BITS) // _pi()
    windows = [digits >> (_BITS - 127 - e) & (1 << 128) - 1 for e in range(_LEAST_EXPONENT, _GREATEST_EXPONENT + 1)]
    return (
        np.array([w >> 64 for w in windows], dtype=np.uint64),
        np.array([w & (1 << 64) - 1 for w in windows], dtype=np.uint64),
    )


@in_full_precision
def atan(x: Tensor, /) -> Tensor:
    """Return the inverse tangent: the angle is halved three times, then summed as a series."""
    steep = (x > 1) | (x < -1)
    y = steep.where(steep.where(x, 1).reciprocal(), x)
    for _ in range(3):
        y = y / (1 + (1 + y * y).sqrt())
    angle = 8 * y * polynomial(y * y, [(-1) ** k / (2 * k + 1) for k in range(9, -1, -1)])
    quarter = (x < 0).where(-math.pi / 2, math.pi / 2)
    return steep.where(quarter - angle, angle)
