"""Numerical solvers of the probability-flow ODE of the path ``x_t = x_0 + t z``: ``dx/dt = (x - D(x, t)) / t``.

A step takes every sample from its own time t to its own time r (usually r < t; r > t runs the ODE backwards, towards
noise). Times are numbers, arrays () or arrays (B,); the state is (B, ...); results have its shape, dtype and device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from cmcore._arrays import Time, as_times, check_same, check_state, per_sample
from cmcore.backend import Array
from cmcore.paths import Denoiser

Step = Callable[[Denoiser, Array, Time, Time], Array]
"""``step(denoiser, x, t, r)``: the state at time r that a step from (x, t) leads to."""


def euler(denoiser: Denoiser, x: Array, t: Time, r: Time) -> Array:
    """Take one Euler step from time t > 0 to time r: global order 1, one evaluation of the denoiser.

    On this path it is also the DDIM step: x moves on the straight line to D(x, t) (Song et al. 2023, equation 6).
    """
    check_state(x)
    t, r = as_times(t, x), as_times(r, x, "r")
    return x + per_sample(r - t, x) * _slope(denoiser, x, t)


def heun(denoiser: Denoiser, x: Array, t: Time, r: Time) -> Array:
    """Take one step of Heun's second-order method from time t > 0 to time r: two evaluations of the denoiser.

    Where r is 0, where the slope is not defined, the step is Euler's (Karras et al. 2022, algorithm 1); if r is the
    plain number 0 the second evaluation is saved.
    """
    xp = check_state(x)
    if isinstance(r, (int, float)) and r == 0:
        return euler(denoiser, x, t, r)
    t, r = as_times(t, x), as_times(r, x, "r")
    ends_at_zero = r <= 0
    r_slope = xp.where(ends_at_zero, t, r)
    dt = per_sample(r - t, x)
    first = _slope(denoiser, x, t)
    second = _slope(denoiser, x + dt * first, r_slope)
    return x + dt * xp.where(per_sample(ends_at_zero, x), first, (first + second) / 2.0)


def solve(
    step: Step,
    denoiser: Denoiser,
    x: Array,
    times: Sequence[float],
    callback: Callable[[int, Array], None] | None = None,
) -> Array:
    """Follow the ODE from ``times[0]`` through all the times to the last by one step between neighbours.

    With `heun` and the 18-point Karras grid from 80 to 0.002, followed by 0, this is the teacher's sampler with 35
    network evaluations. ``callback(i, x)`` is called after step i.
    """
    if len(times) < 2:
        raise ValueError(f"Solving needs at least two times, the start and the end, got {list(times)}.")
    for i, (t, r) in enumerate(pairwise(times)):
        x = step(denoiser, x, t, r)
        if callback is not None:
            callback(i, x)
    return x


def _slope(denoiser: Denoiser, x: Array, t: Array) -> Array:
    denoised = denoiser(x, t)
    check_same(x, denoised, "x and the denoiser's value")
    return (x - denoised) / per_sample(t, x)
