"""Exponentials, logarithms and hyperbolic functions, accurate to a few units in the last place.

tinygrad builds them on exp2 and log2. That loses digits in exp of large numbers and in tanh and sinh near 0; these are the
same functions without those losses, composed of differentiable operations.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from tinygrad import Tensor, dtypes

from cmcore_tinygrad.functions.accuracy import in_full_precision, minus_multiple, parts, polynomial

__all__ = ["cosh", "exp", "expm1", "log", "log1p", "log2", "sinh", "tanh"]

_LOG2_E = 1 / math.log(2)
_LN2 = Fraction("0.693147180559945309417232121458176568075500134360255254120680009493393621969694715605863326996418687")
_LN2_PARTS = {dtypes.float32: parts(_LN2, (14,), np.float32), dtypes.float64: parts(_LN2, (40,), np.float64)}


@in_full_precision
def exp(x: Tensor, /) -> Tensor:
    """Return e^x: 2^n exp(r) with x = n ln 2 + r, so that large x lose nothing."""
    reduced = (x < -1e4).where(-1e4, (x > 1e4).where(1e4, x))
    n = (reduced * _LOG2_E + (reduced < 0).where(-0.5, 0.5)).trunc()
    fraction = minus_multiple(reduced, n, _LN2_PARTS[x.dtype]) * _LOG2_E
    half = (n * 0.5).trunc()
    return fraction.exp2() * half.exp2() * (n - half).exp2()


@in_full_precision
def expm1(x: Tensor, /) -> Tensor:
    """Return e^x - 1, accurate near 0."""
    small = (x < 0.5) & (x > -0.5)
    near = small.where(x, 0)
    series = near * polynomial(near, [1 / math.factorial(k) for k in range(16, 0, -1)])
    return small.where(series, exp(x) - 1)


def log(x: Tensor, /) -> Tensor:
    """Return the natural logarithm."""
    return x.log()


def log2(x: Tensor, /) -> Tensor:
    """Return the logarithm to base 2."""
    return x.log2()


@in_full_precision
def log1p(x: Tensor, /) -> Tensor:
    """Return log(1 + x), accurate near 0: 2 artanh(x / (2 + x))."""
    small = (x < 0.4) & (x > -0.3)
    near = small.where(x, 0)
    y = near / (2 + near)
    series = 2 * y * polynomial(y * y, [1 / (2 * k + 1) for k in range(11, -1, -1)])
    return small.where(series, (small.where(1, 1 + x)).log())


@in_full_precision
def sinh(x: Tensor, /) -> Tensor:
    """Return the hyperbolic sine."""
    small = (x < 1) & (x > -1)
    near = small.where(x, 0)
    series = near * polynomial(near * near, [1 / math.factorial(2 * k + 1) for k in range(10, -1, -1)])
    half = exp(x * 0.5)
    return small.where(series, 0.5 * half * half - 0.5 / half / half)


@in_full_precision
def cosh(x: Tensor, /) -> Tensor:
    """Return the hyperbolic cosine."""
    half = exp(x * 0.5)
    return 0.5 * half * half + 0.5 / half / half


@in_full_precision
def tanh(x: Tensor, /) -> Tensor:
    """Return the hyperbolic tangent."""
    bounded = (x > 30).where(30, (x < -30).where(-30, x))
    growth = expm1(2 * bounded)
    return growth / (growth + 2)
