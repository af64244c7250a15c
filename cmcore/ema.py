"""Exponential moving averages of the weights: how the decay changes from step to step, and averages made afterwards.

A schedule's ``decay(step)`` is the number beta of ``average <- beta average + (1 - beta) weights`` after the optimiser's step
with that number, counted from 0. Everything here is computed on the host.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from itertools import zip_longest
from typing import NamedTuple, Protocol

import numpy as np

from cmcore._options import check_count, check_kind, numbers
from cmcore.options import option

Weights = Mapping[str, np.ndarray]
"""A network's weights as host arrays by name."""

WIDEST = math.sqrt(1 / 12)
"""The relative width of the average with equal weights (gamma = 0), beyond which there is no power function."""
NARROWEST = 1e-6
"""A width below which an average is its last weights in every digit that matters."""


class Schedule(Protocol):
    """What decides how long a moving average remembers."""

    def decay(self, step: int) -> float:
        """Return the decay after a step, counted from 0."""
        ...


@dataclass(frozen=True)
class Constant:
    """A constant decay; early in a run it is shortened to ``(1 + k) / (10 + k)`` at step k.

    So the average forgets the random initial weights; ``shortened=False`` leaves that out.
    """

    rate: float = 0.999
    shortened: bool = True

    def __post_init__(self) -> None:
        check_kind("The decay of the moving average", self.rate, float)
        if not 0 <= self.rate < 1:
            raise ValueError(f"The decay of the moving average must be in [0, 1), got {self.rate}.")

    def decay(self, step: int) -> float:
        """Return the decay after a step, counted from 0."""
        check_count("The number of a step", step, 0)
        return min(self.rate, (1 + step) / (10 + step)) if self.shortened else self.rate


@dataclass(frozen=True)
class HalfLife:
    """``0.5^(batch / images)``: what was seen ``images`` training images ago counts half (Karras et al. 2022).

    The half-life is at most ``ramp_up`` times the images seen so far, or is constant if ramp_up is None. With a batch of 1
    the unit is the step.
    """

    images: float
    batch: int = 1
    ramp_up: float | None = 0.05

    def __post_init__(self) -> None:
        check_kind("The half-life", self.images, float)
        check_kind("The batch", self.batch, int)
        if not (self.images > 0 and self.batch > 0):
            raise ValueError(f"A half-life and a batch must be positive, got {self.images} and {self.batch}.")
        if self.ramp_up is not None and not self.ramp_up > 0:
            raise ValueError(f"The ramp-up of the half-life must be positive, or None, got {self.ramp_up}.")

    def decay(self, step: int) -> float:
        """Return the decay after a step, counted from 0; 0 at the first one if there is a ramp-up."""
        check_count("The number of a step", step, 0)
        images = self.images if self.ramp_up is None else min(self.images, self.ramp_up * step * self.batch)
        return float(0.5 ** (self.batch / images)) if images else 0.0


@dataclass(frozen=True)
class WarmupPower:
    """``1 - (1 + k / inv_gamma)^-power`` at step k, kept within [low, high]: an average that grows longer with the run.

    A power of 2/3 suits runs of a million steps and more, 3/4 shorter ones; 1 is the mean of all weights so far.
    """

    inv_gamma: float = 1.0
    power: float = 1.0
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not (self.inv_gamma > 0 and self.power > 0):
            raise ValueError(f"inv_gamma and power must be positive, got {self.inv_gamma} and {self.power}.")
        if not 0 <= self.low <= self.high <= 1:
            raise ValueError(f"The bounds of a decay must satisfy 0 <= low <= high <= 1, got {self.low}, {self.high}.")

    def decay(self, step: int) -> float:
        """Return the decay after a step, counted from 0."""
        check_count("The number of a step", step, 0)
        return min(self.high, max(self.low, 1 - math.pow(1 + step / self.inv_gamma, -self.power)))


