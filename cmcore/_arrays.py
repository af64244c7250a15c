"""Shapes and checks shared by the mathematics; everything here looks at shapes and dtypes only, so it can be traced."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeGuard

import numpy as np

from cmcore.backend import Array, default, namespace, of
from cmcore.types import Time


def check_real(x: Array, name: str) -> Any:
    """Return the namespace of an array, or raise a sentence: `TypeError` for what is no array of real floats."""
    xp = namespace(x)
    if not xp.isdtype(x.dtype, "real floating"):
        raise TypeError(f"{name} must hold real floating-point numbers, got {x.dtype}.")
    return xp


def check_state(x: Array, name: str = "x") -> Any:
    """Return the namespace of a batch of points, or raise a sentence, as `check_real` does."""
    xp = check_real(x, name)
    if x.ndim < 1:
        raise ValueError(f"{name} must be a batch, of shape (B, ...), got a single number.")
    return xp


def check_same(x: Array, y: Array, names: str) -> None:
    """Raise a sentence unless two arrays are of the same framework, shape and dtype."""
    namespace(x)
    namespace(y)
    namespace(x, y)
    if tuple(x.shape) != tuple(y.shape):
        raise ValueError(f"{names} must have the same shape, got {tuple(x.shape)} and {tuple(y.shape)}.")
    if x.dtype != y.dtype:
        raise TypeError(f"{names} must have the same dtype, got {x.dtype} and {y.dtype}.")


def check_output(out: Array, x: Array, name: str = "The network") -> Array:
    """Return what a function gave for x, or raise a sentence unless it is an array of x's framework and shape."""
    if not hasattr(out, "shape"):
        raise TypeError(
            f"{name} returned an object of type {type(out).__name__}; "
            f"it must return one array of its input's shape, {tuple(x.shape)}."
        )
    namespace(x, out)
    if tuple(out.shape) != tuple(x.shape):
        raise ValueError(
            f"{name} returned shape {tuple(out.shape)} for an input of shape {tuple(x.shape)}; they must be the same."
        )
    return out


def is_number(t: object) -> TypeGuard[float]:
    """Tell whether a time is a number, which can be looked at; an array may be traced."""
    return isinstance(t, (int, float, np.floating, np.integer)) and not isinstance(t, bool)


def check_within(x: Array, name: str, low: float, high: float) -> None:
    """Raise `ValueError` unless all numbers of a host array are from ``low`` to ``high``.

    Other frameworks' arrays may be traced, or would have to be waited for, so they are not looked at.
    """
    if isinstance(x, np.ndarray) and not ((inside := (low <= x) & (x <= high)).all()):
        raise ValueError(f"{name} must be from {low:g} to {high:g}, got {x[~inside].flat[0]}.")


def check_label(label: Array, count: int, classes: int) -> None:
    """Raise `TypeError` or `ValueError` unless a label is ``count`` integers, which in a NumPy array are below ``classes``."""
    if not namespace(label).isdtype(label.dtype, "integral"):
        raise TypeError(f"The network expects label, (B,) integers below {classes}, got {label.dtype}.")
    if tuple(label.shape) != (count,):
        raise ValueError(f"The network expects label of shape ({count},), one a sample, got {tuple(label.shape)}.")
    if isinstance(label, np.ndarray) and (beyond := label[label >= classes]).size:
        raise ValueError(
            f"The network's classes are 0 to {classes - 1}, or negative for none; got the label {beyond[0]}."
        )


def check_above_zero(t: Time, x: Array, what: str) -> None:
    """Raise `ValueError` if a time, given as a number, is 0, where ``what`` is not defined, or in x's dtype next to it."""
    xp = check_state(x)
    # As Python's number, since NumPy compares a float32 in float32.
    if is_number(t) and 0 <= float(t) < (least := float(xp.finfo(x.dtype).smallest_normal)):
        raise ValueError(
            f"{what} is not defined at time 0; t must be above 0, in {x.dtype} at least {least:.2g}, got t = {t}."
        )


