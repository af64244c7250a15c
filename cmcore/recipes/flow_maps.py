"""Flow maps by differentiation: the end of the way must not move as its start moves along the ODE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cmcore import grids, tangents
from cmcore._arrays import per_sample, sum_samples
from cmcore.backend import Array, namespace, stop_gradient
from cmcore.ema import Average
from cmcore.flow_maps import AverageVelocity
from cmcore.grids import TimePair
from cmcore.optimization import Optimizer
from cmcore.options import DEVIATION, FINITE, NOT_NEGATIVE, POSITIVE, SHARE, option
from cmcore.recipes import given
from cmcore.recipes.guidance import drop_labels, no_class
from cmcore.recipes.recipe import Batch, Nets
from cmcore.recipes.straight import PATH, StraightFlowMap
from cmcore.recipes.teacher import Distils, velocity_on


@dataclass(frozen=True)
class MeanFlow(StraightFlowMap):
    """MeanFlow: the mean velocity's own identity ``u = v - (t - s) du/dt``, from data alone.

    Times are logit-normal; a share ``different`` of the samples has s != t. The loss ``|u - target|^2`` is divided by
    its own ``(. + c)^power``, which biases what is learned where the answer is uncertain; ``power = 0`` does not.
    ``guidance`` and ``guidance_mix`` are the paper's omega and kappa.
    """

    mean: float = option(-2.0, "mean of the times' logit", FINITE)
    std: float = option(2.0, "standard deviation of the times' logit", DEVIATION)
    different: float = option(0.75, "share of samples with r below t", SHARE)
    power: float = option(0.75, "p of the adaptive weight 1 / (|error|^2 + c)^p", NOT_NEGATIVE)
    c: float = option(1e-3, "c of the adaptive weight", POSITIVE)
    guidance: float = option(1.0, "omega of the guided velocity; 1 is none", NOT_NEGATIVE)
    guidance_mix: float = option(0.0, "kappa of the guided velocity", FINITE)
    label_dropout: float = option(0.1, "share of samples whose class is hidden", SHARE)
    optimizer: Optimizer = Optimizer("adam", lr=6e-4, betas=(0.9, 0.999))
    average: Average = Average(0.9999)

    name = "meanflow"
    summary = "Mean velocities with a Jacobian-vector product: one step from scratch, deterministic with more."
    citation = "geng2025"
    tau = "normal"
    needs_jvp = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.guidance + self.guidance_mix != 1.0 and not self.label_dropout:
            raise ValueError(
                f"Guidance of {self.guidance}, mixed with {self.guidance_mix}, asks the network for its answer without a "
                "class, so it must be trained without one at times: label_dropout must be above 0."
            )

    @property
    def draws(self) -> int:
        """Return 4: two times, whether they differ, whether the class is hidden."""
        return 4

    def pair(self, tau: Array, scalars: Mapping[str, Array]) -> TimePair:
        """Draw two logit-normal times, the larger t, or the larger alone."""
        t, s = _two_times(tau, self.mean, self.std)
        s = namespace(t).where(grids.uniform(tau[:, 2]) < self.different, s, t)
        return TimePair(t, s, t - s)

    def per_sample(self, nets: Nets, batch: Batch, times: TimePair) -> Array:
        """Return the adaptively weighted squared error of the identity."""
        xp, flow_map = namespace(times.t), self.function(given.network(nets, "online"))
        hidden = grids.uniform(batch.tau[:, 3]) < self.label_dropout
        cond = drop_labels(batch.cond, hidden)
        x_t = PATH.perturb(batch.x0, batch.z, times.t)
        v = self._velocity(flow_map, batch, x_t, times.t, hidden)
        u, along = tangents.exact(
            lambda x, t: flow_map.velocity(x, t, times.r, **cond),
            (x_t, times.t),
            (self._direction(flow_map, x_t, times.t, v, cond), xp.ones_like(times.t)),
        )
        error = u - stop_gradient(v - per_sample(times.gap, x_t) * along)
        squared = sum_samples(error**2)
        return squared / stop_gradient(squared + self.c) ** self.power

    def _velocity(self, flow_map: AverageVelocity, batch: Batch, x_t: Array, t: Array, hidden: Array) -> Array:
        """Return the sample's velocity, guided where asked for (Geng et al. 2025, eq. 21) and its class is not hidden."""
        v, omega, kappa = batch.z - batch.x0, self.guidance, self.guidance_mix
        if (omega, kappa) == (1.0, 0.0) or "label" not in batch.cond:
            return v
        conditional = flow_map.velocity(x_t, t, t, **batch.cond)
        plain = flow_map.velocity(x_t, t, t, **{**batch.cond, "label": no_class(batch.cond["label"])})
        guided = omega * v + kappa * conditional + (1.0 - omega - kappa) * plain
        return stop_gradient(namespace(v).where(per_sample(hidden, v), v, guided))

    def _direction(self, flow_map: AverageVelocity, x_t: Array, t: Array, v: Array, cond: Mapping[str, Array]) -> Array:
        """Return the dx/dt along which the derivative is taken: here the sample's own."""
        return v


@dataclass(frozen=True)
class ImprovedMeanFlow(MeanFlow):
    """iMF: the derivative is taken along the network's own velocity, so that the target is a plain regression's."""

    name = "imf"
    summary = "meanflow with a steadier target; prefer it to meanflow."
    citation = "geng2025imf"

    def _direction(self, flow_map: AverageVelocity, x_t: Array, t: Array, v: Array, cond: Mapping[str, Array]) -> Array:
        """Return the network's velocity, u(x, t, t)."""
        return stop_gradient(flow_map.velocity(x_t, t, t, **cond))


@dataclass(frozen=True)
class AlignYourFlow(Distils, StraightFlowMap):
    """AYF, Eulerian form: the end of the way must not move as its start moves along the teacher's ODE.

    The network's mean velocity F moves along ``v - F + r (s - t) dF/dt``, normalised; r rises to ``warmup_max``.
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
    tau = "normal"
    needs_jvp = True

    @property
    def draws(self) -> int:
        """Return 2: the two times."""
        return 2

    def curriculum(self, step: int, total: int) -> dict[str, float]:
        """Return the share of the tangent's unstable part."""
        return {"tangent_warmup": min(self.warmup_max, (step + 1) / max(1, self.tangent_warmup))}

    def pair(self, tau: Array, scalars: Mapping[str, Array]) -> TimePair:
        """Draw two logit-normal times, the larger t."""
        t, s = _two_times(tau, self.mean, self.std)
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
        return tangents.toward(u, tangents.normalized(stop_gradient(g), self.normalize))


def _two_times(tau: Array, mean: float, std: float) -> tuple[Array, Array]:
    """Return the larger and the smaller of two logit-normal times."""
    a, b = (grids.logistic_time(tau[:, i], mean, std) for i in (0, 1))
    return namespace(tau).maximum(a, b), namespace(tau).minimum(a, b)
