"""One-step methods: a step knows nothing but where it starts, ``step(denoiser, x, t, r)``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

from cmcore._annotations import AboveZero, Function
from cmcore._arrays import as_times, is_number, per_sample
from cmcore._door import check_arguments
from cmcore.backend import Array, namespace
from cmcore.options import POSITIVE
from cmcore.types import Denoiser, GivenTime, Samples, Time
from cmcore.types import Step as Step

OfPoints = Annotated[Denoiser, Function("The denoiser", same="x and the denoiser's value")]
"""A denoiser, whose values are checked to be like x."""
Start = Annotated[Time, AboveZero("The slope dx/dt = (x - D) / t, with which a step starts,")]
"""The time at which a step starts, where the ODE is defined."""


def euler(denoiser: OfPoints, x: Samples, t: Start, r: Time) -> Samples:
    """Take one Euler step from time t > 0 to time r: global order 1, one evaluation of the denoiser.

    On this path it is also the DDIM step, and DPM-Solver++'s of first order: x moves on the straight line to D(x, t)
    (Song et al. 2023, equation 6).
    """
    return _euler(denoiser, x, t, r)


def heun(denoiser: OfPoints, x: Samples, t: Start, r: GivenTime) -> Samples:
    """Take one step of Heun's second-order method from time t > 0 to time r: two evaluations of the denoiser.

    Where r is 0, where the slope is not defined, the step is Euler's (Karras et al. 2022, algorithm 1); if r is the
    plain number 0 the second evaluation is saved.
    """
    if _is_zero(r):
        return _euler(denoiser, x, t, as_times(r, x))
    xp, r = namespace(x), as_times(r, x, "r")
    ends_at_zero = r <= 0
    r_slope = xp.where(ends_at_zero, t, r)
    dt = per_sample(r - t, x)
    first = slope(denoiser, x, t)
    second = slope(denoiser, x + dt * first, r_slope)
    return x + dt * xp.where(per_sample(ends_at_zero, x), first, (first + second) / 2.0)


def dpm2(denoiser: OfPoints, x: Samples, t: Start, r: GivenTime, rho: Annotated[float, POSITIVE] = math.inf) -> Samples:
    """Take one midpoint step from time t > 0 to time r: order 2, two evaluations of the denoiser.

    The slope is taken at ``((t^(1/rho) + r^(1/rho)) / 2)^rho``. An infinite rho is the geometric mean, as in k-diffusion's
    ``dpm_2``; ``functools.partial(dpm2, rho=3.0)`` is the step that Song et al. (2023) published as "dpm". Where r is 0
    the geometric mean is no place to take a slope, and the step is Euler's.
    """
    if _is_zero(r) and math.isinf(rho):
        return _euler(denoiser, x, t, as_times(r, x))
    r = as_times(r, x, "r")
    middle = _geometric_mean(t, r) if math.isinf(rho) else ((t ** (1 / rho) + r ** (1 / rho)) / 2.0) ** rho
    halfway = x + per_sample(middle - t, x) * slope(denoiser, x, t)
    return x + per_sample(r - t, x) * slope(denoiser, halfway, middle)


def dpmpp_2s(denoiser: OfPoints, x: Samples, t: Start, r: GivenTime) -> Samples:
    """Take one step of DPM-Solver++(2S) from time t > 0 to time r: order 2, two evaluations of the denoiser.

    It is Euler's step with the denoiser's value halfway in log t (Lu et al. 2022, algorithm 1), and exact where that value
    is constant. Where r is 0, which is infinitely far in log t, the step is Euler's.
    """
    if _is_zero(r):
        return _euler(denoiser, x, t, as_times(r, x))
    r = as_times(r, x, "r")
    middle = _geometric_mean(t, r)
    halfway = x + per_sample(middle - t, x) * slope(denoiser, x, t)
    return x + per_sample(r - t, x) * ((x - denoiser(halfway, middle)) / per_sample(t, x))


def slope(denoiser: Callable[..., Array], x: Array, t: Array) -> Array:
    """Return ``dx/dt = (x - D(x, t)) / t`` for times (B,)."""
    return (x - denoiser(x, t)) / per_sample(t, x)


def _euler(denoiser: Callable[..., Array], x: Array, t: Array, r: Array) -> Array:
    return x + per_sample(r - t, x) * slope(denoiser, x, t)


def _geometric_mean(t: Array, r: Array) -> Array:
    """Sqrt(t r), but t where r is 0: a second evaluation there repeats the first, which leaves Euler's step."""
    xp = namespace(t)
    return xp.where(r > 0, xp.sqrt(t) * xp.sqrt(xp.where(r > 0, r, t)), t)


def _is_zero(t: GivenTime) -> bool:
    return is_number(t) and t == 0


check_arguments(__name__)
