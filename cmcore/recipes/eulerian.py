"""Flow maps by the Eulerian identity: the end of a jump must not move as its start moves along the ODE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from cmcore import grids, tangents
from cmcore._arrays import per_sample, sum_samples
from cmcore.backend import Array, namespace, stop_gradient
from cmcore.ema import Average
from cmcore.flow_maps import AverageVelocity
from cmcore.grids import TimePair
from cmcore.optimization import Optimizer
from cmcore.options import DEVIATION, FINITE, NOT_NEGATIVE, POSITIVE, PROPER_SHARE, SHARE, option
from cmcore.recipes import given
from cmcore.recipes.guidance import check_interval, drop_labels, interval_end, no_class, within
from cmcore.recipes.part import Part, tangent_warmup
from cmcore.recipes.recipe import Batch, Nets
from cmcore.recipes.straight import PATH, StraightFlowMap
from cmcore.recipes.teacher import Distils, velocity_on


def two_times(draws: Mapping[str, Array], mean: float, std: float) -> tuple[Array, Array]:
    """Return the larger and the smaller of two logit-normal times."""
    a, b = (grids.logistic_time(draws[name], mean, std) for name in ("t", "s"))
    return namespace(a).maximum(a, b), namespace(a).minimum(a, b)


@dataclass(frozen=True)
class SelfGuided(Part):
    """Guidance that is learned: a sample's velocity is guided by the network's own (Geng et al. 2025, equation 21).

    ``guidance`` and ``guidance_mix`` are the paper's omega and kappa; classes are hidden from a share of the samples.
    """

    guidance: float = option(1.0, "omega of the guided velocity; 1 is none", NOT_NEGATIVE)
    guidance_mix: float = option(0.0, "kappa of the guided velocity", FINITE)
    guidance_low: float = interval_end("guidance acts at times above this")
    guidance_high: float = interval_end("guidance acts at times up to this; 0: no bound")
    label_dropout: float = option(0.1, "share of samples whose class is hidden", SHARE)

    def check(self) -> None:
        """Raise `ValueError` for guidance by a network that is never trained without a class, or at no time."""
        check_interval(self.guidance_low, self.guidance_high)
        if self.guidance + self.guidance_mix != 1.0 and not self.label_dropout:
            raise ValueError(
                f"Guidance of {self.guidance}, mixed with {self.guidance_mix}, asks the network for its output without a "
                "class, so it must be trained without one at times: label_dropout must be above 0."
            )

    def hidden(self, batch: Batch) -> Array:
        """Return whose class is hidden, (B,) bool."""
        return batch.draws["hidden"] < self.label_dropout

    def cond(self, batch: Batch) -> Mapping[str, Array]:
        """Return what the network is conditioned on, with no class where it is hidden."""
        return drop_labels(batch.cond, self.hidden(batch))

    def guided(self, flow_map: AverageVelocity, batch: Batch, x_t: Array, t: Array) -> Array:
        """Return the sample's velocity, guided where asked for and its class is not hidden."""
        v, omega, kappa = batch.z - batch.x0, self.guidance, self.guidance_mix
        if (omega, kappa) == (1.0, 0.0) or "label" not in batch.cond:
            return v
        conditional = flow_map.velocity(x_t, t, t, **batch.cond)
        plain = flow_map.velocity(x_t, t, t, **{**batch.cond, "label": no_class(batch.cond["label"])})
        guided = omega * v + kappa * conditional + (1.0 - omega - kappa) * plain
        guided = within(self.guidance_low, self.guidance_high, t, guided, v)
        return stop_gradient(namespace(v).where(per_sample(self.hidden(batch), v), v, guided))


@dataclass(frozen=True)
class Intervals(Part):
    """Logit-normal times; a share ``diagonal`` of the samples has s = t, where the target is the sample's velocity (flow matching)."""

    mean: float = option(-2.0, "mean of the times' logit", FINITE)
    std: float = option(2.0, "standard deviation of the times' logit", DEVIATION)
    diagonal: float = option(0.25, "share of samples that are flow matching, s = t", SHARE)

    def pair(self, draws: Mapping[str, Array], scalars: Mapping[str, Array]) -> TimePair:
        """Draw two logit-normal times, the larger t, or the larger alone."""
        t, s = two_times(draws, self.mean, self.std)
        s = namespace(t).where(draws["diagonal"] < 1.0 - self.diagonal, s, t)
        return TimePair(t, s, t - s)


