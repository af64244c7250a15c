"""Products of vectors and matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tinygrad import Tensor

from cmcore_tinygrad.functions.dtypes import promoted
from cmcore_tinygrad.functions.manipulation import broadcast_arrays, moveaxis
from cmcore_tinygrad.functions.reductions import sum

__all__ = ["matmul", "matrix_transpose", "tensordot", "vecdot"]


def matmul(x1: Tensor, x2: Tensor, /) -> Tensor:
    """Return the matrix product over the last two axes; a vector counts as a row on the left, a column on the right."""
    x1, x2 = promoted(x1, x2)
    return x1.matmul(x2, dtype=x1.dtype)


def matrix_transpose(x: Tensor, /) -> Tensor:
    """Return x with its last two axes swapped."""
    return x.transpose(-2, -1)


def tensordot(x1: Tensor, x2: Tensor, /, *, axes: int | tuple[Sequence[int], Sequence[int]] = 2) -> Tensor:
    """Return the sum of products over the last ``axes`` of x1 and the first of x2, or over two lists of axes."""
    x1, x2 = promoted(x1, x2)
    if isinstance(axes, int):
        axes = (range(x1.ndim - axes, x1.ndim), range(axes))
    over1, over2 = ([a % x.ndim for a in given] for x, given in zip((x1, x2), axes, strict=True))
    kept1 = [a for a in range(x1.ndim) if a not in over1]
    kept2 = [a for a in range(x2.ndim) if a not in over2]
    shape = tuple(x1.shape[a] for a in kept1) + tuple(x2.shape[a] for a in kept2)
    length = math.prod(int(x1.shape[a]) for a in over1)
    rows = _arranged(x1, kept1 + over1, (-1, length))
    columns = _arranged(x2, over2 + kept2, (length, -1))
    return matmul(rows, columns).reshape(shape)


def _arranged(x: Tensor, order: list[int], shape: tuple[int, int]) -> Tensor:
    other = x.numel() // max(1, math.prod(n for n in shape if n != -1))
    return (x.permute(tuple(order)) if x.ndim else x).reshape(tuple(other if n == -1 else n for n in shape))


def vecdot(x1: Tensor, x2: Tensor, /, *, axis: int = -1) -> Tensor:
    """Return the sum of products along one axis of both, the others broadcast."""
    x1, x2 = promoted(x1, x2)
    x1, x2 = broadcast_arrays(moveaxis(x1, axis, -1), moveaxis(x2, axis, -1))
    return sum(x1 * x2, axis=-1)
