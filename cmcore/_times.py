"""The times of samplers, as Python's numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

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