@dataclass(frozen=True)
class Adaptive(Part):
    """A squared error is divided by its own ``(. + c)^power``, which biases what is learned where the output is uncertain.

    ``power = 0`` does not.
    """

    power: float = option(0.75, "p of the adaptive weight 1 / (|error|^2 + c)^p", NOT_NEGATIVE)
    c: float = option(1e-3, "c of the adaptive weight", POSITIVE)

    def adapted(self, error: Array) -> Array:
        """Return the weighted squared error of each sample, (B,)."""
        squared = sum_samples(error**2)
        return squared / stop_gradient(squared + self.c) ** self.power


def average_velocity_error(
    flow_map: AverageVelocity, x: Array, times: TimePair, v: Array, direction: Array, cond: Mapping[str, Array]
) -> Array:
    """Return ``u - stopgrad(v - (t - s) du/dt)``, shaped like x, the derivative taken along dx/dt = ``direction``."""
    u, along = tangents.exact(
        lambda x, t: flow_map.velocity(x, t, times.r, **cond),
        (x, times.t),
        (direction, namespace(times.t).ones_like(times.t)),
    )
    return u - stop_gradient(v - per_sample(times.gap, x) * along)


@final
@dataclass(frozen=True)
class MeanFlow(Intervals, Adaptive, SelfGuided, StraightFlowMap):
    """MeanFlow: the average velocity's own identity ``u = v - (t - s) du/dt``, from data alone."""

    optimizer: Optimizer = Optimizer("adam", lr=6e-4, betas=(0.9, 0.999))
    average: Average = Average(0.9999)

    name = "meanflow"
    summary = "Average velocities with a Jacobian-vector product: one step from scratch, deterministic with more."
    citation = "geng2025"
    draws = {"t": "normal", "s": "normal", "diagonal": "uniform", "hidden": "uniform"}
    needs_jvp = True

    def per_sample(self, nets: Nets, batch: Batch, times: TimePair) -> Array:
        """Return the adaptively weighted squared error of the identity, along the sample's velocity."""
        x_t, flow_map = PATH.perturb(batch.x0, batch.z, times.t), self.function(given.network(nets, "online"))
        v, cond = self.guided(flow_map, batch, x_t, times.t), self.cond(batch)
        return self.adapted(average_velocity_error(flow_map, x_t, times, v, v, cond))


@final
@dataclass(frozen=True)
class ImprovedMeanFlow(Intervals, Adaptive, SelfGuided, StraightFlowMap):
    """iMF: the derivative is taken along the network's own velocity, so that the target is a plain regression's."""

    optimizer: Optimizer = Optimizer("adam", lr=6e-4, betas=(0.9, 0.999))
    average: Average = Average(0.9999)

    name = "imf"
    summary = "meanflow with a steadier target; prefer it to meanflow."
    citation = "geng2025imf"
    draws = {"t": "normal", "s": "normal", "diagonal": "uniform", "hidden": "uniform"}
    needs_jvp = True

    def per_sample(self, nets: Nets, batch: Batch, times: TimePair) -> Array:
        """Return the adaptively weighted squared error of the identity, along the network's velocity."""
        x_t, flow_map = PATH.perturb(batch.x0, batch.z, times.t), self.function(given.network(nets, "online"))
        v, cond = self.guided(flow_map, batch, x_t, times.t), self.cond(batch)
        own = stop_gradient(flow_map.velocity(x_t, times.t, times.t, **cond))
        return self.adapted(average_velocity_error(flow_map, x_t, times, v, own, cond))


@dataclass(frozen=True)
class Shrinking(Part):
    """A share of each interval that shrinks exponentially in the run, from ``first`` to ``last``."""

    first: float = option(0.1, "share of the interval from t to l at the start of the run", PROPER_SHARE)
    last: float = option(0.002, "the same at its end", PROPER_SHARE)

    def curriculum(self, step: int, total: int) -> dict[str, float]:
        """Return the share at a step."""
        return {"share": self.first * (self.last / self.first) ** min(1.0, step / total)}


