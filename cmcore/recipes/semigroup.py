"""Flow maps by the semigroup identity: a jump from t to s is a jump to a time between and another on from there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

from cmcore import distances
from cmcore._arrays import as_times, per_sample
from cmcore.backend import Array, namespace, stop_gradient
from cmcore.ema import Average
from cmcore.flow_maps import AverageVelocity, average_velocity_by
from cmcore.grids import TimePair
from cmcore.optimization import Optimizer
from cmcore.options import BELOW_ONE, POSITIVE, Limit, option
from cmcore.recipes import given
from cmcore.recipes.part import AveragedTarget
from cmcore.recipes.recipe import Batch, Nets
from cmcore.recipes.straight import PATH, SelfDistilled, StraightFlowMap
from cmcore.types import Time


@dataclass(frozen=True)
class Divided(SelfDistilled):
    """A jump from t to s is learned from two, by a time that divides the interval in the ratio ``split``; 0 draws it uniformly."""

    split: float = option(0.5, "where between t and s an interval is divided; 0: anywhere", BELOW_ONE)

    def composed(
        self,
        whole: AverageVelocity,
        parts: AverageVelocity,
        batch: Batch,
        times: TimePair,
        bounded: Callable[[Array], Array] = lambda velocity: velocity,
    ) -> Array:
        """Return the squared error against the average velocity of two jumps, or the sample's velocity, (B,)."""
        x_t = PATH.perturb(batch.x0, batch.z, times.t)
        split = 0.0 * times.t + self.split if self.split else batch.draws["split"]
        composed = average_velocity_by(parts, x_t, times, split, batch.cond)
        goal = namespace(x_t).where(per_sample(times.gap > 0, x_t), bounded(composed), batch.z - batch.x0)
        u = whole.velocity(x_t, times.t, times.r, **batch.cond)
        return distances.squared_l2(u, stop_gradient(goal))


@final
@dataclass(frozen=True)
class ProgressiveSelfDistillation(Divided, StraightFlowMap):
    """PSD: a jump from t to s is a jump to a time between and another on from there; no Jacobian-vector product.

    Times are uniform. ``split = 0`` is PSD-U, 0.5 is PSD-M.
    """

    optimizer: Optimizer = Optimizer("radam", lr=1e-3)
    average: Average = Average(0.9999)

    name = "psd"
    summary = "A flow map from data alone with forward evaluations only: cheap everywhere, the natural choice where derivatives are dear."
    citation = "boffi2025"
    draws = {"t": "uniform", "s": "uniform", "diagonal": "uniform", "split": "uniform"}

    def pair(self, draws: Mapping[str, Array], scalars: Mapping[str, Array]) -> TimePair:
        """Draw two uniform times, or one."""
        return self.uniform_times(draws)

    def per_sample(self, nets: Nets, batch: Batch, times: TimePair) -> Array:
        """Return the squared error against two jumps by the time between."""
        online, target = (self.function(given.network(nets, name)) for name in ("online", "target"))
        return self.composed(online, target, batch, times)


@final
@dataclass(frozen=True)
class SplitMeanFlow(Divided, StraightFlowMap):
    """SplitMeanFlow: PSD's identity as the integral form of MeanFlow's, the time between uniform."""

    split: float = 0.0
    optimizer: Optimizer = Optimizer("radam", lr=1e-3)
    average: Average = Average(0.9999)

    name = "splitmeanflow"
    summary = "psd with a random time between: MeanFlow's aim without its derivative."
    citation = "guo2025"
    draws = {"t": "uniform", "s": "uniform", "diagonal": "uniform", "split": "uniform"}

    def pair(self, draws: Mapping[str, Array], scalars: Mapping[str, Array]) -> TimePair:
        """Draw two uniform times, or one."""
        return self.uniform_times(draws)

    def per_sample(self, nets: Nets, batch: Batch, times: TimePair) -> Array:
        """Return the squared error against two jumps by the time between."""
        online, target = (self.function(given.network(nets, name)) for name in ("online", "target"))
        return self.composed(online, target, batch, times)


@final
@dataclass(frozen=True)
class Shortcut(AveragedTarget, Divided, StraightFlowMap):
    """Shortcut models: jumps of length 2^-k, each learned from two of half its length by an averaged target network.

    Seven of eight samples are flow matching; targets are kept within ``bound``, and times are multiples of the jump's length,
    one of ``levels``. Halves of the shortest are taken for straight: their velocity is that of flow matching.
    """

    diagonal: float = 0.875
    levels: int = option(
        7,
        "number of times that the unit interval is halved",
        Limit(lambda v: 1 <= v <= 24, "from 1 to 24: float32 knows no shorter jumps"),
    )
    bound: float = option(4.0, "bound of the target's values", POSITIVE)
    optimizer: Optimizer = Optimizer("adamw", lr=1e-4, weight_decay=0.1)
    average: Average = Average(0.999)

    name = "shortcut"
    summary = "Dyadic steps, doubled from the finest: simple and robust; more steps help, one step is not its best."
    citation = "frans2025"
    draws = {"length": "uniform", "t": "uniform", "diagonal": "uniform", "split": "uniform"}

    def pair(self, draws: Mapping[str, Array], scalars: Mapping[str, Array]) -> TimePair:
        """Draw a length 1, 1/2, ..., 2^(1 - levels) and a multiple of it as t; or, for flow matching, any t."""
        xp = namespace(draws["t"])
        length = 2.0 ** -xp.floor(draws["length"] * self.levels)
        t = (1.0 + xp.floor(draws["t"] / length)) * length
        diagonal = draws["diagonal"] < self.diagonal
        gap = xp.where(diagonal, 0.0 * length, length)
        t = xp.where(diagonal, draws["t"], t)
        return TimePair(t, t - gap, gap)

    def per_sample(self, nets: Nets, batch: Batch, times: TimePair) -> Array:
        """Return the squared error against two halves by the averaged network, which is asked for no shorter jumps than it learns."""
        online = self.function(given.network(nets, "online"))
        target = _ShortestIsStraight(given.network(nets, "target"), 2.0 ** (1 - self.levels))
        return self.composed(online, target, batch, times, self._bounded)

    def _bounded(self, velocity: Array) -> Array:
        return namespace(velocity).clip(velocity, -self.bound, self.bound)


@dataclass(frozen=True)
class _ShortestIsStraight(AverageVelocity):
    """An average velocity whose network is told that jumps shorter than ``shortest`` have no length."""

    shortest: float

    def velocity(self, x: Array, t: Time, s: Time, **cond: Any) -> Array:
        """Return the average velocity, or the velocity, shaped like x."""
        t, s = as_times(t, x), as_times(s, x, "s")
        return super().velocity(x, t, namespace(t).where(t - s < self.shortest, t, s), **cond)
