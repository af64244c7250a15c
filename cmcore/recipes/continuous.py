"""Continuous-time methods: no grid; the derivative of the consistency function along the ODE is driven to zero."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, final

from cmcore import grids, sampling, tangents
from cmcore._arrays import mean_samples, per_sample
from cmcore.backend import Array, Network, namespace, stop_gradient
from cmcore.ema import Average
from cmcore.grids import TimePair
from cmcore.losses import ConsistencyFn
from cmcore.optimization import Optimizer
from cmcore.options import DEVIATION, FINITE, NOT_NEGATIVE, POSITIVE, option
from cmcore.parametrization import ConsistencyFunction, TrigFlow
from cmcore.paths import VE, Trigonometric, rebased
from cmcore.recipes import given
from cmcore.recipes.noise_level import GreatestTime, NoiseLevel
from cmcore.recipes.part import IdentityAtLeastTime, Part, Weighted, learned_weight, tangent_warmup
from cmcore.recipes.recipe import Batch, Nets, Recipe
from cmcore.recipes.teacher import Distils, velocity_on
from cmcore.sampling import Noise


@dataclass(frozen=True)
class ContinuousLimit(Part):
    """The limit N to infinity of CD and CT (Song et al. 2023, theorems 3, 5 and 6), for squared l2.

    With ``stop_gradient`` the loss is a pseudo-objective with the gradient of ``2 <f, stopgrad(df/dt)> dt/du``; without,
    it is the true ``|df/dt|^2 (dt/du)^2``, whose gradient goes through the derivative; u is the Karras grid's index.
    """

    stop_gradient: bool = option(True, "no gradient through the tangent")
    difference: float = option(0.0, "step of a central difference instead of a JVP; 0: the JVP", NOT_NEGATIVE)

    def check(self) -> None:
        """Raise `ValueError` for a difference that reaches times below 0."""
        if self.difference >= self.lowest_time:
            raise ValueError(
                f"difference must be below t_min = {self.lowest_time}, or it reaches times below 0; got {self.difference}."
            )

    def along(
        self, f: Callable[..., Array], batch: Batch, times: TimePair, velocity: Callable[[Array, Array], Array]
    ) -> Array:
        """Return the loss of the tangent of f where ``velocity(x, t)`` is dx/dt, (B,)."""
        x_t, one = VE().perturb(batch.x0, batch.z, times.t), namespace(times.t).ones_like(times.t)
        differentiate, direction = tangents.derivative(self.difference), velocity(x_t, times.t)
        out, tangent = differentiate(lambda x, t: f(x, t, **batch.cond), (x_t, times.t), (direction, one))
        tangent = per_sample(times.gap, x_t) * tangent
        if self.stop_gradient:
            return tangents.loss_along(out, -stop_gradient(tangent))
        return mean_samples(tangent**2)


def by_index(u: Array, t_min: float, t_max: float) -> TimePair:
    """Return times uniform in the Karras grid's index; r = t, and the gap is dt/du."""
    t = grids.karras_time(u, 2, t_min, t_max)
    return TimePair(t, t, grids.karras_slope(t, t_min, t_max))


@final
@dataclass(frozen=True)
class ContinuousTraining(ContinuousLimit, Weighted, IdentityAtLeastTime, NoiseLevel):
    """Continuous-time CT."""

    optimizer: Optimizer = Optimizer("radam", lr=5e-6)

    name = "ct-continuous"
    summary = "The 2023 paper's continuous limit without a teacher; prefer sct unless you are reproducing the paper."
    citation = "song2023"
    needs_jvp = True

    def pair(self, draws: Mapping[str, Array], scalars: Mapping[str, Array]) -> TimePair:
        """Draw times uniform in the grid's index."""
        return by_index(draws["t"], self.t_min, self.t_max)

    def per_sample(self, nets: Nets, batch: Batch, times: TimePair) -> Array:
        """Return the loss of the tangent along z, the unbiased estimate ``(x_t - x_0) / t``."""
        return self.along(self.function(given.network(nets, "online")), batch, times, lambda x, t: batch.z)


@final
@dataclass(frozen=True)
class ContinuousDistillation(Distils, ContinuousLimit, Weighted, IdentityAtLeastTime, NoiseLevel):
    """Continuous-time CD."""

    optimizer: Optimizer = Optimizer("radam", lr=5e-6)

    name = "cd-continuous"
    summary = "The 2023 paper's continuous limit with a teacher; prefer scd unless you are reproducing the paper."
    citation = "song2023"
    needs_jvp = True

    def pair(self, draws: Mapping[str, Array], scalars: Mapping[str, Array]) -> TimePair:
        """Draw times uniform in the grid's index."""
        return by_index(draws["t"], self.t_min, self.t_max)

    def per_sample(self, nets: Nets, batch: Batch, times: TimePair) -> Array:
        """Return the loss of the tangent along the teacher's ``(x - D(x, t)) / t``."""
        f, denoiser = self.function(given.network(nets, "online")), self.denoiser(nets, batch)
        return self.along(f, batch, times, lambda x, t: velocity_on(self.path, denoiser, x, t))


