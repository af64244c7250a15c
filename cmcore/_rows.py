"""Batches of samples as matrices: one flattened sample a row."""

from __future__ import annotations

import math

from cmcore.backend import Array, namespace


def rows_of(x: Array, event: tuple[int, ...]) -> Array:
    """Flatten samples of the shape ``event`` to rows, (B, D); the shape () allows samples of any shape."""
    shape = tuple(x.shape[1:])
    if event and shape != event:
        raise ValueError(f"This oracle's samples have shape {event}, but x has samples of shape {shape}.")
    return namespace(x).reshape(x, (x.shape[0], math.prod(shape)))


def squared_times(t: Array) -> Array:
    """Return t^2 as a column (B, 1)."""
    return namespace(t).reshape(t**2, (t.shape[0], 1))
