"""The mean of data given a noisy point: what the best denoiser of a finite set of data returns."""

from __future__ import annotations

import math
from typing import Annotated

from cmcore._annotations import AboveZero, Condition, Shape
from cmcore._door import check_arguments
from cmcore._normal import softmax
from cmcore._rows import rows_of
from cmcore.backend import Array, namespace
from cmcore.types import Samples, Time

Data = Annotated[
    Array,
    Shape("N *D"),
    Condition(
        lambda data: data.shape[0] > 0,
        lambda data: f"data must hold at least one point, got shape {tuple(data.shape)}.",
    ),
]
"""A data set, (N, ...)."""
Points = Annotated[
    Samples,
    Condition(
        lambda data, x: data.dtype == x.dtype, "data must have the dtype of x, {x.dtype}, got {data.dtype}.", TypeError
    ),
]
"""Points like the data, (B, ...)."""
NoisyTime = Annotated[Time, AboveZero("The mean of data given a noisy point")]
"""A time at which a point is noisy."""
Label = Annotated[
    Array,
    lambda x, label: namespace(label, x),
    Condition(
        lambda data, x, label: tuple(label.shape) == tuple(data.shape[:1]) == tuple(x.shape[:1]),
        lambda data, x, label: (
            "label must have one number for each point of the data and of x, got shapes "
            f"{tuple(label.shape)}, {tuple(data.shape)} and {tuple(x.shape)}."
        ),
    ),
]
"""A class for each datum, which is that of a point too, (N,) integers."""


def posterior_mean(data: Data, x: Points, t: NoisyTime, label: Label | None = None) -> Samples:
    """Return ``sum_i softmax_i(-|x - x_i|^2 / (2 t^2)) x_i``, shaped like x (B, ...), for data x_i (N, ...), each as likely.

    ``E[x_0 | x_0 + t z = x]`` for t > 0, and in an array that holds 0 its limit there, the nearest datum; the number 0 is a
    `ValueError`. The data are an array of x's framework, traced or not. With ``label``, (N,), point i
    of x, one for each datum, is asked about the data of label i alone.
    """
    xp, rows = namespace(data, x), rows_of(x, tuple(data.shape[1:]))
    points = xp.reshape(data, (data.shape[0], rows.shape[1]))
    # |x|^2 is the same for all points, so that the softmax needs only the rest of |x - x_i|^2.
    norms = xp.sum(points * points, axis=1)
    logits = xp.matmul(rows, xp.matrix_transpose(points)) - norms / 2.0
    if label is not None:
        logits = xp.where(label[:, None] == label[None, :], logits, xp.full_like(logits, -math.inf))
    # Of the differences, and divided twice: t^2 may be less than the dtype can hold. At t = 0 the result is its limit.
    logits = logits - xp.max(logits, axis=1, keepdims=True)
    least = xp.full_like(t, float(xp.finfo(x.dtype).smallest_normal))
    column = xp.reshape(xp.where(t < least, least, t), (x.shape[0], 1))
    logits = logits / column / column
    return xp.reshape(xp.matmul(softmax(logits, axis=1), points), x.shape)


check_arguments(__name__)
