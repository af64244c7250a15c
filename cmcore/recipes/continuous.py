"""Continuous-time methods: no grid; the derivative of the consistency function along the ODE is driven to zero."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cmcore import grids, sampling, tangents
from cmcore._arrays import mean_samples, per_sample
from cmcore.backend import Array, Network, namespace, stop_gradient
from cmcore.ema import Average
from cmcore.grids import TimePair
from cmcore.losses import ConsistencyFn
from cmcore.optimization import Optimizer
from cmcore.options import DEVIATION, FINITE, NOT_NEGATIVE, POSITIVE, option
from cmcore.parametrization import TrigFlow
from cmcore.paths import VE, rebased
from cmcore.paths import TrigFlow as TrigFlowPath
from cmcore.recipes import given
from cmcore.recipes.recipe import Batch, Nets, Recipe
from cmcore.recipes.teacher import Distils, velocity_on
from cmcore.sampling import Noise


@dataclass(frozen=True)
class _Continuous(Recipe):
    """The limit N to infinity of CD and CT (Song et al. 2023, theorems 3, 5 and 6), for squared l2.

    With ``stop_gradient`` the loss is a pseudo-objective with the gradient of ``2 <f, stopgrad(df/dt)> dt/du``; without,
    it is the true ``|df/dt|^2 (dt/du)^2``, whose gradient goes through the derivative; u is the Karras grid's index.
    """

    stop_gradient: bool = option(True, "no gradient through the tangent")
    difference: float = option(0.0, "step of a central difference instead of a JVP; 0: the JVP", NOT_NEGATIVE)
    optimizer: Optimizer = Optimizer("radam", lr=5e-6)

    citation = "song2023"
    needs_jvp = True
    fixed = ("distance",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.difference >= self.t_min:
            raise ValueError(
                f"difference must be below t_min = {self.t_min}, or it reaches times below 0; got {self.difference}."
            )

    def pair(self, tau: Array, scalars: Mapping[str, Array]) -> TimePair:
        """Draw times uniform in the grid's index; r = t, and the gap is dt/du."""
        t = grids.karras_time(tau, 2, self.t_min, self.t_max)
        return TimePair(t, t, grids.karras_slope(t, self.t_min, self.t_max))

    def per_sample(self, nets: Nets, batch: Batch, times: TimePair) -> Array:
        """Return the loss of the tangent."""
        x_t, f = VE().perturb(batch.x0, batch.z, times.t), self.function(given.network(nets, "online"))
        velocity = self.velocity(nets, batch, x_t, times.t)
        differentiate = tangents.derivative(self.difference)
        one = namespace(times.t).ones_like(times.t)
        out, along = differentiate(lambda x, t: f(x, t, **batch.cond), (x_t, times.t), (velocity, one))
        along = per_sample(times.gap, x_t) * along
        if self.stop_gradient:
            return tangents.toward(out, -stop_gradient(along))
        return mean_samples(along**2)

    @abstractmethod
    def velocity(self, nets: Nets, batch: Batch, x_t: Array, t: Array) -> Array:
        """Return dx/dt at the points."""


@dataclass(frozen=True)
class ContinuousTraining(_Continuous):
    """Continuous-time CT."""

    name = "ct-continuous"
    summary = "The 2023 paper's continuous limit without a teacher; prefer sct unless you are reproducing the paper."

    def velocity(self, nets: Nets, batch: Batch, x_t: Array, t: Array) -> Array:
        """Return z, the unbiased estimate ``(x_t - x_0) / t``."""
        return batch.z


@dataclass(frozen=True)
class ContinuousDistillation(Distils, _Continuous):
    """Continuous-time CD."""

    name = "cd-continuous"
    summary = "The 2023 paper's continuous limit with a teacher; prefer scd unless you are reproducing the paper."

    def velocity(self, nets: Nets, batch: Batch, x_t: Array, t: Array) -> Array:
        """Return the teacher's ``(x - D(x, t)) / t``."""
        return velocity_on(self.path, self.denoiser(nets, batch), x_t, t)


