"""Sums, means and extremes along axes."""

from __future__ import annotations

import builtins

from tinygrad import Tensor, dtypes
from tinygrad.dtype import DType

from cmcore_tinygrad.functions.dtypes import DEFAULT_INT, is_floating
from cmcore_tinygrad.functions.elementwise import isnan

__all__ = [
    "all", "any", "argmax", "argmin", "cumulative_sum", "max", "mean", "min", "prod", "std", "sum", "var",
]  # fmt: skip

Axis = int | tuple[int, ...] | None


def _summable(x: Tensor, dtype: DType | None) -> Tensor:
    """Cast to the type of a sum: the one asked for, else booleans to the default integer and others unchanged."""
    return x.cast(dtype or (DEFAULT_INT if x.dtype == dtypes.bool else x.dtype))


def sum(x: Tensor, /, *, axis: Axis = None, dtype: DType | None = None, keepdims: bool = False) -> Tensor:
    """Return the sum along the axes (None: all of them)."""
    x = _summable(x, dtype)
    return x if axis == () else x.sum(axis, keepdim=keepdims, dtype=x.dtype)


def prod(x: Tensor, /, *, axis: Axis = None, dtype: DType | None = None, keepdims: bool = False) -> Tensor:
    """Return the product along the axes (None: all of them)."""
    x = _summable(x, dtype)
    return x if axis == () else x.prod(axis, keepdim=keepdims, dtype=x.dtype)


def mean(x: Tensor, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return the mean along the axes (None: all of them)."""
    return sum(x, axis=axis, keepdims=keepdims) / _count(x, axis)


def var(x: Tensor, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """Return the variance along the axes: squared deviations over (count - correction)."""
    deviation = x - mean(x, axis=axis, keepdims=True)
    count = builtins.max(0, _count(x, axis) - correction)
    # tinygrad takes x - x for 0, whatever x is.
    return _nan_if_any(x, sum(deviation * deviation, axis=axis, keepdims=keepdims) / count, axis, keepdims)


def std(x: Tensor, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """Return the square root of `var`."""
    return var(x, axis=axis, correction=correction, keepdims=keepdims).sqrt()


def _count(x: Tensor, axis: Axis) -> int:
    axes = range(x.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
    count = 1
    for a in axes:
        count *= int(x.shape[a])
    return count


def max(x: Tensor, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return the greatest element along the axes, NaN where there is one."""
    return x if axis == () else _nan_if_any(x, x.max(axis, keepdim=keepdims), axis, keepdims)


def min(x: Tensor, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return the least element along the axes, NaN where there is one."""
    return x if axis == () else _nan_if_any(x, x.min(axis, keepdim=keepdims), axis, keepdims)


def _nan_if_any(x: Tensor, otherwise: Tensor, axis: Axis, keepdims: bool) -> Tensor:
    if not is_floating(x):
        return otherwise
    return isnan(x).any(axis, keepdim=keepdims).where(float("nan"), otherwise)


def all(x: Tensor, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Tell whether every element along the axes is true (not zero)."""
    return x.cast(dtypes.bool) if axis == () else x.all(axis, keepdim=keepdims)


def any(x: Tensor, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Tell whether some element along the axes is true (not zero)."""
    return x.cast(dtypes.bool) if axis == () else x.any(axis, keepdim=keepdims)


def argmax(x: Tensor, /, *, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Return the position of the first greatest element along the axis (None: in the flattened array)."""
    return _position(x, "argmax", axis, keepdims)


def argmin(x: Tensor, /, *, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Return the position of the first least element along the axis (None: in the flattened array)."""
    return _position(x, "argmin", axis, keepdims)


def _position(x: Tensor, method: str, axis: int | None, keepdims: bool) -> Tensor:
    if axis is None:
        return getattr(x.flatten(), method)(0).reshape((1,) * x.ndim if keepdims else ())
    return getattr(x, method)(axis, keepdim=keepdims)


def cumulative_sum(
    x: Tensor, /, *, axis: int | None = None, dtype: DType | None = None, include_initial: bool = False
) -> Tensor:
    """Return running sums along the axis; ``include_initial`` puts a zero first."""
    axis = 0 if axis is None else axis % x.ndim
    x = _summable(x, dtype)
    sums = x.cumsum(axis).cast(x.dtype)
    if not include_initial:
        return sums
    start = Tensor.zeros(*x.shape[:axis], 1, *x.shape[axis + 1 :], dtype=x.dtype, device=x.device)
    return start.cat(sums, dim=axis)
