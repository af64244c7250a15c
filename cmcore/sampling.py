"""Generating: consistency sampling, flow-map sampling, the ODE, and noise that depends only on the seed and the image.

Times are in the units of the path, by default `VE`, ``x_t = x_0 + t z``; x is (B, ...) and z standard normal. A sampler starts
from the path's noise alone, ``b(t_max) noise_std z``: where a(t_max) is not 0, as on `VE` and `cmcore.paths.VP`, the share of the
data that x holds at t_max is left out. Times are given as numbers and reach the function as an array (B,) of x's dtype, as they do
in losses and solvers. ``cond`` is what the network is conditioned on, by argument name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any

import numpy as np

from cmcore._annotations import Condition, Counts, Function, Rule
from cmcore._arrays import as_times, check_same, conditions, per_sample
from cmcore._door import check_arguments
from cmcore._times import EvaluationTimes, JumpTimes
from cmcore.backend import Array, namespace
from cmcore.flow_maps import FlowMap
from cmcore.grids import T_MAX, T_MIN
from cmcore.options import Limit
from cmcore.paths import VE, Denoiser, Path, PathGiven
from cmcore.solvers import Solver, Step, heun, solve
from cmcore.types import ConsistencyFn, Samples
from cmcore.types import Noise as Noise

StartTime = Annotated[
    float, Rule(lambda t_max: 0 < t_max < math.inf, "Sampling starts at a positive, finite time, got t_max = {t_max}.")
]
LastTime = Annotated[
    float,
    Condition(
        lambda times, t_min: times[-1] >= t_min,
        lambda times, t_min: f"The last of the sampling times must be at least t_min = {t_min}, got {times[-1]}.",
    ),
]
Gamma = Annotated[
    float,
    Rule(lambda gamma: 0 <= gamma <= 1, "gamma must be from 0, no noise, to 1, consistency sampling; got {gamma}."),
]
High = Annotated[
    float,
    Rule(lambda low, high: low < high, "Answers are clipped to [low, high], low below high; got {low} and {high}."),
]
OfSamples = Annotated[ConsistencyFn, Function("The consistency function f", "The consistency function")]
"""A consistency function, whose values are checked to be like x."""
Callback = Callable[[int, Array], None]
"""``callback(i, x)``, called after step i."""


def onestep(
    f: OfSamples,
    z: Samples,
    t_max: StartTime = T_MAX,
    *,
    path: PathGiven = VE(),
    cond: Mapping[str, Array] | None = None,
) -> Samples:
    """Return ``f(b(t_max) noise_std z, t_max)``: one network evaluation turns standard normal z into samples."""
    return f(_start(path, z, t_max), as_times(float(t_max), z), **conditions(cond))


def multistep(
    f: OfSamples,
    z: Samples,
    times: EvaluationTimes,
    noise: Noise,
    t_min: float = T_MIN,
    callback: Callback | None = None,
    *,
    path: PathGiven = VE(),
    cond: Mapping[str, Array] | None = None,
) -> Samples:
    """Return samples after ``len(times)`` network evaluations (Song et al. 2023, algorithm 1).

    ``times`` decrease from t_max; ``times=(80.0,)`` is one step. Between evaluations noise takes the samples back to time t
    by the path's `cmcore.paths.Path.transition` from t_min, on `VE` noise of standard deviation ``sqrt(t^2 - t_min^2)`` (not t: f's output has
    the distribution at t_min, not at 0). ``callback(i, x)`` is called after evaluation i.
    """
    cond = conditions(cond)
    x = f(_start(path, z, times[0]), as_times(times[0], z), **cond)
    if callback is not None:
        callback(0, x)
    for i, t in enumerate(times[1:]):
        x = _back(path, x, t_min, t, noise(i))
        x = f(x, as_times(t, x), **cond)
        if callback is not None:
            callback(i + 1, x)
    return x


def flow_map(
    flow_map: FlowMap,
    z: Samples,
    times: JumpTimes,
    path: PathGiven = VE(),
    callback: Callback | None = None,
    *,
    cond: Mapping[str, Array] | None = None,
) -> Samples:
    """Return samples at the last of the times: one jump, and network evaluation, from each time to the next.

    z is standard normal; the start is the path's noise at ``times[0]``, ``b(t) noise_std z``. The path is by default `VE`,
    which starts as `cmcore.paths.Linear` does. ``callback(i, x)`` is called after jump i.
    """
    cond = conditions(cond)
    x = _noise(path, z, times[0])
    for i, (t, s) in enumerate(pairwise(times)):
        x = flow_map(x, as_times(t, x), as_times(s, x), **cond)
        if callback is not None:
            callback(i, x)
    return x


def gamma(
    flow_map: FlowMap,
    z: Samples,
    times: JumpTimes,
    noise: Noise,
    gamma: Gamma = 0.0,
    t_min: LastTime = T_MIN,
    callback: Callback | None = None,
    *,
    path: PathGiven = VE(),
    cond: Mapping[str, Array] | None = None,
) -> Samples:
    """Return samples at the last of the times by CTM's gamma-sampling (Kim et al. 2024, algorithm 3).

    A jump towards time t' ends below it, at ``s = t_min + sqrt(1 - gamma^2) (t' - t_min)``; noise, on `VE` of standard deviation
    ``sqrt(t'^2 - s^2)``, takes the samples back up. On another path this s is one of noise-to-signal ratios. The last jump goes
    all the way. With gamma = 0 no noise is drawn and this is the function `flow_map`; with gamma = 1, and t_min for the last
    time, it is `multistep`. ``callback(i, x)`` is called after jump i, its noise included.
    """
    cond = conditions(cond)
    x = _start(path, z, times[0])
    last = len(times) - 2
    for i, (t, after) in enumerate(pairwise(times)):
        s = after if i == last else _below(path, after, t_min, gamma)
        x = flow_map(x, as_times(t, x), as_times(s, x), **cond)
        if s < after:
            x = _back(path, x, s, after, noise(i))
        if callback is not None:
            callback(i, x)
    return x


def ode(
    denoiser: Denoiser,
    z: Samples,
    times: JumpTimes,
    method: Step | Solver = heun,
    callback: Callback | None = None,
    *,
    path: PathGiven = VE(),
    cond: Mapping[str, Array] | None = None,
) -> Samples:
    """Return samples at the last of the times: `cmcore.solvers.solve` from the path's noise ``b(t) noise_std z`` at ``times[0]``."""
    given = conditions(cond)
    return solve(method, lambda x, t: denoiser(x, t, **given), _start(path, z, times[0]), times, callback, path)


def _start(path: Path, z: Array, t: float) -> Array:
    """The path's noise at the first time."""
    return float(t) * z if path == VE() else _noise(path, z, t)


def _noise(path: Path, z: Array, t: float) -> Array:
    path.check(t, " to start from")
    return per_sample(path.b(as_times(t, z)) * path.noise_std, z) * z


def _back(path: Path, x: Array, s: float, t: float, fresh: Array) -> Array:
    """The samples taken from the distribution at s to that at t > s by fresh noise."""
    check_same(x, fresh, "The samples and the noise")
    c, std = path.transition(s, t)
    return (x if c == 1.0 else c * x) + std * fresh


def _below(path: Path, t: float, t_min: float, gamma: float) -> float:
    """The time at which a jump of gamma-sampling ends."""
    if gamma == 0:
        return t
    sigma = path.sigma(t)
    below: float = path.time(sigma - (1 - math.sqrt(1 - gamma**2)) * (sigma - path.sigma(t_min)))
    return below


def clipped(f: ConsistencyFn, low: float = -1.0, high: High = 1.0) -> ConsistencyFn:
    """Return a consistency function or denoiser whose values are clipped to [low, high], as published samplers of images do.

    Every sampler and solver takes it in place of f; the times and the conditions are handed on.
    """

    def within(x: Array, *times: Array, **cond: Any) -> Array:
        denoised = f(x, *times, **cond)
        return namespace(denoised).clip(denoised, low, high)

    return within


SEQUENCES = Condition(
    lambda images, shape: isinstance(images, Iterable) and isinstance(shape, Sequence),
    "images must be numbers in a sequence, shape a tuple such as (3, 32, 32), got {images!r} and {shape!r}.",
    TypeError,
)


def seeded_noise(
    seed: Annotated[int, Limit(lambda v: v >= 0, "0 or more")],
    images: Annotated[Iterable[int], SEQUENCES, Counts("The number of an image")],
    shape: Annotated[Sequence[int], Counts("A side of shape")],
    draw: Annotated[int, Limit(lambda v: v >= 0, "a whole number, 0 or more")] = 0,
) -> np.ndarray:
    """Return standard normal noise, (B, *shape) float32 on the host, for the images with the given numbers.

    Image i of a seed gets the same numbers whatever the batch, backend or device: each (seed, i, draw) has its own
    counter-based stream (Philox; Salmon et al. 2011). Draw 0 starts a sample; the noise of a multistep sampler follows.
    """
    streams = (np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, i, draw)))) for i in images)
    noise = [g.standard_normal(tuple(shape), dtype=np.float32) for g in streams]
    return np.stack(noise) if noise else np.zeros((0, *shape), np.float32)


check_arguments(__name__)
