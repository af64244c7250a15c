"""How a published weight becomes ours and ours the published: the few changes of shape and order there are between layouts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Change:
    """Between one weight of ours and the published ones, one or several, that it is made of; each way undoes the other."""

    ours: Callable[[Sequence[np.ndarray]], np.ndarray]
    """Our weight of the published."""
    theirs: Callable[[np.ndarray], Sequence[np.ndarray]]
    """The published weights of ours."""
    shapes: Callable[[Shape], Sequence[Shape]]
    """The published weights' shapes, of ours."""

    def then(self, other: Change) -> Change:
        """Return the change that makes this change's single weight ours by the other one."""
        return Change(
            lambda arrays: other.ours([self.ours(arrays)]),
            lambda array: self.theirs(other.theirs(array)[0]),
            lambda shape: self.shapes(other.shapes(shape)[0]),
        )


def single(
    ours: Callable[[np.ndarray], np.ndarray],
    theirs: Callable[[np.ndarray], np.ndarray],
    shape: Callable[[Shape], Shape],
) -> Change:
    """Return a change of one published weight."""
    return Change(lambda a: ours(a[0]), lambda a: [theirs(a)], lambda s: [shape(s)])


SAME = single(lambda a: a, lambda a: a, lambda s: s)
"""Nothing changes."""

FROM_1X1 = single(lambda a: a.reshape(a.shape[:2]), lambda a: a[:, :, None, None], lambda s: (*s, 1, 1))
"""The published weight is a 1 x 1 convolution's, (out, in, 1, 1); ours a matrix."""

TRANSPOSED = single(lambda a: a.T, lambda a: a.T, lambda s: s[::-1])
"""The published matrix is (in, out)."""

HWIO = single(lambda a: a.transpose(3, 2, 0, 1), lambda a: a.transpose(2, 3, 1, 0), lambda s: (*s[2:], s[1], s[0]))
"""The published kernel is (height, width, in, out)."""

THIRDS = Change(np.concatenate, lambda a: np.split(a, 3), lambda s: [(s[0] // 3, *s[1:])] * 3)
"""Queries, keys and values are published each by itself, and ours follow one another."""

NINS = Change(
    lambda arrays: np.concatenate([a.T for a in arrays]),
    lambda a: [part.T for part in np.split(a, 3)],
    lambda s: [(s[1], s[0] // 3)] * 3,
)
"""As `THIRDS`, each published as (in, out)."""


def _blocks(a: np.ndarray) -> np.ndarray:
    """Rows q0 k0 v0 q1 k1 v1 ... as q0 q1 ... k0 k1 ... v0 v1 ..."""
    return a.reshape(-1, 3, *a.shape[1:]).swapaxes(0, 1).reshape(a.shape)


def _interleaved(a: np.ndarray) -> np.ndarray:
    return a.reshape(3, -1, *a.shape[1:]).swapaxes(0, 1).reshape(a.shape)


INTERLEAVED = single(_blocks, _interleaved, lambda s: s)
"""The published rows are a query, its key and its value in turn (EDM's); ours are all queries, all keys, all values."""