@final
@dataclass(frozen=True)
class SolutionFlow(Intervals, Shrinking, Adaptive, SelfGuided, StraightFlowMap):
    """SoFlow: MeanFlow's identity by a difference, between t and a time l that nears t in the run; no derivative.

    The solution ``f(x_t, t, s)`` must be that of ``f(x_l, l, s)``, where ``x_l = x_t - (t - l) v`` by the sample's velocity v. Both are
    of the average velocity u, so with ``r = (t - l) / (t - s)`` the error over t - s is ``u(x_t, t, s) - r v - (1 - r) u(x_l, l, s)``.
    """

    power: float = 0.5
    c: float = 1e-2
    optimizer: Optimizer = Optimizer("adamw", lr=1e-4, betas=(0.9, 0.99))
    average: Average = Average(0.9999)

    name = "soflow"
    summary = "meanflow without its derivative: forward evaluations only, where Jacobian-vector products are dear."
    citation = "luo2025"
    draws = {"t": "normal", "s": "normal", "diagonal": "uniform", "hidden": "uniform"}

    def per_sample(self, nets: Nets, batch: Batch, times: TimePair) -> Array:
        """Return the adaptively weighted squared error, times 1 / r (Luo et al. 2025, section 3)."""
        x_t, cond = PATH.perturb(batch.x0, batch.z, times.t), self.cond(batch)
        online, target = (self.function(given.network(nets, name)) for name in ("online", "target"))
        v = self.guided(online, batch, x_t, times.t)
        r = namespace(times.t).where(times.gap > 0, given.scalar(batch.scalars, "share") + 0.0 * times.t, 1.0)
        step, share = r * times.gap, per_sample(r, x_t)
        later = target.velocity(x_t - per_sample(step, x_t) * v, times.t - step, times.r, **cond)
        goal = share * v + (1.0 - share) * later
        return r * self.adapted((online.velocity(x_t, times.t, times.r, **cond) - stop_gradient(goal)) / share)


@final
@dataclass(frozen=True)
class AlignYourFlow(Distils, StraightFlowMap):
    """AYF, Eulerian form: the end of a jump must not move as its start moves along the teacher's ODE.

    The network's average velocity F moves along ``v - F + r (s - t) dF/dt``, normalised; r rises to ``warmup_max``.
    Times are logit-normal.
    """

    mean: float = option(0.0, "mean of the times' logit", FINITE)
    std: float = option(1.0, "standard deviation of the times' logit", DEVIATION)
    normalize: float = option(0.1, "c of the tangent's normalisation g / (|g| + c); inf: none", POSITIVE)
    tangent_warmup: int = option(10_000, "steps over which the tangent's unstable part comes in", NOT_NEGATIVE)
    warmup_max: float = option(0.99, "the share of it that it reaches", SHARE)
    difference: float = option(0.0, "step of a central difference instead of a JVP; 0: the JVP", NOT_NEGATIVE)
    optimizer: Optimizer = Optimizer("radam", lr=1e-4)
    average: Average = Average(0.9999)

    name = "ayf"
    summary = "A flow map distilled from a teacher: stays good with more steps, where consistency models fall back."
    citation = "sabour2025"
    draws = {"t": "normal", "s": "normal"}
    needs_jvp = True

    def curriculum(self, step: int, total: int) -> dict[str, float]:
        """Return the share of the tangent's unstable part."""
        return tangent_warmup(step, self.tangent_warmup, self.warmup_max)

    def pair(self, draws: Mapping[str, Array], scalars: Mapping[str, Array]) -> TimePair:
        """Draw two logit-normal times, the larger t."""
        t, s = two_times(draws, self.mean, self.std)
        return TimePair(t, s, t - s)

    def per_sample(self, nets: Nets, batch: Batch, times: TimePair) -> Array:
        """Return the loss that moves F along the tangent."""
        x_t, flow_map = PATH.perturb(batch.x0, batch.z, times.t), self.function(given.network(nets, "online"))
        v = velocity_on(PATH, self.denoiser(nets, batch), x_t, times.t)
        u, along = tangents.derivative(self.difference)(
            lambda x, t: flow_map.velocity(x, t, times.r, **batch.cond),
            (x_t, times.t),
            (v, namespace(times.t).ones_like(times.t)),
        )
        g = v - u - per_sample(given.scalar(batch.scalars, "tangent_warmup") * times.gap, x_t) * along
        return tangents.loss_along(u, tangents.normalized(stop_gradient(g), self.normalize))
