"""Arrays from shapes, numbers and host data."""

from __future__ import annotations

import builtins
import math
from typing import Any, cast

import numpy as np
from tinygrad import Tensor, dtypes
from tinygrad.device import canonicalize_device
from tinygrad.dtype import DType

from cmcore_tinygrad.functions.dtypes import DEFAULT_FLOAT, DEFAULT_INT, to_numpy_dtype

__all__ = [
    "arange", "asarray", "empty", "empty_like", "eye", "full", "full_like", "linspace", "ones", "ones_like", "zeros",
    "zeros_like",
]  # fmt: skip

_DEFAULTS = {"f": np.dtype(np.float32), "i": np.dtype(np.int32), "u": np.dtype(np.int32)}


def asarray(obj: Any, /, *, dtype: DType | None = None, device: Any = None, copy: bool | None = None) -> Tensor:
    """Make a tensor of a Python number, nested sequence, NumPy array or tensor; Python floats become float32."""
    if isinstance(obj, Tensor):
        kept = obj if dtype is None else obj.cast(dtype)
        moved = kept if device is None else kept.to(device)
        return moved.clone() if copy and moved is obj else moved
    host = _host_array(obj, dtype)
    # tinygrad turns a 0-d host array into a constant without a device; one element, reshaped, is a real buffer.
    one = device if device is None or isinstance(device, str) else device[0]
    flat = Tensor(host.reshape(-1), device=one, dtype=dtype).reshape(host.shape)
    # The device of what is divided over several is all of their names.
    return flat.shard(device) if isinstance(device, tuple) else flat


def _host_array(obj: Any, dtype: DType | None) -> np.ndarray:
    """Copy to a NumPy array, because tinygrad reads the memory it is given only when it needs it."""
    host = np.asarray(obj if isinstance(obj, (np.ndarray, np.generic)) else _to_host(obj))
    if host.dtype.kind not in "fiub":
        raise TypeError(f"tinygrad has no numbers of the type {host.dtype}; use real numbers or booleans.")
    if dtype is not None:
        wanted = to_numpy_dtype(dtype)
    elif host is obj or isinstance(obj, np.generic):
        wanted = host.dtype
    else:
        wanted = _DEFAULTS.get("f" if host.size == 0 else host.dtype.kind, host.dtype)
        if wanted == np.int32 and np.any(host != host.astype(np.int32)):
            raise OverflowError(f"A Python integer up to {np.abs(host).max()} does not fit int32: give dtype=int64.")
    return np.array(host, dtype=wanted, order="C")


def _to_host(obj: Any) -> Any:
    if isinstance(obj, (list, tuple)):
        return [_to_host(item) for item in obj]
    return obj.numpy() if isinstance(obj, Tensor) else obj


def _shape(shape: int | tuple[int, ...]) -> tuple[int, ...]:
    return (shape,) if isinstance(shape, int) else tuple(shape)


def full(shape: int | tuple[int, ...], fill_value: float, *, dtype: DType | None = None, device: Any = None) -> Tensor:
    """Return an array of a shape, every element the same."""
    if dtype is None:
        kinds = {builtins.bool: dtypes.bool, int: DEFAULT_INT}
        dtype = fill_value.dtype if isinstance(fill_value, Tensor) else kinds.get(type(fill_value), DEFAULT_FLOAT)
    if isinstance(fill_value, Tensor):
        return fill_value.cast(dtype).to(canonicalize_device(device)).expand(_shape(shape))
    return Tensor.full(_shape(shape), fill_value, dtype=dtype, device=canonicalize_device(device))


def full_like(x: Tensor, /, fill_value: float, *, dtype: DType | None = None, device: str | None = None) -> Tensor:
    """Return an array of x's shape, type and device, every element the same."""
    return full(cast("tuple[int, ...]", x.shape), fill_value, dtype=dtype or x.dtype, device=device or x.device)


def zeros(shape: int | tuple[int, ...], *, dtype: DType | None = None, device: str | None = None) -> Tensor:
    """Return an array of zeros."""
    return full(shape, 0.0, dtype=dtype or DEFAULT_FLOAT, device=device)


def ones(shape: int | tuple[int, ...], *, dtype: DType | None = None, device: str | None = None) -> Tensor:
    """Return an array of ones."""
    return full(shape, 1.0, dtype=dtype or DEFAULT_FLOAT, device=device)


def zeros_like(x: Tensor, /, *, dtype: DType | None = None, device: str | None = None) -> Tensor:
    """Return an array of zeros of x's shape, type and device."""
    return full_like(x, 0, dtype=dtype, device=device)


def ones_like(x: Tensor, /, *, dtype: DType | None = None, device: str | None = None) -> Tensor:
    """Return an array of ones of x's shape, type and device."""
    return full_like(x, 1, dtype=dtype, device=device)


empty, empty_like = zeros, zeros_like
"""Nothing in tinygrad is uninitialised until it is read, so an empty array is one of zeros."""


def arange(
    start: float,
    /,
    stop: float | None = None,
    step: float = 1,
    *,
    dtype: DType | None = None,
    device: str | None = None,
) -> Tensor:
    """Return numbers from start (0 if only ``stop`` is given) to stop, excluded, in steps; computed on the host."""
    start, stop = (0, start) if stop is None else (start, stop)
    integers = builtins.all(isinstance(n, int) for n in (start, stop, step))
    dtype = dtype or (DEFAULT_INT if integers else DEFAULT_FLOAT)
    length = max(0, math.ceil((stop - start) / step))
    values = np.arange(length, dtype=np.int64) * step + start
    return asarray(values, dtype=dtype, device=device)


def linspace(
    start: float,
    stop: float,
    /,
    num: int,
    *,
    dtype: DType | None = None,
    device: str | None = None,
    endpoint: bool = True,
) -> Tensor:
    """Return ``num`` evenly spaced numbers from start to stop; computed in float64 on the host and cast once."""
    values = np.linspace(start, stop, num, endpoint=endpoint, dtype=np.float64)
    return asarray(values, dtype=dtype or DEFAULT_FLOAT, device=device)


def eye(
    n_rows: int,
    n_cols: int | None = None,
    /,
    *,
    k: int = 0,
    dtype: DType | None = None,
    device: str | None = None,
) -> Tensor:
    """Return ones on the k-th diagonal and zeros elsewhere."""
    return asarray(np.eye(n_rows, n_cols, k=k), dtype=dtype or DEFAULT_FLOAT, device=device)
