"""Flow maps: from any time to any other, so that more steps are deterministic and never undo what was done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cmcore import distances, grids, sampling, solvers, tangents, weightings
from cmcore._arrays import per_sample, sum_samples
from cmcore.backend import Array, Network, namespace, stop_gradient
from cmcore.flow_maps import AverageVelocity, TowardDenoiser
from cmcore.grids import TimePair
from cmcore.optimization import Optimizer
from cmcore.parametrization import EDM, Parametrization
from cmcore.paths import VE, Linear, rebased
from cmcore.recipes.guidance import drop_labels, no_class, teacher_denoiser
from cmcore.recipes.recipe import Batch, Nets, Recipe, down_to
from cmcore.sampling import Noise

PATH = Linear()


@dataclass(frozen=True)
class _StraightFlowMap(Recipe):
    """What the methods on the straight path ``(1 - t) x_0 + t z`` share: the network is a mean velocity.

    Times are the path's, from 1, noise, to 0, data. ``r`` of a pair is the time s that the map leads to.
    """

    two_times = True

    @property
    def path(self) -> Linear:
        """Return the straight path."""
        return PATH

    @property
    def family(self) -> str:
        """Return that of mean velocities."""
        return "velocity"

    @property
    def form(self) -> dict[str, Any]:
        """Return that the network is a mean velocity."""
        return {"kind": AverageVelocity.__name__}

    def function(self, net: Network) -> AverageVelocity:  # type: ignore[override]
        """Return the network as a flow map."""
        return AverageVelocity(net)

    def time_inputs(self, times: TimePair) -> tuple[Array, ...]:
        """Return t and the length of the way."""
        return times.t, times.gap

    def times(self, steps: int) -> tuple[float, ...]:
        """Return ``steps + 1`` equally spaced times from 1 to 0."""
        if steps < 1:
            raise ValueError(f"Sampling needs at least one step, got {steps}.")
        return tuple(1.0 - i / steps for i in range(steps + 1))

    def sample(self, net: Network, z: Array, times: Sequence[float], noise: Noise, **cond: Any) -> Array:
        """Jump from time to time; no noise is added on the way."""
        flow_map = self.function(net)
        return sampling.flow_map(lambda x, t, s: flow_map(x, t, s, **cond), z, times)


@dataclass(frozen=True)
class MeanFlow(_StraightFlowMap):
    """MeanFlow: the mean velocity's own identity ``u = v - (t - s) du/dt``, from data alone.

    Times are logit-normal; a share ``different`` of the samples has s != t. The loss ``|u - target|^2`` is divided by
    its own ``(. + c)^power``, which biases what is learned where the answer is uncertain; ``power = 0`` does not.
    ``guidance`` and ``guidance_mix`` are the paper's omega and kappa.
    """

    mean: float = -2.0
    std: float = 2.0
    different: float = 0.75
    power: float = 0.75
    c: float = 1e-3
    guidance: float = 1.0
    guidance_mix: float = 0.0
    label_dropout: float = 0.1
    optimizer: Optimizer = Optimizer("adam", lr=6e-4, betas=(0.9, 0.999), ema=0.9999)

    name = "meanflow"
    summary = "Mean velocities with a Jacobian-vector product: one step from scratch, deterministic with more."
    citation = "geng2025"
    tau = "normal"
    needs_jvp = True

    @property
    def draws(self) -> int:
        """Return 4: two times, whether they differ, whether the class is hidden."""
        return 4

    def pair(self, tau: Array, scalars: Mapping[str, Array]) -> TimePair:
        """Draw two logit-normal times, the larger t, or the larger alone."""
        xp = namespace(tau)
        a, b = (grids.logistic_time(tau[:, i], self.mean, self.std) for i in (0, 1))
        t = xp.maximum(a, b)
        s = xp.where(grids.uniform(tau[:, 2]) < self.different, xp.minimum(a, b), t)
        return TimePair(t, s, t - s)

    def per_sample(self, nets: Nets, batch: Batch, times: TimePair) -> Array:
        """Return the adaptively weighted squared error of the identity."""
        xp, flow_map = namespace(times.t), self.function(nets["online"])
        cond = drop_labels(batch.cond, grids.uniform(batch.tau[:, 3]) < self.label_dropout)
        x_t = PATH.perturb(batch.x0, batch.z, times.t)
        v = self._velocity(flow_map, batch, x_t, times.t)
        u, along = tangents.exact(
            lambda x, t: flow_map.velocity(x, t, times.r, **cond),
            (x_t, times.t),
            (self._direction(flow_map, x_t, times.t, v, cond), xp.ones_like(times.t)),
        )
        error = u - stop_gradient(v - per_sample(times.gap, x_t) * along)
        squared = sum_samples(error**2)
        return squared / stop_gradient(squared + self.c) ** self.power

    def _velocity(self, flow_map: AverageVelocity, batch: Batch, x_t: Array, t: Array) -> Array:
        """Return the sample's velocity, guided where asked for (Geng et al. 2025, equation 21)."""
        v, omega, kappa = batch.z - batch.x0, self.guidance, self.guidance_mix
        if (omega, kappa) == (1.0, 0.0) or "label" not in batch.cond:
            return v
        conditional = flow_map.velocity(x_t, t, t, **batch.cond)
        plain = flow_map.velocity(x_t, t, t, **{**batch.cond, "label": no_class(batch.cond["label"])})
        return stop_gradient(omega * v + kappa * conditional + (1.0 - omega - kappa) * plain)

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
class ProgressiveSelfDistillation(_StraightFlowMap):
    """PSD: the way from t to s is the way to a point between and the way on from there; no Jacobian-vector product.

    Times are uniform. A share ``diagonal`` of the samples has s = t, where the target is the sample's velocity (flow
    matching), which everything else grows from. The point between divides the way in the ratio ``split``; 0 draws it
    uniformly (PSD-U), 0.5 is PSD-M.
    """

    diagonal: float = 0.75
    split: float = 0.5
    optimizer: Optimizer = Optimizer("radam", lr=1e-3, ema=0.9999)

    name = "psd"
    summary = (
        "A flow map from data alone with forward evaluations only: cheap everywhere, the natural choice on tinygrad."
    )
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
        composed = mean_velocity_by(self.function(nets["target"]), x_t, times, split, **batch.cond)
        goal = xp.where(per_sample(times.gap > 0, x_t), self.bounded(composed), batch.z - batch.x0)
        u = self.function(nets["online"]).velocity(x_t, times.t, times.r, **batch.cond)
        return distances.squared_l2(u, stop_gradient(goal))

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
class Shortcut(ProgressiveSelfDistillation):
    """Shortcut models: ways of length 2^-k, each learned from two of half its length by an averaged target network.

    Seven of eight samples are flow matching; targets are kept within ``clip``, and times are multiples of the way's length.
    """

    diagonal: float = 0.875
    levels: int = 7
    mu: float = 0.999
    clip: float = 4.0
    optimizer: Optimizer = Optimizer("adamw", lr=1e-4, weight_decay=0.1, ema=0.999)

    name = "shortcut"
    summary = "Dyadic steps, doubled from the finest: simple and robust; more steps help, one step is not its best."
    citation = "frans2025"

    @property
    def keep_target(self) -> bool:
        """Return True: the target is an average."""
        return True

    def curriculum(self, step: int, total: int) -> dict[str, float]:
        """Return the constant decay of the target."""
        return {"target_decay": self.mu}

    def pair(self, tau: Array, scalars: Mapping[str, Array]) -> TimePair:
        """Draw a length 1, 1/2, ..., 2^(1 - levels) and a multiple of it as t; or, for flow matching, any t."""
        xp = namespace(tau)
        length = 2.0 ** -xp.floor(tau[:, 0] * self.levels)
        t = (1.0 + xp.floor(tau[:, 1] / length)) * length
        diagonal = tau[:, 2] < self.diagonal
        gap = xp.where(diagonal, 0.0 * length, length)
        t = xp.where(diagonal, tau[:, 1], t)
        return TimePair(t, t - gap, gap)

    def bounded(self, velocity: Array) -> Array:
        """Return the velocity within the bounds."""
        return namespace(velocity).clip(velocity, -self.clip, self.clip)


