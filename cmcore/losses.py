"""The losses, per sample: (B,). Noise and times are arguments; nothing here draws a random number or stops at a mean.

x0 and z are (B, ...) of one shape and dtype; times are numbers, arrays () or arrays (B,), and reach functions as (B,), in the units of the path
``x_t = a(t) x_0 + b(t) noise_std z``, by default `VE`. ``cond`` is passed on to the networks by argument name. Networks with
dropout must be given the same mask in both evaluations by way of ``cond``, as `cmcore.TrainSpec` does: unshared masks put
variance of order 1 into a difference that should be small.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from cmcore._annotations import Rule
from cmcore._arrays import as_times, conditions
from cmcore._door import check_arguments
from cmcore.backend import Array, stop_gradient
from cmcore.distances import squared_l2
from cmcore.paths import VE, Path
from cmcore.solvers import heun, solve
from cmcore.types import ConsistencyFn as ConsistencyFn
from cmcore.types import Denoiser, Distance, GivenTime, PerSample, Samples, Step, Time

OnPath = Annotated[Time, lambda path, t: path.check(t)]
Earlier = Annotated[
    GivenTime,
    Rule(lambda t, r: t < 0 or not r > t, "The pair of times must satisfy r <= t, got t = {t} and r = {r}."),
]
"""A time r of at most t."""


def denoising(
    denoiser: ConsistencyFn,
    x0: Samples,
    z: Samples,
    t: OnPath,
    distance: Distance = squared_l2,
    *,
    path: Path = VE(),
    cond: Mapping[str, Array] | None = None,
) -> PerSample:
    """Return ``d(D(x_t, t), x_0)``, (B,): the teacher's loss, whose minimiser for squared l2 is E[x_0 | x_t].

    With the weight `cmcore.weightings.karras` and log-normal times it is EDM's (Karras et al. 2022, equation 8).
    """
    return distance(denoiser(_noisy(path, x0, z, t), t, **conditions(cond)), x0)


def consistency(
    f: ConsistencyFn,
    f_target: ConsistencyFn,
    x0: Samples,
    z: Samples,
    t: GivenTime,
    r: Earlier,
    *,
    denoiser: Denoiser | None = None,
    step: Step = heun,
    distance: Distance = squared_l2,
    path: Path = VE(),
    cond: Mapping[str, Array] | None = None,
) -> PerSample:
    """Return ``d(f(x_t, t), stopgrad f_target(x_r, r))``, (B,), at two points of a path, r < t.

    - Distillation (CD), with a teacher ``denoiser(x, t)`` of this path: x_r is where one ``step`` of its ODE leads from
      x_t (Song et al. 2023, algorithm 2); a(t) must not be 0.
    - Training (CT), without one: x_r has the same x_0 and z, which is an Euler step with the unbiased score estimate,
      on `VE` ``-(x_t - x_0) / t^2`` (algorithm 3).

    ``f_target`` is f itself (no target network) or f with averaged weights; no gradient reaches it either way.
    """
    x_t, cond = _noisy(path, x0, z, t), conditions(cond)
    x_r = _noisy(path, x0, z, r) if denoiser is None else stop_gradient(solve(step, denoiser, x_t, (t, r), path=path))
    # The target comes first: it is done with its memory before f keeps what the backward pass needs.
    goal = stop_gradient(f_target(x_r, as_times(r, x0, "r"), **cond))
    return distance(f(x_t, as_times(t, x0), **cond), goal)


def _noisy(path: Path, x0: Array, z: Array, t: Array) -> Array:
    """The path's point at time t for standard normal z."""
    return path.perturb(x0, z if path.noise_std == 1.0 else path.noise_std * z, t)


check_arguments(__name__)
