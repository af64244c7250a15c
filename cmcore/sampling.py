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
from typing import Any

import numpy as np

from cmcore._arrays import as_times, check_output, check_same, check_state, conditions, per_sample
from cmcore._options import check_count, check_function, check_kind, numbers
from cmcore._times import decreasing
from cmcore.backend import Array, namespace
from cmcore.flow_maps import FlowMap
from cmcore.grids import T_MAX, T_MIN
from cmcore.losses import ConsistencyFn
from cmcore.paths import VE, Denoiser, Path, check_path
from cmcore.solvers import Noise as Noise
from cmcore.solvers import Solver, Step, heun, solve


def onestep(
    f: ConsistencyFn,
    z: Array,
    t_max: float = T_MAX,
    *,
    path: Path = VE(),
    cond: Mapping[str, Array] | None = None,
) -> Array:
    """Return ``f(b(t_max) noise_std z, t_max)``: one network evaluation turns standard normal z into samples."""
    check_state(z, "z")
    check_function("The consistency function f", f)
    check_path(path)
    check_kind("t_max", t_max, float)
    if not 0 < t_max < math.inf:
        raise ValueError(f"Sampling starts at a positive, finite time, got t_max = {t_max}.")
    return check_output(
        f(_start(path, z, t_max), as_times(float(t_max), z), **conditions(cond)), z, "The consistency function"
    )


def multistep(
    f: ConsistencyFn,
    z: Array,
    times: Sequence[float],
    noise: Noise,
    t_min: float = T_MIN,
    callback: Callable[[int, Array], None] | None = None,
    *,
    path: Path = VE(),
    cond: Mapping[str, Array] | None = None,
) -> Array:
    """Return samples after ``len(times)`` network evaluations (Song et al. 2023, algorithm 1).

    ``times`` decrease from t_max; ``times=(80.0,)`` is one step. Between evaluations noise takes the samples back to time t
    by the path's `cmcore.paths.Path.transition` from t_min, on `VE` noise of standard deviation ``sqrt(t^2 - t_min^2)`` (not t: f's output has
    the law at t_min, not at 0). ``callback(i, x)`` is called after evaluation i.
    """
    check_state(z, "z")
    times = decreasing(times, t_min)
    check_function("noise", noise)
    x = onestep(f, z, times[0], path=path, cond=cond)
    if callback is not None:
        callback(0, x)
    for i, t in enumerate(times[1:]):
        x = _back(path, x, t_min, t, noise(i))
        x = check_output(f(x, as_times(t, x), **conditions(cond)), x, "The consistency function")
        if callback is not None:
            callback(i + 1, x)
    return x


def flow_map(
    flow_map: FlowMap,
    z: Array,
    times: Sequence[float],
    path: Path = VE(),
    callback: Callable[[int, Array], None] | None = None,
    *,
    cond: Mapping[str, Array] | None = None,
) -> Array:
    """Return samples at the last of the times: one jump, and network evaluation, from each time to the next.

    z is standard normal; the start is the path's noise at ``times[0]``, ``b(t) noise_std z``. The path is by default `VE`,
    which starts as `cmcore.paths.Linear` does. ``callback(i, x)`` is called after jump i.
    """
    check_state(z, "z")
    times = _way(times)
    check_function("The flow map", flow_map)
    check_path(path)
    x = _noise(path, z, times[0])
    for i, (t, s) in enumerate(pairwise(times)):
        x = check_output(flow_map(x, as_times(t, x), as_times(s, x), **conditions(cond)), x, "The flow map")
        if callback is not None:
            callback(i, x)
    return x


