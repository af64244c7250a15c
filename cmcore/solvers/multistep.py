"""Linear multistep methods, in the sense of numerical analysis: one evaluation a step, and higher order from earlier ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from cmcore._annotations import Called, Rule
from cmcore._arrays import as_times
from cmcore._door import check_arguments
from cmcore.solvers.loop import Memory, Solver, interval
from cmcore.solvers.onestep import OfPoints, slope
from cmcore.types import Samples

Order = Annotated[
    int, Called("The order"), Rule(lambda order: order >= 1, "The order must be at least 1, got {order}.")
]
"""The order of a multistep method."""


@dataclass(frozen=True)
class DPMpp2M(Solver):
    """DPM-Solver++(2M): order 2 with one evaluation a step (Lu et al. 2022, algorithm 2).

    The denoiser's value is extrapolated to the middle of the step, linearly in log t, from this and the last one. The first
    step and one to time 0 are Euler's. Times must decrease.
    """

    def step(
        self, denoiser: OfPoints, x: Samples, times: Sequence[float], i: int, memory: Memory
    ) -> tuple[Samples, Memory]:
        """Take step i; the memory is the last value of the denoiser."""
        t, r = interval(x, times, i)
        now = denoiser(x, as_times(t, x))
        target = now
        if memory and r > 0:
            (before,) = memory
            target = now + math.log(t / r) / (2 * math.log(float(times[i - 1]) / t)) * (now - before)
        return x + (r - t) / t * (x - target), (now,)


@dataclass(frozen=True)
class LMS(Solver):
    """The linear multistep method (Adams-Bashforth on any grid), with one evaluation a step.

    The slope is interpolated through the last ``order`` points by a polynomial in t, which is integrated exactly. The first
    steps have lower orders, 1, 2, ...: they cost little where the path is nearly straight, as it is at t_max, but they keep
    the error of second order, ``h^2`` for a first step h, where it is not. Times must decrease; the last step
    may end at time 0.
    """

    order: Order = 4

    def step(
        self, denoiser: OfPoints, x: Samples, times: Sequence[float], i: int, memory: Memory
    ) -> tuple[Samples, Memory]:
        """Take step i; the memory holds the last slopes, newest first."""
        t, r = interval(x, times, i)
        slopes = (slope(denoiser, x, as_times(t, x)), *memory)[: self.order]
        # In units of the step, in which the newest point is 0 and the end is 1, the integrals lose no digits.
        points = [(float(times[i - j]) - t) / (r - t) for j in range(len(slopes))]
        for weight, past in zip(_integrals(points), slopes, strict=True):
            x = x + (r - t) * weight * past
        return x, slopes


dpmpp_2m = DPMpp2M()
lms = LMS()


def _integrals(points: Sequence[float]) -> list[float]:
    """The integral over [0, 1] of each Lagrange polynomial."""
    return [sum(c / (power + 1) for power, c in enumerate(polynomial)) for polynomial in lagrange(points)]


def lagrange(points: Sequence[float]) -> Iterator[list[float]]:
    """Yield for each point the polynomial that is 1 there and 0 at the others: its coefficients by rising powers."""
    for j, own in enumerate(points):
        polynomial = [1.0]
        for k, other in enumerate(points):
            if k != j:
                shifted = zip([0.0, *polynomial], [*polynomial, 0.0], strict=True)
                polynomial = [(up - other * same) / (own - other) for up, same in shifted]
        yield polynomial


check_arguments(__name__)
