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
from typing import Any, Literal, NamedTuple

import numpy as np

from cmcore._arrays import check_real, check_same, check_within, from_host, is_number
from cmcore._normal import log_cdf
from cmcore._options import check_kind
from cmcore.backend import Array, namespace

T_MIN, T_MAX, RHO = 0.002, 80.0, 7.0
_ALMOST_GEOMETRIC = 100.0
"""The rho from which on the grid is computed by logarithms."""


class TimePair(NamedTuple):
    """The times of a batch, each (B,): t, the earlier r < t, and t - r computed without cancellation."""

    t: Array
    r: Array
    gap: Array


def check_pair(pair: TimePair, name: str = "pair") -> None:
    """Raise `TypeError` for what is no `TimePair` of arrays, such as the times t alone."""
    if not isinstance(pair, TimePair):
        raise TypeError(f"{name} must be a cmcore.grids.TimePair(t, r, gap), got {type(pair).__name__}.")
    for field, value in pair._asdict().items():
        check_real(value, f"{name}.{field}")


def karras_host(n: int, t_min: float = T_MIN, t_max: float = T_MAX, rho: float = RHO) -> np.ndarray:
    """Return the increasing Karras grid, (n,) float64 on the host, its end points exact (Karras et al. 2022, eq. 5)."""
    check_range(t_min, t_max, rho)
    check_kind("n", n, int)
    _check_points(n)
    grid: np.ndarray = _ramp(np, np.linspace(0.0, 1.0, n), t_min, t_max, rho)
    grid[0], grid[-1] = t_min, t_max
    return grid


def karras(n: int, t_min: float = T_MIN, t_max: float = T_MAX, rho: float = RHO, *, like: Array | None = None) -> Array:
    """Return the increasing Karras grid, (n,), from t_min to t_max.

    It lies beside ``like`` in its dtype, or, without it, on the default backend in float32, as random numbers and networks are.
    """
    return from_host(karras_host(n, t_min, t_max, rho), like)


def karras_time(index: Array, n: Array | float, t_min: float = T_MIN, t_max: float = T_MAX, rho: float = RHO) -> Array:
    """Return the times of the n-point Karras grid at floating-point indices in [0, n - 1], fractional ones included.

    Traceable in ``index`` and ``n`` (a number or an array that broadcasts with index). The end points are exact. Indices
    beyond them are a `ValueError` in a NumPy array, and the end points' in arrays that may be traced.
    """
    check_range(t_min, t_max, rho)
    _check_points(n)
    xp = check_real(index, "index")
    if is_number(n):
        check_within(index, "index", 0, float(n) - 1)
    t = _ramp(xp, index / (n - 1), t_min, t_max, rho)
    t = xp.where(index <= 0, xp.full_like(t, t_min), t)
    return xp.where(index >= n - 1, xp.full_like(t, t_max), t)


def karras_slope(t: Array, t_min: float = T_MIN, t_max: float = T_MAX, rho: float = RHO) -> Array:
    """Return dt/du at times t, where u in [0, 1] is the index divided by n - 1: how fast the grid goes there."""
    check_range(t_min, t_max, rho)
    check_real(t, "t")
    if rho > _ALMOST_GEOMETRIC:
        way = math.log(t_max / t_min)
        return t * way if math.isinf(rho) else rho * t * (t_max / t) ** (1 / rho) * -math.expm1(-way / rho)
    return rho * t ** (1 - 1 / rho) * (t_max ** (1 / rho) - t_min ** (1 / rho))


def karras_midpoint(t: Array, r: Array, rho: float = RHO) -> Array:
    """Return the time half-way between t and r in the index of any Karras grid."""
    xp = check_real(t, "t")
    check_same(t, r, "t and r")
    _check_rho(rho)
    if math.isinf(rho):
        return xp.sqrt(t) * xp.sqrt(r)
    return ((t ** (1 / rho) + r ** (1 / rho)) / 2.0) ** rho


def uniform_pair(u: Array, n: Array | float, t_min: float = T_MIN, t_max: float = T_MAX, rho: float = RHO) -> TimePair:
    """Draw neighbours of the n-point Karras grid, all equally likely (Song et al. 2023, algorithms 2 and 3).

    ``u``, (B,), is uniform in [0, 1); ``n`` may be an array (), so that a curriculum does not recompile. Other u are a
    `ValueError` in a NumPy array; arrays that may be traced are not looked at.
    """
    xp = _check_uniform(u)
    _check_points(n)
    return _neighbours(_below(xp.floor(u * (n - 1)), n), n, t_min, t_max, rho)


