"""One-step methods: a step knows nothing but where it starts, ``step(denoiser, x, t, r)``."""

from __future__ import annotations

import math
from collections.abc import Callable

from cmcore._arrays import Time, as_times, check_above_zero, check_same, is_number, per_sample
from cmcore.backend import Array, namespace
from cmcore.paths import Denoiser

Step = Callable[[Denoiser, Array, Time, Time], Array]
"""``step(denoiser, x, t, r)``: the state at time r that a step from (x, t) leads to."""


def euler(denoiser: Denoiser, x: Array, t: Time, r: Time) -> Array:
    """Take one Euler step from time t > 0 to time r: global order 1, one evaluation of the denoiser.

    On this path it is also the DDIM step, and DPM-Solver++'s of first order: x moves on the straight line to D(x, t)
    (Song et al. 2023, equation 6).
    """
    t, r = _ends(t, r, x)
    return x + per_sample(r - t, x) * slope(denoiser, x, t)


def heun(denoiser: Denoiser, x: Array, t: Time, r: Time) -> Array:
    """Take one step of Heun's second-order method from time t > 0 to time r: two evaluations of the denoiser.

    Where r is 0, where the slope is not defined, the step is Euler's (Karras et al. 2022, algorithm 1); if r is the
    plain number 0 the second evaluation is saved.
    """
    if _is_zero(r):
        return euler(denoiser, x, t, r)
    xp, (t, r) = namespace(x), _ends(t, r, x)
    ends_at_zero = r <= 0
    r_slope = xp.where(ends_at_zero, t, r)
    dt = per_sample(r - t, x)
    first = slope(denoiser, x, t)
    second = slope(denoiser, x + dt * first, r_slope)
    return x + dt * xp.where(per_sample(ends_at_zero, x), first, (first + second) / 2.0)


def dpm2(denoiser: Denoiser, x: Array, t: Time, r: Time, rho: float = math.inf) -> Array:
    """Take one midpoint step from time t > 0 to time r: order 2, two evaluations of the denoiser.

    The slope is taken at ``((t^(1/rho) + r^(1/rho)) / 2)^rho``. An infinite rho is the geometric mean, as in k-diffusion's
    ``dpm_2``; ``functools.partial(dpm2, rho=3.0)`` is the step that Song et al. (2023) published as "dpm". Where r is 0
    the geometric mean is no place to take a slope, and the step is Euler's.
    """
    if not rho > 0:
        raise ValueError(f"rho must be positive, got {rho}.")
    if _is_zero(r) and math.isinf(rho):
        return euler(denoiser, x, t, r)
    t, r = _ends(t, r, x)
    middle = _geometric_mean(t, r) if math.isinf(rho) else ((t ** (1 / rho) + r ** (1 / rho)) / 2.0) ** rho
    halfway = x + per_sample(middle - t, x) * slope(denoiser, x, t)
    return x + per_sample(r - t, x) * slope(denoiser, halfway, middle)


def dpmpp_2s(denoiser: Denoiser, x: Array, t: Time, r: Time) -> Array:
    """Take one step of DPM-Solver++(2S) from time t > 0 to time r: order 2, two evaluations of the denoiser.

    It is Euler's step with the denoiser's value halfway in log t (Lu et al. 2022, algorithm 1), and exact where that value
    is constant. Where r is 0, which is infinitely far in log t, the step is Euler's.
    """
    if _is_zero(r):
        return euler(denoiser, x, t, r)
    t, r = _ends(t, r, x)
    middle = _geometric_mean(t, r)
    halfway = x + per_sample(middle - t, x) * slope(denoiser, x, t)
    return x + per_sample(r - t, x) * ((x - denoised(denoiser, halfway, middle)) / per_sample(t, x))


def denoised(denoiser: Denoiser, x: Array, t: Array) -> Array:
    """Return D(x, t), having checked that it looks like x."""
    value = denoiser(x, t)
    check_same(x, value, "x and the denoiser's value")
    return value


def slope(denoiser: Denoiser, x: Array, t: Array) -> Array:
    """Return ``dx/dt = (x - D(x, t)) / t`` for times (B,)."""
    return (x - denoised(denoiser, x, t)) / per_sample(t, x)


def _ends(t: Time, r: Time, x: Array) -> tuple[Array, Array]:
    """The ends of a step as arrays (B,); of numbers it can be seen that the ODE is not defined where the step starts."""
    check_above_zero(t, x, "The slope dx/dt = (x - D) / t, with which a step starts,")
    return as_times(t, x), as_times(r, x, "r")


def _geometric_mean(t: Array, r: Array) -> Array:
    """Sqrt(t r), but t where r is 0: a second evaluation there repeats the first, which leaves Euler's step."""
    xp = namespace(t)
    return xp.where(r > 0, xp.sqrt(t) * xp.sqrt(xp.where(r > 0, r, t)), t)


def _is_zero(t: Time) -> bool:
    return is_number(t) and t == 0
