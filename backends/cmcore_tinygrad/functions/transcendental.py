"""Exponentials, logarithms and circular functions, accurate to a few units in the last place.

tinygrad builds all of them on exp2, log2 and sin. That loses digits in exp of large numbers, in tanh and sinh near 0, in
atan everywhere (a seven-digit polynomial) and in float64 sin and cos beyond 30; these are the same functions without
those losses. Everything is composed of differentiable operations.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import reduce

import numpy as np
from tinygrad import Tensor, dtypes

from cmcore_tinygrad.functions.dtypes import DEFAULT_FLOAT, is_floating

__all__ = ["atan", "cos", "cosh", "exp", "expm1", "log", "log1p", "log2", "sin", "sinh", "tan", "tanh"]

_LOG2_E = 1 / math.log(2)


def _split(value: str, bits: tuple[int, ...], dtype: type) -> list[float]:
    """Return parts that sum to a decimal number beyond the type's accuracy, all but the last with few digits."""
    rest, parts = Fraction(value), []
    for n in bits:
        unit = Fraction(2) ** (math.floor(math.log2(abs(rest))) - n + 1)
        parts.append(math.floor(rest / unit) * unit)
        rest -= parts[-1]
    return [float(dtype(float(p))) for p in [*parts, rest]]


_LN2 = "0.693147180559945309417232121458176568075500134360255254120680009493393621969694715605863326996418687"
_PI = "3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803482534211707"
# A part of n bits times an integer of 24 - n (float32) or 53 - n bits (float64) is exact.
_LN2_PARTS = {dtypes.float32: _split(_LN2, (14,), np.float32), dtypes.float64: _split(_LN2, (40,), np.float64)}
_PI_PARTS = {
    dtypes.float32: _split(_PI, (9, 9), np.float32),
    dtypes.float64: _split(_PI, (30, 30, 30), np.float64),
}


def _floating(x: Tensor) -> Tensor:
    return x if is_floating(x) else x.cast(DEFAULT_FLOAT)


def _nearest(x: Tensor) -> Tensor:
    return ((x < 0).where(x - 0.5, x + 0.5)).trunc()


def _kept(x: Tensor) -> Tensor:
    """Return x, hidden from tinygrad's algebra, which would otherwise merge the small terms that are apart for a reason."""
    return x.ne(x).where(float("nan"), x)


def _minus_multiple(x: Tensor, n: Tensor, parts: list[float]) -> Tensor:
    for part in parts:
        x = _kept(x - n * part)
    return x


def _polynomial(x: Tensor, coefficients: list[float]) -> Tensor:
    """Horner's scheme, highest power first."""
    return reduce(lambda value, c: value * x + c, coefficients)


def exp(x: Tensor, /) -> Tensor:
    """Return e^x: 2^n exp(r) with x = n ln 2 + r, so that large x lose nothing."""
    x = _floating(x)
    reduced = (x < -1e4).where(-1e4, (x > 1e4).where(1e4, x))
    n = _nearest(reduced * _LOG2_E)
    fraction = _minus_multiple(reduced, n, _LN2_PARTS[x.dtype]) * _LOG2_E
    half = (n * 0.5).trunc()
    return fraction.exp2() * half.exp2() * (n - half).exp2()


def expm1(x: Tensor, /) -> Tensor:
    """Return e^x - 1, accurate near 0."""
    x = _floating(x)
    small = (x < 0.5) & (x > -0.5)
    near = small.where(x, 0)
    series = near * _polynomial(near, [1 / math.factorial(k) for k in range(16, 0, -1)])
    return small.where(series, exp(x) - 1)


def log(x: Tensor, /) -> Tensor:
    """Return the natural logarithm."""
    return x.log()


def log2(x: Tensor, /) -> Tensor:
    """Return the logarithm to base 2."""
    return x.log2()


def log1p(x: Tensor, /) -> Tensor:
    """Return log(1 + x), accurate near 0: 2 artanh(x / (2 + x))."""
    x = _floating(x)
    small = (x < 0.4) & (x > -0.3)
    near = small.where(x, 0)
    y = near / (2 + near)
    series = 2 * y * _polynomial(y * y, [1 / (2 * k + 1) for k in range(11, -1, -1)])
    return small.where(series, (small.where(1, 1 + x)).log())


def sin(x: Tensor, /) -> Tensor:
    """Return the sine."""
    x = _floating(x)
    turns = _nearest(x * (1 / math.pi))
    remainder = _minus_multiple(x, turns, _PI_PARTS[x.dtype])
    odd = (turns * 0.5).trunc().ne(turns * 0.5)
    return odd.where(-remainder.sin(), remainder.sin())


def cos(x: Tensor, /) -> Tensor:
    """Return the cosine: the sine of x + pi/2, with the quarter turn taken off exactly."""
    x = _floating(x)
    turns = (_nearest(x * (1 / math.pi) - 0.5)) + 0.5
    remainder = _minus_multiple(x, turns, _PI_PARTS[x.dtype])
    floor = turns - 0.5
    odd = (floor * 0.5).trunc().ne(floor * 0.5)
    return odd.where(remainder.sin(), -remainder.sin())


def tan(x: Tensor, /) -> Tensor:
    """Return the tangent."""
    return sin(x) / cos(x)


def sinh(x: Tensor, /) -> Tensor:
    """Return the hyperbolic sine."""
    x = _floating(x)
    small = (x < 1) & (x > -1)
    near = small.where(x, 0)
    series = near * _polynomial(near * near, [1 / math.factorial(2 * k + 1) for k in range(10, -1, -1)])
    half = exp(x * 0.5)
    return small.where(series, 0.5 * half * half - 0.5 / half / half)


def cosh(x: Tensor, /) -> Tensor:
    """Return the hyperbolic cosine."""
    half = exp(x * 0.5)
    return 0.5 * half * half + 0.5 / half / half


def tanh(x: Tensor, /) -> Tensor:
    """Return the hyperbolic tangent."""
    x = _floating(x)
    bounded = (x > 30).where(30, (x < -30).where(-30, x))
    growth = expm1(2 * bounded)
    return growth / (growth + 2)


def atan(x: Tensor, /) -> Tensor:
    """Return the inverse tangent: the angle is halved three times, then summed as a series."""
    x = _floating(x)
    steep = (x > 1) | (x < -1)
    y = steep.where(steep.where(x, 1).reciprocal(), x)
    for _ in range(3):
        y = y / (1 + (1 + y * y).sqrt())
    angle = 8 * y * _polynomial(y * y, [(-1) ** k / (2 * k + 1) for k in range(9, -1, -1)])
    quarter = (x < 0).where(-math.pi / 2, math.pi / 2)
    return steep.where(quarter - angle, angle)
