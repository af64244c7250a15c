"""Element-wise functions: tinygrad's own where they keep the standard's accuracy and special cases, ours elsewhere.

Ours are written with tinygrad's differentiable operations only, so gradients of any order pass through them.
"""

from __future__ import annotations

from typing import Any

from tinygrad import Tensor, dtypes

from cmcore_tinygrad.functions.dtypes import is_floating, promoted, strong
from cmcore_tinygrad.functions.exponential import exp, log1p

__all__ = [
    "abs", "add", "ceil", "clip", "divide", "equal", "floor", "greater", "greater_equal", "hypot", "isfinite", "isinf",
    "isnan", "less", "less_equal", "logaddexp", "logical_and", "logical_not", "logical_or", "logical_xor", "maximum",
    "minimum", "multiply", "negative", "not_equal", "positive", "pow", "reciprocal", "round", "sign", "sqrt", "square",
    "subtract", "trunc", "where",
]  # fmt: skip

_INF = float("inf")


def _tensors(x1: Any, x2: Any) -> tuple[Tensor, Tensor]:
    """Make both arguments tensors of the result's type; one of them may be a Python number."""
    x1, x2 = promoted(x1, x2)
    if not isinstance(x1, Tensor):
        return x2.const_like(x1), x2
    return x1, (x2 if isinstance(x2, Tensor) else x1.const_like(x2))


def add(x1: Any, x2: Any, /) -> Tensor:
    """Return x1 + x2."""
    x1, x2 = promoted(x1, x2)
    return x1 + x2


def subtract(x1: Any, x2: Any, /) -> Tensor:
    """Return x1 - x2."""
    x1, x2 = promoted(x1, x2)
    return x1 - x2


def multiply(x1: Any, x2: Any, /) -> Tensor:
    """Return x1 * x2."""
    x1, x2 = promoted(x1, x2)
    return x1 * x2


def divide(x1: Any, x2: Any, /) -> Tensor:
    """Return x1 / x2, floating."""
    x1, x2 = promoted(x1, x2)
    return x1 / x2


def negative(x: Tensor, /) -> Tensor:
    """Return -x."""
    return -x


def positive(x: Tensor, /) -> Tensor:
    """Return x."""
    return x


def reciprocal(x: Tensor, /) -> Tensor:
    """Return 1 / x."""
    return x.reciprocal()


def square(x: Tensor, /) -> Tensor:
    """Return x * x."""
    return x * x


def sqrt(x: Tensor, /) -> Tensor:
    """Return the square root of x."""
    return x.sqrt()


def abs(x: Tensor, /) -> Tensor:
    """Return the magnitude of x; its derivative at 0 is 0."""
    return x.ne(0).where((x < 0).where(-x, x), 0)


def sign(x: Tensor, /) -> Tensor:
    """Return -1, 0, 1, or NaN for NaN."""
    return isnan(x).where(x, x.sign()) if is_floating(x) else x.sign()


def isnan(x: Tensor, /) -> Tensor:
    """Tell which elements are NaN."""
    # Not x != x: of a constant tinygrad takes that for False. Its >= and == are negations of < and !=.
    return ((x < _INF) | x.eq(_INF)).logical_not() if is_floating(x) else x.ne(x)


def isinf(x: Tensor, /) -> Tensor:
    """Tell which elements are infinite."""
    return x.eq(_INF) | x.eq(-_INF) if is_floating(x) else x.ne(x)


def isfinite(x: Tensor, /) -> Tensor:
    """Tell which elements are neither infinite nor NaN."""
    return (isinf(x) | isnan(x)).logical_not()


def equal(x1: Any, x2: Any, /) -> Tensor:
    """Return x1 == x2."""
    x1, x2 = _tensors(x1, x2)
    return x1 == x2


def not_equal(x1: Any, x2: Any, /) -> Tensor:
    """Return x1 != x2."""
    x1, x2 = _tensors(x1, x2)
    return x1 != x2


def less(x1: Any, x2: Any, /) -> Tensor:
    """Return x1 < x2."""
    x1, x2 = _tensors(x1, x2)
    return x1 < x2


def greater(x1: Any, x2: Any, /) -> Tensor:
    """Return x1 > x2."""
    x1, x2 = _tensors(x1, x2)
    return x1 > x2


def less_equal(x1: Any, x2: Any, /) -> Tensor:
    """Return x1 <= x2; unlike tinygrad's operator, False where either is NaN."""
    x1, x2 = _tensors(x1, x2)
    return (x1 < x2) | (x1 == x2)


def greater_equal(x1: Any, x2: Any, /) -> Tensor:
    """Return x1 >= x2; unlike tinygrad's operator, False where either is NaN."""
    x1, x2 = _tensors(x1, x2)
    return (x1 > x2) | (x1 == x2)


