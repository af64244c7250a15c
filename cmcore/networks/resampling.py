"""Separable filters that halve or double images, over the Array API."""

from __future__ import annotations

from collections.abc import Sequence

from cmcore.backend import namespace
from cmcore.types import Array


def filtered(h: Array, axes: Sequence[int], taps: Sequence[float], up: bool, within: bool = False) -> Array:
    """Return h halved or doubled along the axes, as `cmcore.networks.Resample` says."""
    total = sum(taps)
    weights = [tap / total for tap in taps]
    for axis in axes:
        h = _doubled(h, axis, weights) if up else _halved(h, axis, weights, within)
    return h


def _halved(h: Array, axis: int, weights: Sequence[float], within: bool) -> Array:
    """``y[i] = sum_k w[k] x[2 i + k - pad]``, zeros beyond the edges; ``within`` them, without ``pad``."""
    pad = 0 if within else (len(weights) - 1) // 2
    half, padded = h.shape[axis] // 2, _padded(h, axis, pad, pad)
    half -= len(weights) // 2 - 1 if within else 0
    # The pairs of neighbours as an axis of their own: a stride without one.
    rows = [_paired(_part(padded, axis, k, k + 2 * half), axis) for k in range(0, len(weights), 2)]
    terms = [w * _picked(rows[k // 2], axis + 1, k % 2) for k, w in enumerate(weights)]
    return sum(terms[1:], terms[0])


def _doubled(h: Array, axis: int, weights: Sequence[float]) -> Array:
    """``y[2 i + k - pad] += 2 w[k] x[i]``, zeros beyond the edges."""
    xp, pad, n = namespace(h), (len(weights) - 1) // 2, h.shape[axis]
    reach = len(weights) // 2
    padded = _padded(h, axis, reach, reach)
    phases = []
    for parity in (0, 1):
        # y[2 j + parity] takes w[k] x[i] with 2 i + k - pad = 2 j + parity.
        terms = []
        for k, w in enumerate(weights):
            if (parity + pad - k) % 2 == 0:
                shift = (parity + pad - k) // 2
                terms.append(2.0 * w * _part(padded, axis, reach + shift, reach + shift + n))
        phases.append(sum(terms[1:], terms[0]))
    stacked = xp.stack(phases, axis=axis + 1)
    return xp.reshape(stacked, (*h.shape[:axis], 2 * n, *h.shape[axis + 1 :]))


def _padded(h: Array, axis: int, before: int, after: int) -> Array:
    if not before and not after:
        return h
    xp = namespace(h)
    edge = xp.zeros_like(_part(h, axis, 0, 1))
    return xp.concat([edge] * before + [h] + [edge] * after, axis=axis)


def _part(h: Array, axis: int, start: int, stop: int) -> Array:
    return h[(slice(None),) * axis + (slice(start, stop),)]


def _paired(h: Array, axis: int) -> Array:
    return namespace(h).reshape(h, (*h.shape[:axis], h.shape[axis] // 2, 2, *h.shape[axis + 1 :]))


def _picked(h: Array, axis: int, i: int) -> Array:
    return h[(slice(None),) * axis + (i,)]
