"""Reshaping, joining, reordering and picking."""

from __future__ import annotations

import math

from tinygrad import Tensor

from cmcore_tinygrad.functions.dtypes import promoted

__all__ = [
    "broadcast_arrays", "broadcast_to", "concat", "expand_dims", "flip", "moveaxis", "permute_dims", "reshape", "roll",
    "squeeze", "stack", "take", "take_along_axis", "tile", "unstack",
]  # fmt: skip

Arrays = tuple[Tensor, ...] | list[Tensor]


def reshape(x: Tensor, /, shape: tuple[int, ...], *, copy: bool | None = None) -> Tensor:
    """Return x with another shape; one side may be -1. Tensors are values here, so ``copy`` makes no difference."""
    shape = tuple(shape)
    if -1 in shape and 0 in x.shape:
        known = math.prod(n for n in shape if n != -1)
        shape = tuple(int(x.numel()) // max(known, 1) if n == -1 else n for n in shape)
    return x.reshape(shape)


def broadcast_to(x: Tensor, /, shape: tuple[int, ...]) -> Tensor:
    """Return x stretched to a shape."""
    return x.reshape((1,) * (len(shape) - x.ndim) + tuple(x.shape)).expand(tuple(shape))


def broadcast_arrays(*arrays: Tensor) -> list[Tensor]:
    """Return the arrays stretched to the shape they have in common."""
    rank = max(x.ndim for x in arrays)
    padded = [(1,) * (rank - x.ndim) + tuple(x.shape) for x in arrays]
    shape = tuple(next((n for n in sides if n != 1), 1) for sides in zip(*padded, strict=True))
    return [broadcast_to(x, shape) for x in arrays]


def expand_dims(x: Tensor, /, axis: int) -> Tensor:
    """Return x with a side of length 1 put in at the axis."""
    if not -x.ndim - 1 <= axis <= x.ndim:
        raise IndexError(f"The axis {axis} is out of range for an array of {x.ndim} dimensions.")
    return x.unsqueeze(axis)


def squeeze(x: Tensor, /, axis: int | tuple[int, ...]) -> Tensor:
    """Return x without the given axes, which must have length 1."""
    axes = {a % x.ndim for a in ((axis,) if isinstance(axis, int) else axis)}
    if any(x.shape[a] != 1 for a in axes):
        raise ValueError(f"Only axes of length 1 can be dropped; got the axes {axis} of the shape {x.shape}.")
    return x.reshape(tuple(n for a, n in enumerate(x.shape) if a not in axes))


def permute_dims(x: Tensor, /, axes: tuple[int, ...]) -> Tensor:
    """Return x with its axes in another order."""
    return x.permute(tuple(axes)) if x.ndim else x


def moveaxis(x: Tensor, source: int | tuple[int, ...], destination: int | tuple[int, ...], /) -> Tensor:
    """Return x with some axes moved to other places, the rest in their order."""
    sources = [a % x.ndim for a in ((source,) if isinstance(source, int) else source)]
    places = [a % x.ndim for a in ((destination,) if isinstance(destination, int) else destination)]
    order = [a for a in range(x.ndim) if a not in sources]
    for place, a in sorted(zip(places, sources, strict=True)):
        order.insert(place, a)
    return permute_dims(x, tuple(order))


def flip(x: Tensor, /, *, axis: int | tuple[int, ...] | None = None) -> Tensor:
    """Return x reversed along the axes (None: all of them)."""
    return x.flip(tuple(range(x.ndim)) if axis is None else axis) if x.ndim else x


def roll(x: Tensor, /, shift: int | tuple[int, ...], *, axis: int | tuple[int, ...] | None = None) -> Tensor:
    """Return x shifted cyclically along the axes (None: flattened, then shaped again)."""
    if axis is None:
        assert isinstance(shift, int)
        return _roll_one(x.flatten(), shift, 0).reshape(x.shape)
    axes = (axis,) if isinstance(axis, int) else axis
    shifts = (shift,) * len(axes) if isinstance(shift, int) else shift
    for n, a in zip(shifts, axes, strict=True):
        x = _roll_one(x, n, a % x.ndim)
    return x


def _roll_one(x: Tensor, shift: int, axis: int) -> Tensor:
    length = x.shape[axis]
    cut = -shift % length if length else 0
    if not cut:
        return x
    before = (slice(None),) * axis
    return x[(*before, slice(cut, None))].cat(x[(*before, slice(0, cut))], dim=axis)


def concat(arrays: Arrays, /, *, axis: int | None = 0) -> Tensor:
    """Return the arrays joined along an existing axis (None: flattened)."""
    first, *others = promoted(*(x.flatten() if axis is None else x for x in arrays))
    return first.cat(*others, dim=axis or 0)


def stack(arrays: Arrays, /, *, axis: int = 0) -> Tensor:
    """Return the arrays joined along a new axis."""
    first, *others = promoted(*arrays)
    return first.stack(*others, dim=axis)


def unstack(x: Tensor, /, *, axis: int = 0) -> tuple[Tensor, ...]:
    """Return the slices of x along an axis."""
    axis %= x.ndim
    return tuple(x[(*(slice(None),) * axis, i)] for i in range(x.shape[axis]))


def tile(x: Tensor, repetitions: tuple[int, ...], /) -> Tensor:
    """Return copies of x laid side by side along each axis."""
    rank = max(x.ndim, len(repetitions))
    x = x.reshape((1,) * (rank - x.ndim) + tuple(x.shape))
    for axis, n in enumerate((1,) * (rank - len(repetitions)) + tuple(repetitions)):
        if n != 1:
            shape = (*x.shape[:axis], n, *x.shape[axis:])
            x = x.unsqueeze(axis).expand(shape).reshape((*x.shape[:axis], n * x.shape[axis], *x.shape[axis + 1 :]))
    return x


def take(x: Tensor, indices: Tensor, /, *, axis: int | None = None) -> Tensor:
    """Return the elements of x at positions along an axis, negative ones counted from the end."""
    axis = 0 if axis is None else axis % x.ndim
    return x[(*(slice(None),) * axis, indices)]


def take_along_axis(x: Tensor, indices: Tensor, /, *, axis: int = -1) -> Tensor:
    """Return the elements of x at positions along an axis that differ from row to row."""
    axis %= x.ndim
    sides = [max(a, b) for a, b in zip(x.shape, indices.shape, strict=True)]
    x = x.expand(tuple(x.shape[axis] if a == axis else n for a, n in enumerate(sides)))
    indices = indices.expand(tuple(indices.shape[axis] if a == axis else n for a, n in enumerate(sides)))
    return x.gather(axis, (indices < 0).where(indices + int(x.shape[axis]), indices))