def lognormal_index_pmf(n: int, mean: float = -1.1, std: float = 2.0) -> np.ndarray:
    """Return iCT's probability of each interval of the n-point grid, (n - 1,) float64 (Song & Dhariwal 2023, eq. 10).

    It is the log-normal law of t discretised: proportional to erf at the upper end less erf at the lower end of the
    interval, for ``(ln t - mean) / (sqrt(2) std)``.
    """
    _check_law(mean, std)
    z = (np.log(karras_host(n)) - mean) / (math.sqrt(2) * std)
    mass = np.diff([math.erf(v) for v in z])
    return np.asarray(mass / mass.sum())


def lognormal_index_pair(
    u: Array,
    n: Array | float,
    n_max: int,
    mean: float = -1.1,
    std: float = 2.0,
    t_min: float = T_MIN,
    t_max: float = T_MAX,
) -> TimePair:
    """Draw neighbours of the n-point Karras grid with the probabilities of `lognormal_index_pmf`.

    ``u``, (B,), is uniform in [0, 1); ``n`` may be an array (), at most ``n_max``, the size of what is computed.
    """
    xp = _check_uniform(u)
    _check_points(n)
    _check_points(n_max, "n_max")
    if isinstance(n, (int, float)) and n > n_max:
        raise ValueError(f"n must be at most n_max = {n_max}, got n = {n}.")
    _check_law(mean, std)
    index = from_host(np.arange(float(n_max)), like=u)
    z = (xp.log(karras_time(xp.minimum(index, 0.0 * index + (n - 1)), n, t_min, t_max)) - mean) / std
    # The tail beyond, of which the differences keep their digits at both ends of the grid.
    tail = xp.exp(log_cdf(-z))
    reached = (tail[0] - tail) / (tail[0] - tail[-1])
    below = xp.expand_dims(u, axis=1) >= xp.expand_dims(reached[1:], axis=0)
    return _neighbours(_below(xp.sum(xp.astype(below, u.dtype), axis=1), n), n, t_min, t_max, RHO)


def logistic_time(normal: Array, mean: float = 0.0, std: float = 1.0) -> Array:
    """Return ``sigmoid(mean + std * normal)``, in (0, 1): logit-normal times of the straight path (Esser et al. 2024)."""
    _check_law(mean, std)
    return 1.0 / (1.0 + check_real(normal, "normal").exp(-(mean + std * normal)))


def heavy_tailed_time(
    u: Array, t_min: float, t_max: float, mean: float = 0.0, scale: float = 0.2, df: float = 0.01
) -> Array:
    """Return times in [t_min, t_max] whose logarithm follows a Student t law, cut off at the ends (TCM; Lee et al. 2024).

    ``u``, (B,), is uniform in [0, 1); ``df`` are the law's degrees of freedom. The quantiles between the points of a table
    are linear in ln t.
    """
    check_range(t_min, t_max, RHO)
    _check_law(mean, scale, "scale")
    if not 0 < df < math.inf:
        raise ValueError(f"The degrees of freedom df must be positive and finite, got {df}.")
    xp = _check_uniform(u)
    table = from_host(_student_quantiles(math.log(t_min), math.log(t_max), mean, scale, df), like=u)
    distance = xp.abs(xp.expand_dims(u * (_TABLE - 1), axis=1) - from_host(np.arange(float(_TABLE)), like=u))
    hats = xp.maximum(1.0 - distance, xp.zeros_like(distance))
    return xp.exp(xp.sum(hats * table, axis=1))


def lognormal_time(normal: Array, mean: float = -1.2, std: float = 1.2) -> Array:
    """Return ``exp(mean + std * normal)``: EDM's training times for the default values (Karras et al. 2022, table 1)."""
    _check_law(mean, std)
    return check_real(normal, "normal").exp(mean + std * normal)


