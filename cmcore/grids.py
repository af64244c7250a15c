"""Times: the Karras grid, the curricula that refine it during training, and how the times of a training batch are drawn.

Here t is the standard deviation of the noise on the path ``x_t = x_0 + t z``, from t_min = 0.002 to t_max = 80 unless
said otherwise. N counts grid *points*; indices are 0-based and increase with time, so the paper's t_n is index n - 1.
Whole grids are computed in float64 on the host and cast once. Functions of an index, of N or of random numbers are
traceable: a curriculum that changes N changes a number, not a shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal

import numpy as np

from cmcore._annotations import Called, Rule, Shape, Within
from cmcore._arrays import check_within, from_host, is_number
from cmcore._door import check_arguments
from cmcore._normal import log_cdf
from cmcore.backend import Array, namespace
from cmcore.options import AT_LEAST_ZERO, BELOW_ONE, DEVIATION, POSITIVE, SHARE, Limit
from cmcore.types import Elements, Number, PerSample
from cmcore.types import TimePair as TimePair

T_MIN, T_MAX, RHO = 0.002, 80.0, 7.0
_ALMOST_GEOMETRIC = 100.0
"""The rho from which on the grid is computed by logarithms."""


Last = Annotated[
    float,
    Rule(
        lambda t_min, t_max: 0 < t_min < t_max <= 1e18,
        "The times must satisfy 0 < t_min < t_max <= 1e18, got t_min={t_min}, t_max={t_max}.",
    ),
]
"""The last time of a grid, whose square float32 still holds."""
Rho = Annotated[float, POSITIVE]
"""The power of a Karras grid, infinite for a geometric one."""
RhoOfTimes = Annotated[
    Rho,
    Rule(
        lambda t_max, rho: rho >= math.log10(t_max) / 37,
        lambda t_max, rho: (
            f"rho must be at least {math.log10(t_max) / 37:.3g} for times up to {t_max}, whose powers overflow; got {rho}."
        ),
    ),
]
"""The same, so large that float32 holds ``t_max ** (1 / rho)``."""
_POINTS = Rule(lambda n: 2 <= n < math.inf, "A grid needs at least 2 points, and finitely many, got n = {n}.")
Points = Annotated[int, _POINTS]
"""The number of a grid's points."""
AnyPoints = Annotated[Number, _POINTS]
"""The same, which may be traced."""
Uniform = Annotated[PerSample, Within(0, 1)]
"""Uniform random numbers in [0, 1); 1 is what a number just below it becomes in fewer digits."""
Normal = Elements
"""Standard normal random numbers."""
Deviation = Annotated[
    float,
    Rule(
        lambda mean, std: math.isfinite(mean) and 0 < std < math.inf,
        "mean must be finite, std positive and finite, got mean={mean} and std={std}.",
    ),
]
"""The standard deviation of a distribution, which has a mean."""


def karras_host(n: Points, t_min: float = T_MIN, t_max: Last = T_MAX, rho: RhoOfTimes = RHO) -> np.ndarray:
    """Return the increasing Karras grid, (n,) float64 on the host, its end points exact (Karras et al. 2022, eq. 5)."""
    grid: np.ndarray = _ramp(np, np.linspace(0.0, 1.0, n), t_min, t_max, rho)
    grid[0], grid[-1] = t_min, t_max
    return grid


def karras(
    n: int, t_min: float = T_MIN, t_max: float = T_MAX, rho: float = RHO, *, like: Array | None = None
) -> Annotated[Array, Shape("N")]:
    """Return the increasing Karras grid, (n,), from t_min to t_max.

    It lies beside ``like`` in its dtype, or, without it, on the default backend in float32, as random numbers and networks are.
    """
    return from_host(karras_host(n, t_min, t_max, rho), like)


def karras_time(
    index: Elements,
    n: Annotated[AnyPoints, lambda index, n: _check_index(index, n)],
    t_min: float = T_MIN,
    t_max: Last = T_MAX,
    rho: RhoOfTimes = RHO,
) -> Elements:
    """Return the times of the n-point Karras grid at floating-point indices in [0, n - 1], fractional ones included.

    Traceable in ``index`` and ``n`` (a number or an array that broadcasts with index). The end points are exact. Indices
    beyond them are a `ValueError` in a NumPy array, and the end points' in arrays that may be traced.
    """
    return _karras_time(index, n, t_min, t_max, rho)


def karras_slope(t: Elements, t_min: float = T_MIN, t_max: Last = T_MAX, rho: RhoOfTimes = RHO) -> Elements:
    """Return dt/du at times t, where u in [0, 1] is the index divided by n - 1: how fast the grid goes there."""
    if rho > _ALMOST_GEOMETRIC:
        length = math.log(t_max / t_min)
        return t * length if math.isinf(rho) else rho * t * (t_max / t) ** (1 / rho) * -math.expm1(-length / rho)
    return rho * t ** (1 - 1 / rho) * (t_max ** (1 / rho) - t_min ** (1 / rho))


