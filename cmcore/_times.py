"""The times of samplers, as Python's numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

from cmcore._annotations import Converted
from cmcore._options import numbers


def decreasing(times: Sequence[float], t_min: float) -> list[float]:
    """The times as Python's numbers, which leave an array's dtype alone; `ValueError` unless they decrease to above t_min."""
    if not 0 <= t_min < math.inf:
        raise ValueError(f"t_min must be at least 0 and finite, got {t_min}.")
    times = numbers("The sampling times", times)
    if not times:
        raise ValueError("Sampling needs at least one time, the first being t_max.")
    if not all(math.isfinite(t) and t > t_min for t in times):
        raise ValueError(f"The sampling times must be greater than t_min = {t_min}, got {times}.")
    if any(a <= b for a, b in pairwise(times)):
        raise ValueError(f"The sampling times must decrease, got {times}.")
    return times


def jump_times(times: Sequence[float]) -> list[float]:
    """The times that jumps lead from and to, as Python's numbers; `ValueError` unless there are two at least, and they decrease to at least 0."""
    times = numbers("The sampling times", times)
    if len(times) < 2:
        raise ValueError(
            f"Sampling with a flow map needs at least two times, the start and the end, got {list(times)}."
        )
    # Every time but the last is one that a jump starts from.
    starts, end = decreasing(times[:-1], 0.0), float(times[-1])
    if not 0 <= end < starts[-1]:
        raise ValueError(f"The sampling times must decrease to one of at least 0, got {[*starts, end]}.")
    return [*starts, end]


EvaluationTimes = Annotated[Sequence[float], Converted(decreasing)]
"""The times at which a network is evaluated, the formula's as Python's numbers."""
JumpTimes = Annotated[Sequence[float], Converted(jump_times)]
"""The times between which a sampler jumps, the formula's as Python's numbers."""