@dataclass(frozen=True)
class AlignYourFlow(_StraightFlowMap):
    """AYF, Eulerian form: the end of the way must not move as its start moves along the teacher's ODE.

    The network's mean velocity F moves along ``v - F + r (s - t) dF/dt``, normalised; r rises to ``warmup_max``.
    Times are logit-normal.
    """

    mean: float = 0.0
    std: float = 1.0
    normalize: float = 0.1
    tangent_warmup: int = 10_000
    warmup_max: float = 0.99
    guidance: float = 1.0
    difference: float = 0.0
    optimizer: Optimizer = Optimizer("radam", lr=1e-4, ema=0.9999)

    name = "ayf"
    summary = "A flow map distilled from a teacher: stays good with more steps, where consistency models fall back."
    citation = "sabour2025"
    tau = "normal"
    teachers = ("edm",)
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
        xp = namespace(tau)
        a, b = (grids.logistic_time(tau[:, i], self.mean, self.std) for i in (0, 1))
        t, s = xp.maximum(a, b), xp.minimum(a, b)
        return TimePair(t, s, t - s)

    def per_sample(self, nets: Nets, batch: Batch, times: TimePair) -> Array:
        """Return the loss that moves F along the tangent."""
        x_t, flow_map = PATH.perturb(batch.x0, batch.z, times.t), self.function(nets["online"])
        teacher = teacher_denoiser(nets["teacher"], self.sigma_data, batch.cond, self.guidance)
        v = PATH.velocity(x_t, times.t, rebased(teacher, VE(), PATH)(x_t, times.t))
        u, along = tangents.derivative(self.difference)(
            lambda x, t: flow_map.velocity(x, t, times.r, **batch.cond),
            (x_t, times.t),
            (v, namespace(times.t).ones_like(times.t)),
        )
        g = v - u - per_sample(batch.scalars["tangent_warmup"] * times.gap, x_t) * along
        return tangents.toward(u, tangents.normalized(stop_gradient(g), self.normalize))