def gamma(
    flow_map: FlowMap,
    z: Array,
    times: Sequence[float],
    noise: Noise,
    gamma: float = 0.0,
    t_min: float = T_MIN,
    callback: Callable[[int, Array], None] | None = None,
    *,
    path: Path = VE(),
    cond: Mapping[str, Array] | None = None,
) -> Array:
    """Return samples at the last of the times by CTM's gamma-sampling (Kim et al. 2024, algorithm 3).

    A jump towards time t' ends below it, at ``s = t_min + sqrt(1 - gamma^2) (t' - t_min)``; noise, on `VE` of standard deviation
    ``sqrt(t'^2 - s^2)``, takes the samples back up. On another path this s is one of noise-to-signal ratios. The last jump goes
    all the way. With gamma = 0 no noise is drawn and this is the function `flow_map`; with gamma = 1, and t_min for the last
    time, it is `multistep`. ``callback(i, x)`` is called after jump i, its noise included.
    """
    check_state(z, "z")
    times = _way(times)
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma must be from 0, no noise, to 1, consistency sampling; got {gamma}.")
    if times[-1] < t_min:
        raise ValueError(f"The last of the sampling times must be at least t_min = {t_min}, got {times[-1]}.")
    check_function("The flow map", flow_map)
    check_function("noise", noise)
    check_path(path)
    x = _start(path, z, times[0])
    last = len(times) - 2
    for i, (t, after) in enumerate(pairwise(times)):
        s = after if i == last else _below(path, after, t_min, gamma)
        x = check_output(flow_map(x, as_times(t, x), as_times(s, x), **conditions(cond)), x, "The flow map")
        if s < after:
            x = _back(path, x, s, after, noise(i))
        if callback is not None:
            callback(i, x)
    return x


def ode(
    denoiser: Denoiser,
    z: Array,
    times: Sequence[float],
    method: Step | Solver = heun,
    callback: Callable[[int, Array], None] | None = None,
    *,
    path: Path = VE(),
    cond: Mapping[str, Array] | None = None,
) -> Array:
    """Return samples at the last of the times: `cmcore.solvers.solve` from the path's noise ``b(t) noise_std z`` at ``times[0]``."""
    check_state(z, "z")
    times = _way(times)
    check_function("The denoiser", denoiser)
    check_path(path)
    given = conditions(cond)
    return solve(method, lambda x, t: denoiser(x, t, **given), _start(path, z, times[0]), times, callback, path)


def _start(path: Path, z: Array, t: float) -> Array:
    """The path's noise at the first time."""
    return float(t) * z if path == VE() else _noise(path, z, t)


def _noise(path: Path, z: Array, t: float) -> Array:
    path.check(t, " to start from")
    return per_sample(path.b(as_times(t, z)) * path.noise_std, z) * z


def _back(path: Path, x: Array, s: float, t: float, fresh: Array) -> Array:
    """The samples taken from the law at s to that at t > s by fresh noise."""
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


def clipped(f: ConsistencyFn, low: float = -1.0, high: float = 1.0) -> ConsistencyFn:
    """Return a consistency function or denoiser whose answers are clipped to [low, high], as published samplers of images do.

    Every sampler and solver takes it in place of f; the times and the conditions are handed on.
    """
    if not low < high:
        raise ValueError(f"Answers are clipped to [low, high], low below high; got {low} and {high}.")

    def answer(x: Array, *times: Array, **cond: Any) -> Array:
        denoised = f(x, *times, **cond)
        return namespace(denoised).clip(denoised, low, high)

    return answer


def seeded_noise(seed: int, images: Iterable[int], shape: Sequence[int], draw: int = 0) -> np.ndarray:
    """Return standard normal noise, (B, *shape) float32 on the host, for the images with the given numbers.

    Image i of a seed gets the same numbers whatever the batch, backend or device: each (seed, i, draw) has its own
    counter-based stream (Philox; Salmon et al. 2011). Draw 0 starts a sample; the noise of a multistep sampler follows.
    """
    check_kind("seed", seed, int)
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, got {seed}.")
    check_count("draw", draw, 0)
    if not isinstance(images, Iterable) or not isinstance(shape, Sequence):
        raise TypeError(
            f"images must be numbers in a sequence, shape a tuple such as (3, 32, 32), got {images!r} and {shape!r}."
        )
    images = list(images)
    for number in images:
        check_count("The number of an image", number, 0)
    for side in shape:
        check_count("A side of shape", side, 0)
    streams = (np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, i, draw)))) for i in images)
    noise = [g.standard_normal(tuple(shape), dtype=np.float32) for g in streams]
    return np.stack(noise) if noise else np.zeros((0, *shape), np.float32)


def _way(times: Sequence[float]) -> list[float]:
    """The times of a way as Python's numbers; `ValueError` unless there are two at least, and they decrease to at least 0."""
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
