"""Multistep methods in the sense of numerical analysis: one evaluation a step, and higher order from earlier ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cmcore._arrays import as_times, check_above_zero
from cmcore._options import check_kind
from cmcore.backend import Array
from cmcore.paths import Denoiser
from cmcore.solvers.loop import Memory, Solver, interval
from cmcore.solvers.onestep import denoised, slope


def check_order(order: int) -> None:
    """Raise `TypeError` or `ValueError` for an order that no multistep method has."""
    check_kind("The order", order, int)
    if order < 1:
        raise ValueError(f"The order must be at least 1, got {order}.")


@dataclass(frozen=True)
class DPMpp2M(Solver):
    """DPM-Solver++(2M): order 2 with one evaluation a step (Lu et al. 2022, algorithm 2).

    The denoiser's value is extrapolated to the middle of the step, linearly in log t, from this and the last one. The first
    step and one to time 0 are Euler's. Times must decrease.
    """

    def step(
        self, denoiser: Denoiser, x: Array, times: Sequence[float], i: int, memory: Memory
    ) -> tuple[Array, Memory]:
        """Take step i; the memory is the last value of the denoiser."""
        t, r = interval(times, i)
        check_above_zero(t, x, "The slope with which a step starts")
        now = denoised(denoiser, x, as_times(t, x))
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

    order: int = 4

    def __post_init__(self) -> None:
        check_order(self.order)

    def step(
        self, denoiser: Denoiser, x: Array, times: Sequence[float], i: int, memory: Memory
    ) -> tuple[Array, Memory]:
        """Take step i; the memory holds the last slopes, newest first."""
        t, r = interval(times, i)
        check_above_zero(t, x, "The slope with which a step starts")
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