def karras_midpoint(t: Elements, r: Elements, rho: Rho = RHO) -> Elements:
    """Return the time half-way between t and r in the index of any Karras grid."""
    xp = namespace(t)
    if math.isinf(rho):
        return xp.sqrt(t) * xp.sqrt(r)
    return ((t ** (1 / rho) + r ** (1 / rho)) / 2.0) ** rho


def uniform_pair(
    u: Uniform, n: AnyPoints, t_min: float = T_MIN, t_max: Last = T_MAX, rho: RhoOfTimes = RHO
) -> TimePair:
    """Draw neighbours of the n-point Karras grid, all equally likely (Song et al. 2023, algorithms 2 and 3).

    ``u``, (B,), is uniform in [0, 1); ``n`` may be an array (), so that a curriculum does not recompile. Other u are a
    `ValueError` in a NumPy array; arrays that may be traced are not looked at.
    """
    return _neighbours(_below(namespace(u).floor(u * (n - 1)), n), n, t_min, t_max, rho)


def lognormal_index_pmf(n: Points, mean: float = -1.1, std: Deviation = 2.0) -> np.ndarray:
    """Return iCT's probability of each interval of the n-point grid, (n - 1,) float64 (Song & Dhariwal 2023, eq. 10).

    It is the log-normal distribution of t discretised: proportional to erf at the upper end less erf at the lower end of the
    interval, for ``(ln t - mean) / (sqrt(2) std)``.
    """
    z = (np.log(karras_host(n)) - mean) / (math.sqrt(2) * std)
    mass = np.diff([math.erf(v) for v in z])
    return np.asarray(mass / mass.sum())


MostPoints = Annotated[
    int,
    Rule(
        lambda n_max: 2 <= n_max < math.inf, "A grid needs at least 2 points, and finitely many, got n_max = {n_max}."
    ),
    Rule(lambda n, n_max: n <= n_max, "n must be at most n_max = {n_max}, got n = {n}."),
]


def lognormal_index_pair(
    u: Uniform,
    n: AnyPoints,
    n_max: MostPoints,
    mean: float = -1.1,
    std: Deviation = 2.0,
    t_min: float = T_MIN,
    t_max: Last = T_MAX,
) -> TimePair:
    """Draw neighbours of the n-point Karras grid with the probabilities of `lognormal_index_pmf`.

    ``u``, (B,), is uniform in [0, 1); ``n`` may be an array (), at most ``n_max``, the size of what is computed.
    """
    xp = namespace(u)
    index = from_host(np.arange(float(n_max)), like=u)
    z = (xp.log(_karras_time(xp.minimum(index, 0.0 * index + (n - 1)), n, t_min, t_max, RHO)) - mean) / std
    # The tail beyond, of which the differences keep their digits at both ends of the grid.
    tail = xp.exp(log_cdf(-z))
    reached = (tail[0] - tail) / (tail[0] - tail[-1])
    below = xp.expand_dims(u, axis=1) >= xp.expand_dims(reached[1:], axis=0)
    return _neighbours(_below(xp.sum(xp.astype(below, u.dtype), axis=1), n), n, t_min, t_max, RHO)


def logistic_time(normal: Normal, mean: float = 0.0, std: Deviation = 1.0) -> Elements:
    """Return ``sigmoid(mean + std * normal)``, in (0, 1): logit-normal times of the straight path (Esser et al. 2024)."""
    return 1.0 / (1.0 + namespace(normal).exp(-(mean + std * normal)))


Scale = Annotated[
    float,
    Rule(
        lambda mean, scale: math.isfinite(mean) and 0 < scale < math.inf,
        "mean must be finite, scale positive and finite, got mean={mean} and scale={scale}.",
    ),
]
Freedom = Annotated[float, Called("The degrees of freedom df"), DEVIATION]


def heavy_tailed_time(
    u: Uniform, t_min: float, t_max: Last, mean: float = 0.0, scale: Scale = 0.2, df: Freedom = 0.01
) -> PerSample:
    """Return times in [t_min, t_max] whose logarithm follows a Student t distribution, cut off at the ends (TCM; Lee et al. 2024).

    ``u``, (B,), is uniform in [0, 1); ``df`` are its degrees of freedom. The quantiles between the points of a table
    are linear in ln t.
    """
    xp = namespace(u)
    table = from_host(_student_quantiles(math.log(t_min), math.log(t_max), mean, scale, df), like=u)
    distance = xp.abs(xp.expand_dims(u * (_TABLE - 1), axis=1) - from_host(np.arange(float(_TABLE)), like=u))
    hats = xp.maximum(1.0 - distance, xp.zeros_like(distance))
    return xp.exp(xp.sum(hats * table, axis=1))


