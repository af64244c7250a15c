"""Stochastic methods: part of the noise is removed more than a step needs and replaced by fresh noise, which is passed in."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

from cmcore._annotations import Rule
from cmcore._arrays import check_same
from cmcore._door import check_arguments
from cmcore.backend import Array
from cmcore.options import Limit
from cmcore.solvers.loop import Memory, Method, Solver, interval
from cmcore.solvers.onestep import OfPoints, euler, heun
from cmcore.types import Noise as Noise
from cmcore.types import Samples

Scale = Annotated[float, Limit(lambda v: 0 <= v < math.inf, "a finite number of at least 0")]
"""What a standard deviation is multiplied by."""
ScaleOfChurn = Annotated[
    float,
    Rule(
        lambda s_churn, s_noise: s_churn >= 0 and 0 <= s_noise < math.inf,
        "s_churn and s_noise must be at least 0, s_noise finite, got {s_churn} and {s_noise}.",
    ),
]
LastChurn = Annotated[
    float,
    Rule(lambda s_tmin, s_tmax: s_tmin <= s_tmax, "s_tmin must be at most s_tmax, got {s_tmin} and {s_tmax}."),
]


@dataclass(frozen=True)
class Ancestral(Solver):
    """Euler's method with ancestral sampling: a step leads below r, and noise takes the samples back up to r.

    The variance of the noise is ``r^2 (t^2 - r^2) / t^2``, DDPM's posterior (Song et al. 2021, section 4); ``eta`` scales its
    standard deviation, and 0 is `euler`. What is added has s_noise times the standard deviation that the step makes room for. Times
    must decrease. ``noise(i)`` is asked for at step i, never for one to time 0.
    """

    noise: Noise
    eta: Scale = 1.0
    s_noise: Scale = 1.0

    def step(
        self, denoiser: OfPoints, x: Samples, times: Sequence[float], i: int, memory: Memory
    ) -> tuple[Samples, Memory]:
        """Take step i."""
        t, r = interval(x, times, i)
        fresh = min(1.0, self.eta * math.sqrt(1 - (r / t) ** 2))
        x = euler(denoiser, x, t, r * math.sqrt(1 - fresh**2))
        return add_noise(x, self.s_noise * r * fresh, self.noise, i), memory


@dataclass(frozen=True)
class Churn(Solver):
    """EDM's stochastic sampler: before each step of a method, by default `heun`, noise is added (Karras et al. 2022, algorithm 2).

    At times in [s_tmin, s_tmax] it takes the samples from t to ``t (1 + gamma)``, gamma being s_churn over the number of steps,
    but at most ``sqrt(2) - 1``. Its standard deviation is s_noise times what that needs. Times must decrease; ``noise(i)`` is
    asked for at step i if any is added there. ``s_churn=0`` is the method, which may be a step or a `Solver` that asks for no noise.
    """

    noise: Noise
    s_churn: float = 40.0
    s_tmin: float = 0.0
    s_tmax: LastChurn = math.inf
    s_noise: ScaleOfChurn = 1.0
    method: Method = heun

    def step(
        self, denoiser: OfPoints, x: Samples, times: Sequence[float], i: int, memory: Memory
    ) -> tuple[Samples, Memory]:
        """Take step i."""
        t, r = interval(x, times, i)
        gamma = min(self.s_churn / (len(times) - 1), math.sqrt(2) - 1) if self.s_tmin <= t <= self.s_tmax else 0.0
        x = add_noise(x, self.s_noise * t * math.sqrt(gamma * (2 + gamma)), self.noise, i)
        if isinstance(self.method, Solver):
            return self.method.step(denoiser, x, [*times[:i], t * (1 + gamma), *times[i + 1 :]], i, memory)
        return self.method(denoiser, x, t * (1 + gamma), r), memory


def add_noise(x: Samples, std: float, noise: Callable[[int], Array], i: int) -> Samples:
    """Return x with noise of a standard deviation; where that is 0 none is drawn."""
    if std == 0:
        return x
    fresh = noise(i)
    check_same(x, fresh, "x and the noise")
    return x + std * fresh


check_arguments(__name__)