@dataclass(frozen=True)
class StabilizedTraining(Recipe):
    """Simplified, stabilised continuous-time CT (sCT) on the TrigFlow path.

    ``normalize`` is c of the tangent's normalisation ``g / (|g| + c)``, which biases what is learned where the answer is
    uncertain; ``inf`` leaves the tangent as it is. ``tangent_warmup`` is the number of steps over which the unstable part
    of the tangent comes in. ``difference`` replaces the Jacobian-vector product by a central difference of that step.
    ``network="edm"`` takes the network for one of `edm`'s kind, so that it can start from such a run's weights.
    """

    learned_weight: bool = True
    mean: float = option(-1.0, "mean of ln of the noise's standard deviation", FINITE)
    std: float = option(1.4, "its standard deviation", DEVIATION)
    normalize: float = option(0.1, "c of the tangent's normalisation g / (|g| + c); inf: none", POSITIVE)
    tangent_warmup: int = option(10_000, "steps over which the tangent's unstable part comes in", NOT_NEGATIVE)
    difference: float = option(0.0, "step of a central difference instead of a JVP; 0: the JVP", NOT_NEGATIVE)
    network: Literal["trigflow", "edm"] = option(
        "trigflow", "the network's scalings: TrigFlow's, or EDM's for weights of edm", ("trigflow", "edm")
    )
    optimizer: Optimizer = Optimizer("radam", lr=1e-4, betas=(0.9, 0.99))
    average: Average = Average(0.9993)

    name = "sct"
    summary = "Continuous time without a teacher: no discretisation error; best from a score model's weights (--init)."
    citation = "lu2024"
    tau = "normal"
    needs_jvp = True
    fixed = ("distance", "weighting", "t_min")

    def parametrization(self) -> TrigFlow:
        """Return TrigFlow's scalings."""
        return TrigFlow(self.sigma_data, self.network)

    @property
    def family(self) -> str:
        """Return the network's kind."""
        return self.network

    def curriculum(self, step: int, total: int) -> dict[str, float]:
        """Return the share of the tangent's unstable part."""
        return {"tangent_warmup": min(1.0, (step + 1) / max(1, self.tangent_warmup))}

    def pair(self, tau: Array, scalars: Mapping[str, Array]) -> TimePair:
        """Draw ``t = arctan(sigma / sd)`` for log-normal sigma, the path's own times; r = t."""
        t = self.path.time(grids.lognormal_time(tau, self.mean, self.std))
        return TimePair(t, t, namespace(t).ones_like(t))

    def per_sample(self, nets: Nets, batch: Batch, times: TimePair) -> Array:
        """Return the loss that moves F along the tangent."""
        x_t = self.path.perturb(batch.x0, self.sigma_data * batch.z, times.t)
        out, g = tangents.trigflow_tangent(
            self.parametrization().free(given.network(nets, "online")),
            x_t,
            times.t,
            self.velocity(nets, batch, x_t, times.t),
            self.sigma_data,
            given.scalar(batch.scalars, "tangent_warmup"),
            tangents.derivative(self.difference),
            batch.cond,
        )
        return tangents.toward(out, tangents.normalized(g, self.normalize))

    def velocity(self, nets: Nets, batch: Batch, x_t: Array, t: Array) -> Array:
        """Return the unbiased estimate ``cos(t) z - sin(t) x_0``."""
        return self.path.velocity(x_t, t, batch.x0)

    def sample(
        self,
        net: Network,
        z: Array,
        times: Sequence[float],
        noise: Noise,
        cond: Mapping[str, Array] | None = None,
    ) -> Array:
        """Multistep sampling, with times given as standard deviations of noise like those of all recipes."""
        return sampling.multistep(self.consistency(net), z, times, noise, self.arrival, cond=cond)

    def consistency(self, net: Network) -> ConsistencyFn:
        """Return the network as a consistency function on `cmcore.paths.VE`."""
        return rebased(self.function(net), self.path, VE())

    @property
    def arrival(self) -> float:
        """Return 0."""
        return 0.0

    @property
    def path(self) -> TrigFlowPath:
        """The path that the network is trained on."""
        return TrigFlowPath(self.sigma_data)


@dataclass(frozen=True)
class StabilizedDistillation(Distils, StabilizedTraining):
    """Simplified, stabilised continuous-time CD (sCD): the tangent along the teacher's ODE."""

    name = "scd"
    summary = "Continuous time with a teacher: no discretisation error, and no bias from the normalisation."

    def velocity(self, nets: Nets, batch: Batch, x_t: Array, t: Array) -> Array:
        """Return the teacher's velocity on the TrigFlow path."""
        return velocity_on(self.path, self.denoiser(nets, batch), x_t, t)