def lognormal_time(normal: Normal, mean: float = -1.2, std: Deviation = 1.2) -> Elements:
    """Return ``exp(mean + std * normal)``: EDM's training times for the default values (Karras et al. 2022, table 1)."""
    return namespace(normal).exp(mean + std * normal)


LeastGap = Annotated[
    float,
    Rule(
        lambda q, k, b, min_gap: 1 < q < math.inf and 0 <= k < math.inf and 0 < b < math.inf and 0 <= min_gap <= 1,
        "ECT's gap needs finite numbers q > 1, k >= 0, b > 0 and min_gap from 0 to 1, got q={q}, k={k}, b={b}, min_gap={min_gap}.",
    ),
]
Stage = Annotated[
    Number, Rule(lambda stage: 0 <= stage < math.inf, "stage must be a finite number of at least 0, got {stage}.")
]


def ect_pair(
    t: PerSample, stage: Stage, q: float = 2.0, k: float = 8.0, b: float = 1.0, min_gap: LeastGap = 0.0
) -> TimePair:
    """Return ECT's pair for times t: ``r = max(0, t - gap)``, ``gap = t (1 + k sigmoid(-b t)) / q^(stage + 1)``.

    The gap shrinks by q from stage to stage; at stage 0 most r are 0 and training is denoising (Geng et al. 2024,
    section 3.3). ``k = 0`` is their constant map. Where r is 0 the gap is t. ``min_gap`` bounds ``q^-(stage + 1)`` from
    below, as TCM's first stage does (1 - its ratio limit).
    """
    xp = namespace(t)
    shrunk = xp.maximum(0.0 * t + q ** (-(stage + 1.0)), xp.full_like(t, min_gap))
    ratio = (1.0 + k / (1.0 + xp.exp(b * t))) * shrunk
    ratio = xp.minimum(ratio, xp.ones_like(ratio))
    return TimePair(t, t * (1.0 - ratio), t * ratio)


@dataclass(frozen=True)
class Fixed:
    """A constant number of grid points and a constant decay of the target network."""

    n: Points = 18
    mu: Annotated[float, Called("The target's decay"), Limit(SHARE.holds, "in [0, 1]")] = 0.0

    def __call__(self, step: TrainingStep, total: TrainingSteps) -> dict[str, float]:
        """Return N and mu, which do not depend on the step."""
        return {"n": float(self.n), "target_decay": self.mu}


MostIntervals = Annotated[
    int, Rule(lambda s0, s1: 1 <= s0 <= s1, "The curriculum needs 1 <= s0 <= s1, got s0={s0}, s1={s1}.")
]
TrainingStep = Annotated[int, Called("The number of a training step"), AT_LEAST_ZERO]
TrainingSteps = Annotated[int, Called("The total number of training steps"), POSITIVE]


@dataclass(frozen=True)
class Progressive:
    """The paper's curriculum for CT: N grows with the square root of the step, the target's decay follows it.

    ::

        N(k) = ceil(sqrt(k / K ((s1 + 1)^2 - s0^2) + s0^2) - 1) + 1        mu(k) = exp(s0 ln(mu0) / N(k))

    (Song et al. 2023, appendix C). ``convention="paper"`` is as printed; ``"code"`` is what the authors' programs
    compute, mu(k) with N(k) - 1 in the denominator. ``adaptive=False`` keeps mu at mu0 ("fixed mu"). Beyond the last
    step both stay where they are.
    """

    s0: int = 2
    s1: MostIntervals = 150
    mu0: Annotated[float, Limit(BELOW_ONE.holds, "in [0, 1)")] = 0.9
    adaptive: bool = True
    convention: Literal["paper", "code"] = "paper"

    def __call__(self, step: TrainingStep, total: TrainingSteps) -> dict[str, float]:
        """Return N(k) and mu(k) at step k of K = total."""
        done = min(step, total) / total
        intervals = max(1, math.ceil(math.sqrt(done * ((self.s1 + 1) ** 2 - self.s0**2) + self.s0**2) - 1))
        n = intervals + 1
        denominator = n if self.convention == "paper" else intervals
        mu = self.mu0 ** (self.s0 / denominator) if self.adaptive else self.mu0
        return {"n": float(n), "target_decay": mu}