@dataclass(frozen=True)
class Stabilized(GreatestTime, Recipe):
    """Simplified, stabilised continuous-time consistency models on the TrigFlow path.

    ``normalize`` is c of the tangent's normalisation ``g / (|g| + c)``, which biases what is learned where the output is
    uncertain; ``inf`` leaves the tangent as it is. ``tangent_norm="rms"`` divides |g| by sqrt(D). ``tangent_warmup`` is the number of
    steps over which the unstable part of the tangent comes in, by the paper's rule or rCM's. ``difference`` replaces the
    Jacobian-vector product by a difference of that step, central or sCM's own backward one. ``network="edm"`` takes the network for one of `edm`'s kind, so that it can start from such a run's weights.
    """

    learned_weight: bool = learned_weight(True)
    mean: float = option(-1.0, "mean of ln of the noise's standard deviation", FINITE)
    std: float = option(1.4, "its standard deviation", DEVIATION)
    normalize: float = option(0.1, "c of the tangent's normalisation g / (|g| + c); inf: none", POSITIVE)
    tangent_norm: str = option("l2", "|g| of the whole sample, or divided by sqrt(D)", ("l2", "rms"))
    tangent_warmup: int = option(10_000, "steps over which the tangent's unstable part comes in", NOT_NEGATIVE)
    warmup_form: str = option("scm", "how it comes in: as in sCM, or as in rCM", ("scm", "rcm"))
    difference: float = option(0.0, "step of a difference instead of a JVP; 0: the JVP", NOT_NEGATIVE)
    difference_form: str = option("central", "central, or backward as sCM's discrete form", ("central", "backward"))
    prior_weight: bool = option(False, "weight by 1 / noise level too, beside the cosine that holds it")
    network: Literal["trigflow", "edm"] = option(
        "trigflow", "the network's scalings: TrigFlow's, or EDM's for weights of edm", ("trigflow", "edm")
    )
    optimizer: Optimizer = Optimizer("radam", lr=1e-4, betas=(0.9, 0.99))
    average: Average = Average(0.9993)

    citation = "lu2024"
    draws = {"t": "normal"}
    needs_jvp = True

    def parametrization(self) -> TrigFlow:
        """Return TrigFlow's scalings."""
        return TrigFlow(self.sigma_data, self.network)

    @property
    def path(self) -> Trigonometric:
        """The path that the network is trained on."""
        return Trigonometric(self.sigma_data)

    @property
    def network_kind(self) -> str:
        """Return the network's kind."""
        return self.network

    @property
    def parametrization_data(self) -> dict[str, Any]:
        """Return the scalings as plain data."""
        return {"kind": TrigFlow.__name__, **asdict(self.parametrization())}

    def function(self, net: Network) -> ConsistencyFunction:
        """Return the network as a consistency function on `path`."""
        return ConsistencyFunction(net, self.parametrization())

    def time_inputs(self, times: TimePair) -> tuple[Array, ...]:
        """Return c_noise."""
        return (self.parametrization().scalings(times.t).c_noise,)

    def curriculum(self, step: int, total: int) -> dict[str, float]:
        """Return the share of the tangent's unstable part."""
        return tangent_warmup(step, self.tangent_warmup)

    def pair(self, draws: Mapping[str, Array], scalars: Mapping[str, Array]) -> TimePair:
        """Draw ``t = arctan(sigma / sd)`` for log-normal sigma, the path's own times; r = t."""
        t = self.path.time(grids.lognormal_time(draws["t"], self.mean, self.std))
        return TimePair(t, t, namespace(t).ones_like(t))

    def per_sample(self, nets: Nets, batch: Batch, times: TimePair) -> Array:
        """Return the loss that moves F along the tangent."""
        x_t = self.path.perturb(batch.x0, self.sigma_data * batch.z, times.t)
        net, v = self.parametrization().free(given.network(nets, "online")), self.velocity(nets, batch, x_t, times.t)
        warmup, backward = given.scalar(batch.scalars, "tangent_warmup"), self.difference_form == "backward"
        differences = tangents.backward_difference if backward and self.difference else tangents.derivative
        derivative = differences(self.difference)
        out, g = tangents.trigflow_tangent(net, x_t, times.t, v, self.sigma_data, warmup, derivative, batch.cond)
        if self.warmup_form == "rcm":
            g = tangents.rcm_warmup(g, out, times.t, v, self.sigma_data, warmup)
        return tangents.loss_along(out, self.normalized(g))

    def normalized(self, g: Array) -> Array:
        """Return the tangent over its norm plus c."""
        if self.tangent_norm == "l2" or math.isinf(self.normalize):
            return tangents.normalized(g, self.normalize)
        root = math.sqrt(math.prod(g.shape[1:]))
        return root * tangents.normalized(g, root * self.normalize)

    def weight(self, times: TimePair) -> Array | float:
        """Return 1, or the prior weight, one over the noise level ``sd tan t``."""
        return 1.0 / (self.sigma_data * namespace(times.t).tan(times.t)) if self.prior_weight else 1.0

    @abstractmethod
    def velocity(self, nets: Nets, batch: Batch, x_t: Array, t: Array) -> Array:
        """Return dx/dt at the points."""

    def sample(
        self, net: Network, z: Array, times: Sequence[float], noise: Noise, cond: Mapping[str, Array] | None = None
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


@final
@dataclass(frozen=True)
class StabilizedTraining(Stabilized):
    """Simplified, stabilised continuous-time CT (sCT): the tangent along the data's path."""

    name = "sct"
    summary = "Continuous time without a teacher: no discretisation error; best from a score model's weights (--init)."

    def velocity(self, nets: Nets, batch: Batch, x_t: Array, t: Array) -> Array:
        """Return the unbiased estimate ``cos(t) z - sin(t) x_0``."""
        return self.path.velocity(x_t, t, batch.x0)


@final
@dataclass(frozen=True)
class StabilizedDistillation(Distils, Stabilized):
    """Simplified, stabilised continuous-time CD (sCD): the tangent along the teacher's ODE."""

    name = "scd"
    summary = "Continuous time with a teacher: no discretisation error, and no bias from the normalisation."

    def velocity(self, nets: Nets, batch: Batch, x_t: Array, t: Array) -> Array:
        """Return the teacher's velocity on the TrigFlow path."""
        return velocity_on(self.path, self.denoiser(nets, batch), x_t, t)