@dataclass(frozen=True)
class PowerFunction:
    """``(1 - 1/t)^(gamma + 1)`` after t steps (Karras et al. 2024, "Analyzing and improving", section 3.1).

    The weights after step tau of t count in proportion to about ``tau^gamma``, whatever t: the average is always of the same
    relative width, sigma_rel, and the initial weights are forgotten at once. Only such averages can be recombined by
    `reconstruct`.
    """

    gamma: float

    def __post_init__(self) -> None:
        check_kind("The exponent gamma", self.gamma, float)
        if not (self.gamma >= 0 and math.isfinite(self.gamma)):
            raise ValueError(f"The exponent gamma of a power-function average must be at least 0, got {self.gamma}.")

    @classmethod
    def of_width(cls, sigma_rel: float) -> PowerFunction:
        """Return the average whose profile has a standard deviation of sigma_rel times the length of training."""
        return cls(gamma_of(sigma_rel))

    @property
    def sigma_rel(self) -> float:
        """The standard deviation of the profile as a share of the length of training."""
        g = self.gamma
        return math.sqrt((g + 1) / ((g + 2) ** 2 * (g + 3)))

    def decay(self, step: int) -> float:
        """Return the decay after a step, counted from 0; 0 at the first one."""
        check_count("The number of a step", step, 0)
        return float((1 - 1 / (step + 1)) ** (self.gamma + 1))


def gamma_of(sigma_rel: float) -> float:
    """Return the exponent gamma >= 0 whose profile has the relative width sigma_rel, from 1e-6 to 0.2886.

    It is the root of ``g^3 + 7 g^2 + (16 - sigma_rel^-2) g + (12 - sigma_rel^-2)``: 6.94 for 0.1, 16.97 for 0.05.
    """
    check_kind("The relative width of an average", sigma_rel, float)
    if not NARROWEST <= sigma_rel <= WIDEST:
        raise ValueError(
            f"The relative width of an average must be at least {NARROWEST} and at most {WIDEST:.4f}, got {sigma_rel}."
        )
    return _root(sigma_rel)


@cache
def _root(sigma_rel: float) -> float:
    inverse = sigma_rel**-2
    roots = np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse])
    return max(0.0, float(roots.real.max()))


@dataclass(frozen=True)
class Average:
    """Settings of the average of the weights that a run keeps for evaluation.

    It is by default `Constant` of the decay ``ema``. At most one of three numbers above 0 takes its place: ``ema_halflife``, in
    steps, makes it a `HalfLife`; ``ema_power`` a `WarmupPower`; ``ema_std``, a relative width such as 0.05, a `PowerFunction`,
    whose width can still be changed when the run is over.
    """

    ema: float = option(0.999, "the decay of the moving average, in [0, 1)")
    ema_halflife: float = option(0.0, "its half-life in steps, instead")
    ema_power: float = option(0.0, "its power of the step, instead")
    ema_std: float = option(0.0, "its relative width, instead, which can be changed afterwards")

    def __post_init__(self) -> None:
        for setting in fields(self):
            check_kind(f"The average's {setting.name}", getattr(self, setting.name), type(setting.default))
        Constant(self.ema)
        check_one_average([setting.name for setting in fields(self)[1:] if getattr(self, setting.name)])
        self.schedule()

    def schedule(self) -> Schedule:
        """Return the schedule of the average's decay."""
        if self.ema_halflife:
            return HalfLife(self.ema_halflife)
        if self.ema_power:
            return WarmupPower(power=self.ema_power)
        if self.ema_std:
            return PowerFunction.of_width(self.ema_std)
        return Constant(self.ema)

    def scalars(self, step: int) -> dict[str, float]:
        """Return the decay after a step (counted from 0), as a train step reads it."""
        return {"ema_decay": self.schedule().decay(step)}


def check_one_average(given: Iterable[str]) -> None:
    """Raise `ValueError` if more than one of the settings that choose the average is among those given."""
    names = set(given)
    chosen = [setting.name for setting in fields(Average) if setting.name in names]
    if len(chosen) > 1:
        raise ValueError(f"A run keeps one average, so give only one of {' and '.join(chosen)}.")


class Profile(NamedTuple):
    """A power-function average after so many steps."""

    step: int
    gamma: float


class Fit(NamedTuple):
    """How stored averages make up another one: a factor for each, and the relative error (l2) of the profile they give."""

    factors: np.ndarray
    error: float


class Snapshot(NamedTuple):
    """A stored power-function average."""

    profile: Profile
    weights: Weights


