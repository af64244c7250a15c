"""Exponential integrators of the reverse-time SDE, DPM-Solver++'s: between two times the denoiser is a polynomial in log t.

With ``eta`` = 1 the samples follow the reverse of the SDE that made noise of data, with 0 the ODE, and all between and beyond
have the same distribution at each time. Over a step from t to r, of length ``h = log(t / r)``, with ``k = (1 + eta) h``, the solution is

    x_r = e^-k x_t + k  integral over u in [0, 1] of  e^(-k (1 - u)) D(u) du + r sqrt(1 - e^(-2 eta h)) z

where D(u) is the denoiser's value at the share u of the step, in log t (Lu et al., 2022, arXiv:2211.01095, section 5 and appendix B).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from cmcore._annotations import Rule
from cmcore._arrays import as_times
from cmcore._door import check_arguments
from cmcore.solvers.loop import Memory, Solver, interval
from cmcore.solvers.multistep import Order, lagrange
from cmcore.solvers.onestep import OfPoints
from cmcore.solvers.stochastic import Noise, add_noise
from cmcore.types import Samples

Scale = Annotated[
    float,
    Rule(
        lambda eta, s_noise: 0 <= eta < math.inf and 0 <= s_noise < math.inf,
        "eta and s_noise must be finite numbers of at least 0, got {eta} and {s_noise}.",
    ),
]


@dataclass(frozen=True)
class DPMppMSDE(Solver):
    """DPM-Solver++'s multistep methods for the SDE: ``order`` 2 is 2M SDE, 3 is 3M SDE, with one evaluation a step.

    D(u) is the polynomial through the last ``order`` values of the denoiser, and its integral is exact (of order 2 that is k-diffusion's
    "heun"). The first steps have lower orders; one to time 0 returns the denoiser's value. Times must decrease. ``noise(i)`` is
    asked for at step i where any is added, and has s_noise times the standard deviation that it should.
    """

    noise: Noise
    order: Order = 2
    eta: float = 1.0
    s_noise: Scale = 1.0

    def step(
        self, denoiser: OfPoints, x: Samples, times: Sequence[float], i: int, memory: Memory
    ) -> tuple[Samples, Memory]:
        """Take step i; the memory holds the last values of the denoiser, newest first."""
        t, r = interval(x, times, i)
        values = (denoiser(x, as_times(t, x)), *memory)[: self.order]
        if r == 0:
            return values[0], values
        h = math.log(t / r)
        points = [math.log(t / float(times[i - j])) / h for j in range(len(values))]
        x = math.exp(-(1 + self.eta) * h) * x
        for weight, value in zip(_weights(points, (1 + self.eta) * h), values, strict=True):
            x = x + weight * value
        return add_noise(x, self.s_noise * r * math.sqrt(-math.expm1(-2 * self.eta * h)), self.noise, i), values


@dataclass(frozen=True)
class DPMppSDE(Solver):
    """DPM-Solver++'s single-step method of order 2 for the SDE, with two evaluations a step: the second in its middle, in log t.

    The noise of the two halves is drawn apart, ``noise(2 i)`` and ``noise(2 i + 1)``, and both act on the end, so that the middle and the
    end lie on one path of the SDE. A step to time 0 returns the denoiser's value. Times must decrease.
    """

    noise: Noise
    eta: float = 1.0
    s_noise: Scale = 1.0

    def step(
        self, denoiser: OfPoints, x: Samples, times: Sequence[float], i: int, memory: Memory
    ) -> tuple[Samples, Memory]:
        """Take step i."""
        t, r = interval(x, times, i)
        start = denoiser(x, as_times(t, x))
        if r == 0:
            return start, memory
        h, s = math.log(t / r), math.sqrt(t * r)
        half = math.exp(-(1 + self.eta) * h / 2)
        # What remains of a half's noise, of standard deviation 1 at its end, and what is fresh of it.
        kept, fresh = math.exp(-self.eta * h / 2), self.s_noise * math.sqrt(-math.expm1(-self.eta * h))
        middle = half * x + (1 - half) * start
        shaken = add_noise(middle, s * fresh, self.noise, 2 * i)
        between = denoiser(shaken, as_times(s, x))
        x = half**2 * x + (1 - half**2) * between + (r / s) * kept * (shaken - middle)
        return add_noise(x, r * fresh, self.noise, 2 * i + 1), memory


def _weights(points: Sequence[float], k: float) -> list[float]:
    """The integral over [0, 1] of ``k e^(-k (1 - u))`` times each Lagrange polynomial."""
    moments = [_moment(power, k) for power in range(len(points))]
    return [sum(c * m for c, m in zip(polynomial, moments, strict=True)) for polynomial in lagrange(points)]


def _moment(power: int, k: float) -> float:
    """``k integral e^(-k (1 - u)) u^power du``: a series in k of terms of one sign each, for k up to about 700."""
    # The series of e^(-k) times the sum over n of k^(n + 1) / (n! (n + power + 1)), all of whose terms are positive.
    term, total, n = k, 0.0, 0
    while True:
        added = term / (n + power + 1)
        total += added
        if added <= 1e-17 * total:
            return math.exp(-k) * total
        n += 1
        term *= k / n


check_arguments(__name__)