def ect_pair(
    t: Array, stage: Array | float, q: float = 2.0, k: float = 8.0, b: float = 1.0, min_gap: float = 0.0
) -> TimePair:
    """Return ECT's pair for times t: ``r = max(0, t - gap)``, ``gap = t (1 + k sigmoid(-b t)) / q^(stage + 1)``.

    The gap shrinks by q from stage to stage; at stage 0 most r are 0 and training is denoising (Geng et al. 2024,
    section 3.3). ``k = 0`` is their constant map. Where r is 0 the gap is t. ``min_gap`` bounds ``q^-(stage + 1)`` from
    below, as TCM's first stage does (1 - its ratio limit).
    """
    xp = check_real(t, "t")
    if not (1 < q < math.inf and 0 <= k < math.inf and 0 < b < math.inf and 0 <= min_gap <= 1):
        raise ValueError(
            "ECT's gap needs finite numbers q > 1, k >= 0, b > 0 and min_gap from 0 to 1, "
            f"got q={q}, k={k}, b={b}, min_gap={min_gap}."
        )
    if isinstance(stage, (int, float)) and not 0 <= stage < math.inf:
        raise ValueError(f"stage must be a finite number of at least 0, got {stage}.")
    shrunk = xp.maximum(0.0 * t + q ** (-(stage + 1.0)), xp.full_like(t, min_gap))
    ratio = (1.0 + k / (1.0 + xp.exp(b * t))) * shrunk
    ratio = xp.minimum(ratio, xp.ones_like(ratio))
    return TimePair(t, t * (1.0 - ratio), t * ratio)


