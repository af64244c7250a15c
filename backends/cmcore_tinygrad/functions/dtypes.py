"""Data types of the Array API namespace: the five that it vouches for, and how they combine."""

from __future__ import annotations

import builtins
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from tinygrad import Tensor, dtypes
from tinygrad.dtype import DType, _to_np_dtype, least_upper_dtype

from cmcore._words import choice

__all__ = [
    "astype", "bool", "can_cast", "finfo", "float32", "float64", "iinfo", "int32", "int64", "isdtype", "result_type",
]  # fmt: skip

bool = dtypes.bool
int32 = dtypes.int32
int64 = dtypes.int64
float32 = dtypes.float32
float64 = dtypes.float64

DEFAULT_FLOAT, DEFAULT_INT = float32, int32
SIGNED, FLOATING = (int32, int64), (float32, float64)
_KINDS = {
    "bool": (bool,),
    "signed integer": SIGNED,
    "unsigned integer": (),
    "integral": SIGNED,
    "real floating": FLOATING,
    "complex floating": (),
    "numeric": SIGNED + FLOATING,
}


@dataclass(frozen=True)
class FloatInfo:
    """Limits of a floating-point type, as the standard's ``finfo`` object."""

    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    dtype: DType


@dataclass(frozen=True)
class IntInfo:
    """Limits of an integer type, as the standard's ``iinfo`` object."""

    bits: int
    max: int
    min: int
    dtype: DType


def is_scalar(x: object) -> builtins.bool:
    """Tell whether x is a Python number, whose type never decides a result's type."""
    return isinstance(x, (builtins.bool, int, float))


def is_floating(x: Tensor) -> builtins.bool:
    """Tell whether a tensor holds floating-point numbers."""
    return dtypes.is_float(x.dtype)


def strong(x: Tensor) -> Tensor:
    """Give a tensor made of Python numbers alone its default type."""
    kinds = {dtypes.weakint: DEFAULT_INT, dtypes.weakfloat: DEFAULT_FLOAT}
    return x.cast(kinds[x.dtype]) if x.dtype in kinds else x


def promoted(*xs: Any) -> list[Any]:
    """Cast tensors to the type they have in common; Python numbers stay as they are."""
    dtype = result_type(*xs)
    return [x.cast(dtype) if isinstance(x, Tensor) else x for x in xs]


def to_numpy_dtype(dtype: DType) -> np.dtype:
    """Return the NumPy type of the same numbers."""
    return np.dtype(_to_np_dtype(dtype))


def result_type(*arrays_and_dtypes: Any) -> DType:
    """Return the type that an operation on these arrays, types and Python numbers has."""
    found = [x.dtype if isinstance(x, Tensor) else x for x in arrays_and_dtypes if not is_scalar(x)]
    scalars = [x for x in arrays_and_dtypes if is_scalar(x)]
    if not found:
        found = [bool if builtins.all(isinstance(s, builtins.bool) for s in scalars) else DEFAULT_INT]
    dtype = reduce(least_upper_dtype, found)
    if any(isinstance(s, float) for s in scalars) and not dtypes.is_float(dtype):
        return DEFAULT_FLOAT
    if any(not isinstance(s, builtins.bool) for s in scalars) and dtype == bool:
        return DEFAULT_INT
    return dtype


def astype(x: Tensor, dtype: DType, /, *, copy: builtins.bool = True, device: str | None = None) -> Tensor:
    """Cast a tensor; tensors are values here, so ``copy`` makes no difference."""
    cast = x.cast(dtype)
    return cast if device is None else cast.to(device)


def can_cast(from_: Any, to: DType, /) -> builtins.bool:
    """Tell whether the promotion rules lead from one type (or an array's) to another."""
    source = from_.dtype if isinstance(from_, Tensor) else from_
    same_kind = dtypes.is_float(source) == dtypes.is_float(to) and (source == bool) == (to == bool)
    return same_kind and least_upper_dtype(source, to) == to


def isdtype(dtype: DType, kind: Any) -> builtins.bool:
    """Tell whether a type is of a kind: a type, one of the standard's names of kinds, or a tuple of these."""
    if isinstance(kind, tuple):
        return builtins.any(isdtype(dtype, k) for k in kind)
    if isinstance(kind, str):
        if kind not in _KINDS:
            raise ValueError(f"Unknown kind of data type {kind!r}; {choice(kind, _KINDS)}")
        return dtype in _KINDS[kind]
    return dtype == kind


def finfo(type: Any, /) -> FloatInfo:
    """Return the limits of a floating-point type (or of an array's)."""
    dtype = type.dtype if isinstance(type, Tensor) else type
    info = np.finfo(to_numpy_dtype(dtype))
    limits = {name: float(getattr(info, name)) for name in ("eps", "max", "min", "smallest_normal")}
    return FloatInfo(bits=info.bits, dtype=dtype, **limits)


def iinfo(type: Any, /) -> IntInfo:
    """Return the limits of an integer type (or of an array's)."""
    dtype = type.dtype if isinstance(type, Tensor) else type
    info = np.iinfo(to_numpy_dtype(dtype))
    return IntInfo(bits=info.bits, max=int(info.max), min=int(info.min), dtype=dtype)
