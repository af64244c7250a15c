"""Time search: which intermediate times the multistep sampler should have for the best value of any metric.

A metric is a function of the sampler's decreasing times, such as the Frechet distance of the samples they give. Small is
good. It should use the same noise each time, or what differs between its values is chance.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import NamedTuple

from cmcore._options import check_function, check_kind, numbers


class Found(NamedTuple):
    """The best times that were found, decreasing, and the metric's value there."""

    times: tuple[float, ...]
    value: float


def ternary(metric: Callable[[int], float], low: int, high: int) -> int:
    """Return the whole number in [low, high] where a metric that falls and then rises is least, by ternary search.

    Each number is evaluated at most once, about ``2 log_1.5(high - low)`` of them in all. The search is the authors' program
    of Song et al. (2023), but for its end: the best of all numbers left is returned, the end points included.
    """
    check_function("The metric", metric)
    check_kind("low", low, int)
    check_kind("high", high, int)
    if low > high:
        raise ValueError(f"A search needs low <= high, got {low} and {high}.")
    value = cache(lambda i: _number(metric(i), i))
    while high - low >= 3:
        third = (high - low) / 3
        left, right = int(low + third), int(high - third)
        if value(left) < value(right):
            high = right
        else:
            low = left
    return min(range(low, high + 1), key=value)


def greedy(metric: Callable[[tuple[float, ...]], float], steps: int, candidates: Sequence[float]) -> Found:
    """Return good times for a sampler with that many steps, from an increasing list of candidates such as a Karras grid.

    The sampler starts at the last candidate. The other times are inserted one by one (Song et al. 2023, section 3): for each
    new one every gap between the times so far, and the one below them, is searched by `ternary`, and the best is kept.
    Times found earlier stay as they are. The metric is evaluated once for any times.
    """
    check_function("The metric", metric)
    check_kind("steps", steps, int)
    if steps < 1:
        raise ValueError(f"Sampling needs at least one step, got {steps}.")
    candidates = numbers("candidates", candidates)
    if len(candidates) < steps:
        raise ValueError(f"A sampler with {steps} steps needs as many candidate times, got {len(candidates)}.")
    if any(not a < b for a, b in pairwise(candidates)) or not all(map(math.isfinite, candidates)):
        raise ValueError(f"The candidate times must increase and be finite, got {list(candidates)}.")

    @cache
    def value(chosen: tuple[int, ...]) -> float:
        times = tuple(float(candidates[i]) for i in chosen)
        return _number(metric(times), times)

    chosen: tuple[int, ...] = (len(candidates) - 1,)  # indices, decreasing
    for _ in range(steps - 1):
        gaps = [(low + 1, high - 1) for high, low in zip(chosen, (*chosen[1:], -1), strict=True)]
        chosen = min((_best_with_one_more(value, chosen, *gap) for gap in gaps if gap[0] <= gap[1]), key=value)
    return Found(tuple(float(candidates[i]) for i in chosen), value(chosen))


def _best_with_one_more(
    value: Callable[[tuple[int, ...]], float], chosen: tuple[int, ...], low: int, high: int
) -> tuple[int, ...]:
    """The times with the best new one in [low, high], a gap between those there are."""
    place = bisect_left([-i for i in chosen], -low)

    def inserted(i: int) -> tuple[int, ...]:
        return (*chosen[:place], i, *chosen[place:])

    return inserted(ternary(lambda i: value(inserted(i)), low, high))


def _number(value: float, where: object) -> float:
    try:
        value = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"The metric must return a number, got {value!r} at {where}.") from None
    if math.isnan(value):
        raise ValueError(f"The metric is not a number at {where}, so the best times cannot be searched for.")
    return value