def as_times(t: Time, x: Array, name: str = "t") -> Array:
    """Return a time as an array (B,) of x's dtype and device; negative or NaN numbers and other shapes are errors.

    So is a number whose square x's dtype cannot hold.
    """
    xp = check_state(x)
    if is_number(t):
        if not (t >= 0 and math.isfinite(t)):
            raise ValueError(f"{name} must be a finite time of at least 0, got {t}.")
        if float(t) > (most := math.sqrt(float(xp.finfo(x.dtype).max))):
            raise ValueError(f"{name} must be at most {most:.2g}, whose square {x.dtype} can hold, got {t}.")
        # From memory, not as a constant that programs are compiled with: tinygrad would do so for each time of a sampler.
        return xp.broadcast_to(xp.asarray([float(t)], dtype=x.dtype, device=device_of(x)), x.shape[:1])
    times: Any = t
    check_real(times, name)
    namespace(times, x)
    if times.dtype != x.dtype:
        raise TypeError(f"{name} must have the dtype of x, {x.dtype}, got {times.dtype}.")
    if tuple(times.shape) not in ((), tuple(x.shape[:1])):
        raise ValueError(
            f"{name} must be a number or have shape ({x.shape[0]},), one time a sample; got {tuple(times.shape)}."
        )
    return xp.broadcast_to(times, x.shape[:1])


def as_own_times(t: Time, x: Array, name: str = "t") -> Array:
    """Return what `as_times` does, to be differentiated along: each time has a place of its own in memory."""
    times = as_times(t, x, name)
    # PyTorch differentiates along no array that was broadcast.
    return times if getattr(t, "ndim", 0) == 1 else times * namespace(x).ones_like(times)


def conditions(cond: Mapping[str, Array] | None) -> Mapping[str, Array]:
    """Return what networks are conditioned on, nothing for None; `TypeError` for what is no mapping."""
    if cond is None:
        return {}
    if not isinstance(cond, Mapping):
        raise TypeError(f'cond must be a mapping such as {{"label": y}}, got {type(cond).__name__}.')
    return cond


def per_sample(values: Array, x: Array) -> Array:
    """Reshape (B,) values to (B, 1, ..., 1) so that they broadcast against x, (B, ...): times, or weights of a batch."""
    xp = namespace(x)
    if tuple(getattr(values, "shape", ())) != (x.shape[0],):
        raise ValueError(
            f"Values for each sample must have shape ({x.shape[0]},), got {getattr(values, 'shape', values)}."
        )
    return xp.reshape(values, (x.shape[0],) + (1,) * (x.ndim - 1))


def sum_samples(x: Array) -> Array:
    """Sum over all axes but the first: (B, ...) -> (B,)."""
    return x if x.ndim == 1 else namespace(x).sum(x, axis=tuple(range(1, x.ndim)))


def mean_samples(x: Array) -> Array:
    """Average over all axes but the first: (B, ...) -> (B,)."""
    return x if x.ndim == 1 else namespace(x).mean(x, axis=tuple(range(1, x.ndim)))


def device_of(x: Array) -> Any:
    """Return the device to pass to creation functions so that their result lies beside x."""
    # A JAX tracer has none; what it is computed with decides.
    return getattr(x, "device", None)


def from_host(values: np.ndarray, like: Array | None = None) -> Array:
    """Turn float64 host values into an array beside ``like``, in its dtype; without it, float32 of the default backend."""
    if like is None:
        return default().asarray(values.astype(np.float32))
    xp = check_real(like, "like")
    # The dtype is told by its size, since frameworks differ in its name; not all devices take float64.
    # Copied, for a view that cannot be written to makes PyTorch warn.
    host = np.array(values, np.float64 if xp.finfo(like.dtype).bits == 64 else np.float32)
    return xp.asarray(host, dtype=like.dtype, device=device_of(like))


def to_host(values: Any, name: str) -> np.ndarray:
    """Copy numbers, nested sequences or any framework's array to a float64 host array; NaN and infinity are errors."""
    if not isinstance(values, (int, float, list, tuple, np.ndarray, np.generic)):
        values = of(values).to_numpy(values)
    try:
        given = np.asarray(values)
        if given.dtype.kind == "c":
            raise TypeError
        host = np.array(given, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must hold real numbers, in an array or in nested lists of equal lengths.") from None
    if not np.all(np.isfinite(host)):
        raise ValueError(f"{name} must be finite, but it holds NaN or infinite numbers.")
    return host