@dataclass(frozen=True)
class Fixed:
    """A constant number of grid points and a constant decay of the target network."""

    n: int = 18
    mu: float = 0.0

    def __post_init__(self) -> None:
        check_kind("n", self.n, int)
        _check_points(self.n)
        if not 0 <= self.mu <= 1:
            raise ValueError(f"The target's decay must be in [0, 1], got {self.mu}.")

    def __call__(self, step: int, total: int) -> dict[str, float]:
        """Return N and mu, which do not depend on the step."""
        return {"n": float(self.n), "target_decay": self.mu}


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
    s1: int = 150
    mu0: float = 0.9
    adaptive: bool = True
    convention: Literal["paper", "code"] = "paper"

    def __post_init__(self) -> None:
        check_kind("s0", self.s0, int)
        check_kind("s1", self.s1, int)
        if not 1 <= self.s0 <= self.s1:
            raise ValueError(f"The curriculum needs 1 <= s0 <= s1, got s0={self.s0}, s1={self.s1}.")
        if not 0 <= self.mu0 < 1:
            raise ValueError(f"mu0 must be in [0, 1), got {self.mu0}.")
        if self.convention not in ("paper", "code"):
            raise ValueError(f'The convention must be "paper" or "code", got {self.convention!r}.')

    def __call__(self, step: int, total: int) -> dict[str, float]:
        """Return N(k) and mu(k) at step k of K = total."""
        _check_step(step, total)
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
    s1: int = 1280

    def __post_init__(self) -> None:
        check_kind("s0", self.s0, int)
        check_kind("s1", self.s1, int)
        if not 1 <= self.s0 <= self.s1:
            raise ValueError(f"The curriculum needs 1 <= s0 <= s1, got s0={self.s0}, s1={self.s1}.")

    def __call__(self, step: int, total: int) -> dict[str, float]:
        """Return N(k) at step k of K = total."""
        _check_step(step, total)
        length = max(1, math.floor(total / (math.log2(self.s1 // self.s0) + 1)))
        return {"n": float(min(self.s0 * 2 ** (min(step, total) // length), self.s1) + 1)}


@dataclass(frozen=True)
class Halving:
    """Progressive distillation's curriculum: at equal lengths of training the number of steps is halved, down to one.

    ``n`` is the student's number of steps, first half of ``start``; at each halving the target, which is the teacher, is
    replaced by the student: its decay is 0 at the last step of a stage and 1 at all others (Salimans & Ho 2022, alg. 2).
    """

    start: int = 1024

    def __post_init__(self) -> None:
        check_kind("The teacher's number of steps", self.start, int)
        if self.start < 2 or self.start & (self.start - 1):
            raise ValueError(f"The teacher's number of steps must be a power of 2, at least 2, got {self.start}.")

    def __call__(self, step: int, total: int) -> dict[str, float]:
        """Return N and the target's decay at step k of K = total."""
        _check_step(step, total)
        stages = self.start.bit_length() - 1
        stage = min(stages - 1, step * stages // total)
        last = (step + 1) * stages // total > stage
        return {"n": float(self.start >> (stage + 1)), "target_decay": 0.0 if last else 1.0}


@dataclass(frozen=True)
class Stages:
    """ECT's curriculum: the stage rises by one at equal lengths of training, from 0 to ``stages - 1``."""

    stages: int = 8

    def __post_init__(self) -> None:
        check_kind("The number of stages", self.stages, int)
        if not self.stages >= 1:
            raise ValueError(f"The curriculum needs at least 1 stage, got {self.stages}.")

    def __call__(self, step: int, total: int) -> dict[str, float]:
        """Return the stage at step k of K = total."""
        _check_step(step, total)
        return {"stage": float(min(self.stages - 1, step * self.stages // total))}


def _check_step(step: int, total: int) -> None:
    if not total > 0:
        raise ValueError(f"The total number of training steps must be positive, got {total}.")
    if not step >= 0:
        raise ValueError(f"The number of a training step must be at least 0, got {step}.")


_TABLE = 1025
"""How many quantiles a tabulated law has."""


@cache
def _student_quantiles(low: float, high: float, mean: float, scale: float, df: float) -> np.ndarray:
    x = np.linspace(low, high, 40 * (_TABLE - 1) + 1)
    density = (1 + ((x - mean) / scale) ** 2 / df) ** (-(df + 1) / 2)
    mass = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return np.interp(np.linspace(0, 1, _TABLE), mass / mass[-1], x)


def _check_uniform(u: Array) -> Any:
    xp = check_real(u, "u")
    # 1 is what a number just below it becomes in fewer digits.
    check_within(u, "u", 0, 1)
    return xp


def _neighbours(index: Array, n: Array | float, t_min: float, t_max: float, rho: float) -> TimePair:
    r = karras_time(index, n, t_min, t_max, rho)
    t = karras_time(index + 1, n, t_min, t_max, rho)
    return TimePair(t, r, t - r)


def _below(index: Array, n: Array | float) -> Array:
    # A random number just below 1 becomes 1 when it is cast to fewer digits.
    xp = namespace(index)
    return xp.minimum(index, xp.zeros_like(index) + (n - 2))


def check_range(t_min: float, t_max: float, rho: float = RHO) -> None:
    """Raise `ValueError` unless ``0 < t_min < t_max <= 1e18``, whose square float32 still holds, and rho suits them.

    rho is positive, infinite for a geometric grid, and so large that float32 holds ``t_max ** (1 / rho)``.
    """
    if not 0 < t_min < t_max <= 1e18:
        raise ValueError(f"The times must satisfy 0 < t_min < t_max <= 1e18, got t_min={t_min}, t_max={t_max}.")
    _check_rho(rho)
    if rho < (least := math.log10(t_max) / 37):
        raise ValueError(f"rho must be at least {least:.3g} for times up to {t_max}, whose powers overflow; got {rho}.")


def _check_rho(rho: float) -> None:
    if not rho > 0:
        raise ValueError(f"rho must be positive, got {rho}.")


def _check_points(n: Array | float, name: str = "n") -> None:
    """A grid's number of points, where it is a number: what is traced is not known."""
    if isinstance(n, (int, float)) and not 2 <= n < math.inf:
        raise ValueError(f"A grid needs at least 2 points, and finitely many, got {name} = {n}.")


def _check_law(mean: float, std: float, name: str = "std") -> None:
    if not (math.isfinite(mean) and 0 < std < math.inf):
        raise ValueError(f"mean must be finite, {name} positive and finite, got mean={mean} and {name}={std}.")


def _ramp(xp: Any, u: Any, t_min: float, t_max: float, rho: float) -> Any:
    """The Karras grid at shares u of its index, 0 to 1; for an infinite rho its limit, the geometric grid."""
    if rho <= _ALMOST_GEOMETRIC:
        low, high = t_min ** (1 / rho), t_max ** (1 / rho)
        return (low + u * (high - low)) ** rho
    # The roots of large exponents are near 1, and their differences lose the digits that the power asks for.
    way = math.log(t_max / t_min)
    return t_min * xp.exp(u * way if math.isinf(rho) else rho * xp.log1p(u * math.expm1(way / rho)))
