"""The mean of data given a noisy point: what the best denoiser of a finite set of data answers."""

from __future__ import annotations

import math

from cmcore._arrays import Time, as_times, check_above_zero, check_state
from cmcore._normal import softmax
from cmcore._rows import rows_of
from cmcore.backend import Array, namespace


def posterior_mean(data: Array, x: Array, t: Time, label: Array | None = None) -> Array:
    """Return ``sum_i softmax_i(-|x - x_i|^2 / (2 t^2)) x_i``, shaped like x (B, ...), for data x_i (N, ...), each as likely.

    ``E[x_0 | x_0 + t z = x]`` for t > 0, and in an array that holds 0 its limit there, the nearest datum; the number 0 is a
    `ValueError`. The data are an array of x's framework, traced or not. With ``label``, (N,), point i
    of x, one for each datum, is asked about the data of label i alone.
    """
    check_state(x)
    check_state(data, "data")
    if data.dtype != x.dtype:
        raise TypeError(f"data must have the dtype of x, {x.dtype}, got {data.dtype}.")
    if data.shape[0] == 0:
        raise ValueError(f"data must hold at least one point, got shape {tuple(data.shape)}.")
    check_above_zero(t, x, "The mean of data given a noisy point")
    if label is not None:
        namespace(label, x)
        if not tuple(label.shape) == tuple(data.shape[:1]) == tuple(x.shape[:1]):
            raise ValueError(
                f"label must have one number for each point of the data and of x, got shapes {tuple(label.shape)}, "
                f"{tuple(data.shape)} and {tuple(x.shape)}."
            )
    rows, times = rows_of(x, tuple(data.shape[1:])), as_times(t, x)
    xp = namespace(data, x)
    points = xp.reshape(data, (data.shape[0], rows.shape[1]))
    # |x|^2 is the same for all points, so that the softmax needs only the rest of |x - x_i|^2.
    norms = xp.sum(points * points, axis=1)
    logits = xp.matmul(rows, xp.matrix_transpose(points)) - norms / 2.0
    if label is not None:
        logits = xp.where(label[:, None] == label[None, :], logits, xp.full_like(logits, -math.inf))
    # Of the differences, and divided twice: t^2 may be less than the dtype can hold. At t = 0 the answer is its limit.
    logits = logits - xp.max(logits, axis=1, keepdims=True)
    least = xp.full_like(times, float(xp.finfo(x.dtype).smallest_normal))
    column = xp.reshape(xp.where(times < least, least, times), (x.shape[0], 1))
    logits = logits / column / column
    return xp.reshape(xp.matmul(softmax(logits, axis=1), points), x.shape)