def fit(stored: Sequence[Profile], target: Profile) -> Fit:
    """Return the combination of stored averages whose profile is nearest to the target's in the least-squares sense.

    (Karras et al. 2024, "Analyzing and improving", algorithm 3.) Unlike there the factors add up to 1, so that what training
    does not change, such as fixed frequencies, stays as it is. The profiles are those of continuous time; at step t that is
    right up to a relative error of order 1/t.
    """
    if not isinstance(stored, Sequence):
        raise TypeError(f"The stored averages must be given as a list of Profile(step, gamma), got {stored!r}.")
    if not stored:
        raise ValueError("There are no stored averages to combine.")
    for profile in (*stored, target):
        if not isinstance(profile, Profile):
            raise TypeError(f"An average must be described by a Profile(step, gamma), got {profile!r}.")
        if not (1 <= profile.step < math.inf and 0 <= profile.gamma < math.inf):
            raise ValueError(f"An average needs at least one step and an exponent gamma of at least 0, got {profile}.")
    if target.step > (last := max(p.step for p in stored)):
        raise ValueError(f"The average after step {target.step} needs one stored then or later; the last is at {last}.")
    # Profiles of unit length: scales that differ by orders of magnitude would cost the solution its digits.
    lengths = np.array([math.sqrt(_product(p, p)) for p in stored])
    products = np.array([[_product(a, b) for b in stored] for a in stored]) / np.outer(lengths, lengths)
    towards = np.array([_product(a, target) for a in stored]) / lengths
    # The last unknown is the multiplier of the condition that the factors add up to 1.
    sum_of = np.mean(lengths) / lengths
    system = np.block([[products, sum_of[:, None]], [sum_of, np.zeros((1, 1))]])
    factors = np.linalg.lstsq(system, np.append(towards, np.mean(lengths)), rcond=None)[0][:-1]
    whole = _product(target, target)
    missed = whole - 2 * factors @ towards + factors @ products @ factors
    return Fit(factors / lengths, math.sqrt(max(0.0, float(missed)) / whole))


def combine(factors: Sequence[float] | np.ndarray, weights: Iterable[Weights]) -> dict[str, np.ndarray]:
    """Return the sum of factors times weights, added up in float64, in the dtypes of the first; they may be an iterator."""
    factors = numbers("factors", factors)
    if not all(map(math.isfinite, factors)):
        raise ValueError(f"factors must be finite, got {factors}.")
    totals: dict[str, np.ndarray] = {}
    dtypes: dict[str, np.dtype] = {}
    for factor, each in zip_longest(factors, weights):
        if factor is None or each is None:
            raise ValueError(
                "There must be one factor for each of the weights; there are more of one than of the other."
            )
        if not all(isinstance(array, np.ndarray) for array in each.values()):
            raise TypeError(
                "The weights of each average must be NumPy arrays by name, as Trainer.weights returns them."
            )
        if totals and {k: v.shape for k, v in each.items()} != {k: v.shape for k, v in totals.items()}:
            raise ValueError("The stored averages are of different networks: their names or shapes differ.")
        dtypes = dtypes or {name: array.dtype for name, array in each.items()}
        for name, array in each.items():
            totals[name] = totals.get(name, 0.0) + float(factor) * array.astype(np.float64)
    return {name: total.astype(dtypes[name]) for name, total in totals.items()}


def reconstruct(snapshots: Sequence[Snapshot], at: int, sigma_rel: float) -> dict[str, np.ndarray]:
    """Return the weights that an average of relative width sigma_rel would have had after ``at`` steps, nearly.

    The snapshots are of the same run, of one exponent or several. `fit` tells how near the profile comes.
    """
    target = Profile(at, gamma_of(sigma_rel))
    return combine(fit([s.profile for s in snapshots], target).factors, (s.weights for s in snapshots))


def _product(a: Profile, b: Profile) -> float:
    """The integral of two profiles ``(gamma + 1) tau^gamma / t^(gamma + 1)``, each on [0, t]."""
    both = min(a.step, b.step)
    shares = (both / a.step) ** a.gamma * (both / b.step) ** b.gamma
    return float((a.gamma + 1) * (b.gamma + 1) / (a.gamma + b.gamma + 1) * shares / max(a.step, b.step))