@dataclass(frozen=True)
class ConsistencyTrajectoryModel(Recipe):
    """CTM without its adversarial loss: jumps from t to any s, taught by the teacher's ODE, with a denoising loss beside.

    Both ways to s, straight and by a point u that up to ``reach`` of the teacher's Heun steps lead to, are taken on to
    t_min by the target network, where they are compared. ``gamma`` is the noise of the sampler: 0 none, 1 multistep
    consistency sampling.
    """

    n: int = 18
    reach: int = 17
    mu: float = 0.999
    denoising_weight: float = 1.0
    gamma: float = 0.0
    guidance: float = 1.0
    optimizer: Optimizer = Optimizer("radam", lr=4e-4)

    name = "ctm"
    summary = "A flow map on the noise-level path, distilled from a teacher; without its adversarial loss a baseline."
    citation = "kim2024"
    teachers = ("edm",)
    two_times = True

    @property
    def draws(self) -> int:
        """Return 3: the two times and the point between."""
        return 3

    @property
    def keep_target(self) -> bool:
        """Whether mu > 0."""
        return self.mu > 0

    @property
    def form(self) -> dict[str, Any]:
        """Return that the network is CTM's inner one."""
        return {"kind": TowardDenoiser.__name__, "sigma_data": self.sigma_data}

    def parametrization(self) -> Parametrization:
        """Return EDM's scalings, those of the inner network g."""
        return EDM(self.sigma_data)

    def function(self, net: Network) -> TowardDenoiser:  # type: ignore[override]
        """Return the network as a flow map."""
        return TowardDenoiser(net, self.sigma_data)

    def curriculum(self, step: int, total: int) -> dict[str, float]:
        """Return the constant decay of the target."""
        return {"target_decay": self.mu}

    def time_inputs(self, times: TimePair) -> tuple[Array, ...]:
        """Return the inputs of g."""
        scalings = self.parametrization().scalings
        return scalings(times.t).c_noise, scalings(times.r).c_noise

    def pair(self, tau: Array, scalars: Mapping[str, Array]) -> TimePair:
        """Draw two points of the grid, s at or below t."""
        t, s = (grids.karras_time(i, self.n, self.t_min, self.t_max) for i in self._indices(tau))
        return TimePair(t, s, t - s)

    def _indices(self, tau: Array) -> tuple[Array, Array]:
        floor = namespace(tau).floor
        start = 1.0 + floor(tau[:, 0] * (self.n - 1))
        return start, floor(tau[:, 1] * start)

    def per_sample(self, nets: Nets, batch: Batch, times: TimePair) -> Array:
        """Return the squared distance of the two ways' ends at t_min, and the denoising error."""
        x_t, t_min = VE().perturb(batch.x0, batch.z, times.t), 0.0 * times.t + self.t_min
        online, target = self.function(nets["online"]), self.function(nets["target"])
        x_u, u = self._along_teacher(nets, batch, x_t, times)
        ours = target(online(x_t, times.t, times.r, **batch.cond), times.r, t_min, **batch.cond)
        theirs = target(target(x_u, u, times.r, **batch.cond), times.r, t_min, **batch.cond)
        denoised = online.inner(x_t, times.t, times.t, **batch.cond)
        denoising = weightings.karras(times, self.sigma_data) * distances.squared_l2(denoised, batch.x0)
        return distances.squared_l2(ours, stop_gradient(theirs)) + self.denoising_weight * denoising

    def _along_teacher(self, nets: Nets, batch: Batch, x: Array, times: TimePair) -> tuple[Array, Array]:
        """Return a point of the teacher's ODE between t and s, and its time."""
        xp, (start, end) = namespace(x), self._indices(batch.tau)
        teacher = teacher_denoiser(nets["teacher"], self.sigma_data, batch.cond, self.guidance)
        within_reach = xp.minimum(start - end, xp.full_like(start, float(self.reach)))
        stop = start - 1.0 - xp.floor(batch.tau[:, 2] * within_reach)
        # Steps past the stop have no length.
        t = times.t
        for k in range(1, self.reach + 1):
            r = grids.karras_time(xp.maximum(start - k, stop), self.n, self.t_min, self.t_max)
            x, t = solvers.heun(teacher, x, t, r), r
        return stop_gradient(x), t

    def times(self, steps: int) -> tuple[float, ...]:
        """Return the Karras grid of ``steps`` points down to sigma_data, followed by t_min."""
        return (*down_to(steps, self.sigma_data, self.t_max), self.t_min)

    def sample(self, net: Network, z: Array, times: Sequence[float], noise: Noise, **cond: Any) -> Array:
        """Jump from time to time, with gamma's share of noise (Kim et al. 2024, algorithm 3)."""
        flow_map = self.function(net)
        return sampling.gamma(lambda x, t, s: flow_map(x, t, s, **cond), z, times, noise, self.gamma, self.t_min)


def mean_velocity_by(flow_map: AverageVelocity, x: Array, times: TimePair, split: Array, **cond: Any) -> Array:
    """Return the mean velocity of the way from t to s by the point that divides it in the ratio ``split``, (B,).

    ``u(t, s) = split u(x_t, t, m) + (1 - split) u(x_m, m, s)`` with ``m = t - split (t - s)`` (Guo et al. 2025, eq. 8).
    """
    middle = times.t - split * times.gap
    first = flow_map.velocity(x, times.t, middle, **cond)
    x_middle = x - per_sample(split * times.gap, x) * first
    second = flow_map.velocity(x_middle, middle, times.r, **cond)
    share = per_sample(split, x)
    return share * first + (1.0 - share) * second