@dataclass(frozen=True)
class Doubling:
    """iCT's curriculum: s0 intervals, doubled at equal lengths of training up to s1, and no target network.

    ``N(k) = min(s0 2^floor(k / K'), s1) + 1``, ``K' = floor(K / (log2(floor(s1 / s0)) + 1))`` (Song & Dhariwal 2023,
    section 3.4).
    """

    s0: int = 10
    s1: MostIntervals = 1280

    def __call__(self, step: TrainingStep, total: TrainingSteps) -> dict[str, float]:
        """Return N(k) at step k of K = total."""
        length = max(1, math.floor(total / (math.log2(self.s1 // self.s0) + 1)))
        return {"n": float(min(self.s0 * 2 ** (min(step, total) // length), self.s1) + 1)}


POWER_OF_TWO = Limit(lambda v: v >= 2 and not int(v) & (int(v) - 1), "a power of 2, at least 2")


@dataclass(frozen=True)
class Halving:
    """Progressive distillation's curriculum: at equal lengths of training the number of steps is halved, down to one.

    ``n`` is the student's number of steps, first half of ``start``; at each halving the target, which is the teacher, is
    replaced by the student: its decay is 0 at the last step of a stage and 1 at all others (Salimans & Ho 2022, alg. 2).
    """

    start: Annotated[int, Called("The teacher's number of steps"), POWER_OF_TWO] = 1024

    def __call__(self, step: TrainingStep, total: TrainingSteps) -> dict[str, float]:
        """Return N and the target's decay at step k of K = total."""
        stages = self.start.bit_length() - 1
        stage = min(stages - 1, step * stages // total)
        last = (step + 1) * stages // total > stage
        return {"n": float(self.start >> (stage + 1)), "target_decay": 0.0 if last else 1.0}


NumberOfStages = Annotated[
    int,
    Called("The number of stages"),
    Rule(lambda stages: stages >= 1, "The curriculum needs at least 1 stage, got {stages}."),
]


@dataclass(frozen=True)
class Stages:
    """ECT's curriculum: the stage rises by one at equal lengths of training, from 0 to ``stages - 1``."""

    stages: NumberOfStages = 8

    def __call__(self, step: TrainingStep, total: TrainingSteps) -> dict[str, float]:
        """Return the stage at step k of K = total."""
        return {"stage": float(min(self.stages - 1, step * self.stages // total))}


_TABLE = 1025
"""How many quantiles a tabulated distribution has."""


@cache
def _student_quantiles(low: float, high: float, mean: float, scale: float, df: float) -> np.ndarray:
    x = np.linspace(low, high, 40 * (_TABLE - 1) + 1)
    density = (1 + ((x - mean) / scale) ** 2 / df) ** (-(df + 1) / 2)
    mass = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return np.interp(np.linspace(0, 1, _TABLE), mass / mass[-1], x)


def _karras_time(index: Array, n: Number, t_min: float, t_max: float, rho: float) -> Array:
    xp = namespace(index)
    t = _ramp(xp, index / (n - 1), t_min, t_max, rho)
    t = xp.where(index <= 0, xp.full_like(t, t_min), t)
    return xp.where(index >= n - 1, xp.full_like(t, t_max), t)


def _neighbours(index: Array, n: Number, t_min: float, t_max: float, rho: float) -> TimePair:
    r = _karras_time(index, n, t_min, t_max, rho)
    t = _karras_time(index + 1, n, t_min, t_max, rho)
    return TimePair(t, r, t - r)


def _below(index: Array, n: Number) -> Array:
    # A random number just below 1 becomes 1 when it is cast to fewer digits.
    xp = namespace(index)
    return xp.minimum(index, xp.zeros_like(index) + (n - 2))


def check_range(t_min: float, t_max: Last, rho: RhoOfTimes = RHO) -> None:
    """Raise `ValueError` unless ``0 < t_min < t_max <= 1e18``, whose square float32 still holds, and rho suits them.

    rho is positive, infinite for a geometric grid, and so large that float32 holds ``t_max ** (1 / rho)``.
    """


def _check_index(index: Array, n: Number) -> None:
    if is_number(n):
        check_within(index, "index", 0, float(n) - 1)


def _ramp(xp: Any, u: Any, t_min: float, t_max: float, rho: float) -> Any:
    """The Karras grid at shares u of its index, 0 to 1; for an infinite rho its limit, the geometric grid."""
    if rho <= _ALMOST_GEOMETRIC:
        low, high = t_min ** (1 / rho), t_max ** (1 / rho)
        return (low + u * (high - low)) ** rho
    # The roots of large exponents are near 1, and their differences lose the digits that the power asks for.
    length = math.log(t_max / t_min)
    return t_min * xp.exp(u * length if math.isinf(rho) else rho * xp.log1p(u * math.expm1(length / rho)))


check_arguments(__name__)
