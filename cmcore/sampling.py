"""Generating: one-step and multistep consistency sampling, from noise that depends only on the seed and the image.

Times are in the units of the path ``x_t = x_0 + t z``; x is (B, ...).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from cmcore._arrays import check_same, check_state
from cmcore.backend import Array
from cmcore.grids import T_MAX, T_MIN
from cmcore.losses import ConsistencyFn

Noise = Callable[[int], Array]
"""``noise(i)``: fresh standard normal numbers, shaped like x, for the i-th time that noise is added."""


def onestep(f: ConsistencyFn, z: Array, t_max: float = T_MAX, **cond: Any) -> Array:
    """Return ``f(t_max z, t_max)``: one network evaluation turns standard normal z into samples."""
    check_state(z, "z")
    return f(t_max * z, t_max, **cond)


def multistep(
    f: ConsistencyFn,
    z: Array,
    times: Sequence[float],
    noise: Noise,
    t_min: float = T_MIN,
    callback: Callable[[int, Array], None] | None = None,
    **cond: Any,
) -> Array:
    """Return samples after ``len(times)`` network evaluations (Song et al. 2023, algorithm 1).

    ``times`` decrease from t_max; ``times=(80.0,)`` is one step. Between evaluations noise of standard deviation
    ``sqrt(t^2 - t_min^2)`` takes the samples back to time t (not t: f's output has the law at t_min, not at 0).
    ``callback(i, x)`` is called after evaluation i.
    """
    check_state(z, "z")
    _check_decreasing(times, t_min)
    x = onestep(f, z, times[0], **cond)
    if callback is not None:
        callback(0, x)
    for i, t in enumerate(times[1:]):
        fresh = noise(i)
        check_same(x, fresh, "The samples and the noise")
        x = f(x + math.sqrt(t**2 - t_min**2) * fresh, t, **cond)
        if callback is not None:
            callback(i + 1, x)
    return x


def seeded_noise(seed: int, images: Iterable[int], shape: Sequence[int], draw: int = 0) -> np.ndarray:
    """Return standard normal noise, (B, *shape) float32 on the host, for the images with the given numbers.

    Image i of a seed gets the same numbers whatever the batch, backend or device: each (seed, i, draw) has its own
    counter-based stream (Philox; Salmon et al. 2011). Draw 0 starts a sample; the noise of a multistep sampler follows.
    """
    streams = (np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, i, draw)))) for i in images)
    return np.stack([g.standard_normal(tuple(shape), dtype=np.float32) for g in streams])


def _check_decreasing(times: Sequence[float], t_min: float) -> None:
    if not times:
        raise ValueError("Sampling needs at least one time, the first being t_max.")
    if not all(math.isfinite(t) and t > t_min for t in times):
        raise ValueError(f"The sampling times must be greater than t_min = {t_min}, got {list(times)}.")
    if any(a <= b for a, b in pairwise(times)):
        raise ValueError(f"The sampling times must decrease, got {list(times)}.")
