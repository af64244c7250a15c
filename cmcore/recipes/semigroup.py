"""Flow maps by composition: the way from t to s is the way to a point between and the way on from there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cmcore import distances
from cmcore._arrays import Time, as_times, per_sample
from cmcore.backend import Array, namespace, stop_gradient
from cmcore.ema import Average
from cmcore.flow_maps import AverageVelocity, average_velocity_by
from cmcore.grids import TimePair
from cmcore.optimization import Optimizer
from cmcore.options import BELOW_ONE, POSITIVE, SHARE, Limit, option
from cmcore.recipes import given
from cmcore.recipes.recipe import Batch, Nets
from cmcore.recipes.straight import PATH, StraightFlowMap
from cmcore.recipes.targets import AveragedTarget


@dataclass(frozen=True)
class ProgressiveSelfDistillation(StraightFlowMap):
    """PSD: the way from t to s is the way to a point between and the way on from there; no Jacobian-vector product.

    Times are uniform. A share ``diagonal`` of the samples has s = t, where the target is the sample's velocity (flow
    matching), which everything else grows from. The point between divides the way in the ratio ``split``; 0 draws it
    uniformly (PSD-U), 0.5 is PSD-M.
    """

    diagonal: float = option(0.75, "share of samples that are flow matching, s = t", SHARE)
    split: float = option(0.5, "where between t and s an interval is divided; 0: anywhere", BELOW_ONE)
    optimizer: Optimizer = Optimizer("radam", lr=1e-3)
    average: Average = Average(0.9999)

    name = "psd"
    summary = "A flow map from data alone with forward evaluations only: cheap everywhere, the natural choice where derivatives are dear."
    citation = "boffi2025"

    @property
    def draws(self) -> int:
        """Return 4: two times, whether they differ, and the point between."""
        return 4

    def pair(self, tau: Array, scalars: Mapping[str, Array]) -> TimePair:
        """Draw two uniform times, the larger t, or the larger alone."""
        xp = namespace(tau)
        t = xp.maximum(tau[:, 0], tau[:, 1])
        s = xp.where(tau[:, 2] < self.diagonal, t, xp.minimum(tau[:, 0], tau[:, 1]))
        return TimePair(t, s, t - s)

    def per_sample(self, nets: Nets, batch: Batch, times: TimePair) -> Array:
        """Return the squared error against the mean velocity of the way by the point between, or the sample's."""
        xp = namespace(batch.x0)
        x_t = PATH.perturb(batch.x0, batch.z, times.t)
        split = 0.0 * times.t + self.split if self.split else batch.tau[:, 3]
        composed = average_velocity_by(self.target(nets), x_t, times, split, batch.cond)
        goal = xp.where(per_sample(times.gap > 0, x_t), self.bounded(composed), batch.z - batch.x0)
        u = self.function(given.network(nets, "online")).velocity(x_t, times.t, times.r, **batch.cond)
        return distances.squared_l2(u, stop_gradient(goal))

    def target(self, nets: Nets) -> AverageVelocity:
        """Return the flow map whose two parts the whole way is learned from."""
        return self.function(given.network(nets, "target"))

    def bounded(self, velocity: Array) -> Array:
        """Return the target's velocity, which some methods keep in bounds."""
        return velocity


@dataclass(frozen=True)
class SplitMeanFlow(ProgressiveSelfDistillation):
    """SplitMeanFlow: PSD's identity as the integral form of MeanFlow's, the point between uniform."""

    split: float = 0.0

    name = "splitmeanflow"
    summary = "psd with a random point between: MeanFlow's aim without its derivative."
    citation = "guo2025"


@dataclass(frozen=True)
class Shortcut(AveragedTarget, ProgressiveSelfDistillation):
    """Shortcut models: ways of length 2^-k, each learned from two of half its length by an averaged target network.

    Seven of eight samples are flow matching; targets are kept within ``bound``, and times are multiples of the way's length,
    one of ``levels``. Halves of the shortest are taken for straight: their velocity is that of flow matching.
    """

    diagonal: float = 0.875
    levels: int = option(
        7,
        "number of times that the unit interval is halved",
        Limit(lambda v: 1 <= v <= 24, "from 1 to 24: float32 knows no shorter ways"),
    )
    bound: float = option(4.0, "bound of the target's values", POSITIVE)
    optimizer: Optimizer = Optimizer("adamw", lr=1e-4, weight_decay=0.1)
    average: Average = Average(0.999)

    name = "shortcut"
    summary = "Dyadic steps, doubled from the finest: simple and robust; more steps help, one step is not its best."
    citation = "frans2025"

    def pair(self, tau: Array, scalars: Mapping[str, Array]) -> TimePair:
        """Draw a length 1, 1/2, ..., 2^(1 - levels) and a multiple of it as t; or, for flow matching, any t."""
        xp = namespace(tau)
        length = 2.0 ** -xp.floor(tau[:, 0] * self.levels)
        t = (1.0 + xp.floor(tau[:, 1] / length)) * length
        diagonal = tau[:, 2] < self.diagonal
        gap = xp.where(diagonal, 0.0 * length, length)
        t = xp.where(diagonal, tau[:, 1], t)
        return TimePair(t, t - gap, gap)

    def target(self, nets: Nets) -> AverageVelocity:
        """Return the averaged network, which is asked for no shorter ways than it learns but those of no length."""
        return _NoShorter(given.network(nets, "target"), 2.0 ** (1 - self.levels))

    def bounded(self, velocity: Array) -> Array:
        """Return the velocity within the bounds."""
        return namespace(velocity).clip(velocity, -self.bound, self.bound)


@dataclass(frozen=True)
class _NoShorter(AverageVelocity):
    """A mean velocity whose network is told that ways shorter than ``shortest`` have no length."""

    shortest: float

    def velocity(self, x: Array, t: Time, s: Time, **cond: Any) -> Array:
        """Return the mean velocity, or the velocity, shaped like x."""
        t, s = as_times(t, x), as_times(s, x, "s")
        return super().velocity(x, t, namespace(t).where(t - s < self.shortest, t, s), **cond)