def logical_and(x1: Any, x2: Any, /) -> Tensor:
    """Return x1 and x2, booleans."""
    x1, x2 = _tensors(x1, x2)
    return x1 & x2


def logical_or(x1: Any, x2: Any, /) -> Tensor:
    """Return x1 or x2, booleans."""
    x1, x2 = _tensors(x1, x2)
    return x1 | x2


def logical_xor(x1: Any, x2: Any, /) -> Tensor:
    """Return which of x1 and x2 differ, booleans."""
    x1, x2 = _tensors(x1, x2)
    return x1 ^ x2


def logical_not(x: Tensor, /) -> Tensor:
    """Return not x, a boolean."""
    return x.logical_not()


def maximum(x1: Any, x2: Any, /) -> Tensor:
    """Return the greater of two, NaN where either is NaN."""
    x1, x2 = _tensors(x1, x2)
    return _nan_of(x1, x2, x1.maximum(x2))


def minimum(x1: Any, x2: Any, /) -> Tensor:
    """Return the lesser of two, NaN where either is NaN."""
    x1, x2 = _tensors(x1, x2)
    return _nan_of(x1, x2, x1.minimum(x2))


def _nan_of(x1: Tensor, x2: Tensor, otherwise: Tensor) -> Tensor:
    if not is_floating(otherwise):
        return otherwise
    return (isnan(x1) | isnan(x2)).where(float("nan"), otherwise)


def clip(x: Tensor, /, min: Any = None, max: Any = None) -> Tensor:
    """Return x kept between min and max, each a number, an array or None."""
    if min is not None:
        low = min.cast(x.dtype) if isinstance(min, Tensor) else min
        x = (x < low).where(low, x)
    if max is not None:
        high = max.cast(x.dtype) if isinstance(max, Tensor) else max
        x = (x > high).where(high, x)
    return x


def where(condition: Tensor, x1: Any, x2: Any, /) -> Tensor:
    """Return x1 where the condition holds and x2 elsewhere."""
    x1, x2 = promoted(x1, x2)
    return strong(condition.where(x1, x2))


def floor(x: Tensor, /) -> Tensor:
    """Return the greatest integer not above x."""
    return x.floor() if is_floating(x) else x


def ceil(x: Tensor, /) -> Tensor:
    """Return the least integer not below x."""
    return x.ceil() if is_floating(x) else x


def trunc(x: Tensor, /) -> Tensor:
    """Return x without its fraction."""
    return x.trunc() if is_floating(x) else x


def round(x: Tensor, /) -> Tensor:
    """Return the nearest integer, halves to the even one."""
    if not is_floating(x):
        return x
    whole = x.trunc()
    fraction = abs(x - whole)
    odd = (whole * 0.5).trunc().ne(whole * 0.5)
    away = (fraction > 0.5) | (fraction.eq(0.5) & odd)
    return away.where(whole + x.sign(), whole)


def hypot(x1: Any, x2: Any, /) -> Tensor:
    """Return sqrt(x1^2 + x2^2) without overflow."""
    x1, x2 = (abs(x) for x in _tensors(x1, x2))
    large, small = x1.maximum(x2), x1.minimum(x2)
    ratio = large.eq(0).where(0, small / large.eq(0).where(1, large))
    length = _nan_of(x1, x2, large * (1 + ratio * ratio).sqrt())
    return (x1.eq(_INF) | x2.eq(_INF)).where(_INF, length)


def logaddexp(x1: Any, x2: Any, /) -> Tensor:
    """Return log(exp(x1) + exp(x2)) without overflow."""
    x1, x2 = _tensors(x1, x2)
    gap = x1.eq(x2).where(0, x1 - x2)
    return x1.maximum(x2) + log1p(exp(-abs(gap))) if is_floating(x1) else (x1 + x2)


def pow(x1: Any, x2: Any, /) -> Tensor:
    """Return x1 to the power x2."""
    x1, x2 = _tensors(x1, x2)
    if dtypes.is_int(x1.dtype):
        return _integer_power(x1, x2)
    power = x1**x2
    power = (x1.eq(1) | x1.eq(-1) & isinf(x2)).where(1, power)
    half = x2 * 0.5
    odd = x2.trunc().eq(x2) & half.trunc().ne(half)
    return (x1.eq(0) & (x1.reciprocal() < 0) & odd).where(-power, power)


def _integer_power(base: Tensor, exponent: Tensor) -> Tensor:
    """Square and multiply; a result that fits in 64 bits has an exponent below 64 unless the base is -1, 0 or 1."""
    result = base.const_like(1)
    for bit in range(6):
        result = result * ((exponent // 2**bit) % 2).ne(0).where(base, 1)
        base = base * base
    return result
