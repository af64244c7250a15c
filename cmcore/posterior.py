"""The mean of data given a noisy point: what the best denoiser of a finite set of data answers."""

from __future__ import annotations

import math

from cmcore._arrays import Time, check_state
from cmcore._normal import softmax
from cmcore._rows import rows_of, squared_times
from cmcore.backend import Array, namespace


def posterior_mean(data: Array, x: Array, t: Time, label: Array | None = None) -> Array:
    """Return ``sum_i softmax_i(-|x - x_i|^2 / (2 t^2)) x_i``, shaped like x (B, ...), for data x_i (N, ...), each as likely.

    ``E[x_0 | x_0 + t z = x]`` for t > 0. The data are an array of x's framework, traced or not. With ``label``, (N,), point i
    of x, one for each datum, is asked about the data of label i alone.
    """
    check_state(x)
    check_state(data, "data")
    if data.dtype != x.dtype:
        raise TypeError(f"data must have the dtype of x, {x.dtype}, got {data.dtype}.")
    if data.shape[0] == 0:
        raise ValueError(f"data must hold at least one point, got shape {tuple(data.shape)}.")
    if isinstance(t, (int, float)) and t == 0:
        raise ValueError("The mean of data given a noisy point needs a time t above 0, got t = 0.")
    if label is not None:
        namespace(label, x)
        if not tuple(label.shape) == tuple(data.shape[:1]) == tuple(x.shape[:1]):
            raise ValueError(
                f"label must have one number for each point of the data and of x, got shapes {tuple(label.shape)}, "
                f"{tuple(data.shape)} and {tuple(x.shape)}."
            )
    rows, tt = rows_of(x, tuple(data.shape[1:])), squared_times(t, x)
    xp = namespace(data, x)
    points = xp.reshape(data, (data.shape[0], rows.shape[1]))
    # |x|^2 is the same for all points, so that the softmax needs only the rest of |x - x_i|^2.
    norms = xp.sum(points * points, axis=1)
    logits = (xp.matmul(rows, xp.matrix_transpose(points)) - norms / 2.0) / tt
    if label is not None:
        logits = xp.where(label[:, None] == label[None, :], logits, xp.full_like(logits, -math.inf))
    return xp.reshape(xp.matmul(softmax(logits, axis=1), points), x.shape)
