"""Consistency trajectory models: a flow map on the noise-level path, distilled from a teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

from cmcore import distances, grids, sampling, solvers, weightings
from cmcore._arrays import as_times, check_above_zero, check_output, per_sample
from cmcore.backend import Array, Network, namespace, stop_gradient
from cmcore.flow_maps import TowardDenoiser
from cmcore.grids import TimePair
from cmcore.optimization import Optimizer
from cmcore.options import AT_LEAST_ONE, GRID_POINTS, NOT_NEGATIVE, SHARE, option
from cmcore.parametrization import EDM, Boundary, ConsistencyFunction
from cmcore.paths import VE, Denoiser
from cmcore.recipes import given
from cmcore.recipes.noise_level import NoiseLevel, down_to
from cmcore.recipes.part import AveragedTarget, LeastTime, Part, Weighted
from cmcore.recipes.recipe import Batch, Nets
from cmcore.recipes.teacher import Distils
from cmcore.sampling import Noise
from cmcore.types import Time


@dataclass(frozen=True, eq=False)  # torch.compile before 2.13 calls no object whose hash is of its fields
class Trajectory(TowardDenoiser):
    """``G(x, t, s) = c_skip(t, s) x + (1 - s / t) g(x, t, s)`` by the other forms of CTM's program, of which each has G(x, t, t) = x.

    Outer forms: "euler" with ``c_skip = s / t``, the paper's; "variance" with ``c_skip = sqrt((s'^2 + sd^2) / (t'^2 + sd^2))``, times
    primed being less t_min; "mixed" with ``(s + that) / (t + 1)``. Inner forms: g has EDM's scalings, those of "boundary" or, with
    "none", is the network.
    """

    outer: str = "euler"
    inner_form: str = "edm"
    t_min: float = grids.T_MIN

    def inner(self, x: Array, t: Time, s: Time, **cond: Any) -> Array:
        """Return g(x, t, s), shaped like x."""
        c_end = EDM(self.sigma_data).scalings(as_times(s, x, "s")).c_noise
        if self.inner_form == "none":
            return check_output(
                self.net(x, EDM(self.sigma_data).scalings(as_times(t, x)).c_noise, c_end=c_end, **cond), x
            )
        scalings = EDM(self.sigma_data) if self.inner_form == "edm" else Boundary(self.sigma_data, self.t_min)
        return ConsistencyFunction(self.net, scalings)(x, t, c_end=c_end, **cond)

    def __call__(self, x: Array, t: Time, s: Time, **cond: Any) -> Array:
        """Return G(x, t, s), shaped like x; t must be positive."""
        check_above_zero(t, x, "A flow map toward the denoiser")
        t, s = as_times(t, x), as_times(s, x, "s")
        squared, ratio = self.sigma_data**2, s / t
        variance = namespace(x).sqrt(((s - self.t_min) ** 2 + squared) / ((t - self.t_min) ** 2 + squared))
        skip = {"euler": ratio, "variance": variance, "mixed": (s + variance) / (t + 1.0)}[self.outer]
        return per_sample(skip, x) * x + per_sample(1.0 - ratio, x) * self.inner(x, t, s, **cond)


@dataclass(frozen=True)
class TeacherSteps(Part):
    """Two points of the Karras grid, t and s below it, and a point u between that up to ``reach`` of the teacher's steps lead to."""

    n: int = option(18, "points of the Karras grid", GRID_POINTS)
    reach: int = option(17, "most steps of the grid from t to u", AT_LEAST_ONE)

    t_min: ClassVar[float]
    t_max: ClassVar[float]

    def pair(self, draws: Mapping[str, Array], scalars: Mapping[str, Array]) -> TimePair:
        """Draw two points of the grid, s below t."""
        t, s = (grids.karras_time(i, self.n, self.t_min, self.t_max) for i in _two_indices(draws, self.n))
        return TimePair(t, s, t - s)

    def along(self, teacher: Denoiser, x: Array, t: Array, draws: Mapping[str, Array]) -> tuple[Array, Array]:
        """Return a point of the teacher's ODE between t and s, and its time."""
        xp, (start, end) = namespace(x), _two_indices(draws, self.n)
        within_reach = xp.minimum(start - end, xp.full_like(start, float(self.reach)))
        stop = start - 1.0 - xp.floor(draws["u"] * within_reach)
        # Steps past the stop have no length.
        for k in range(1, self.reach + 1):
            r = grids.karras_time(xp.maximum(start - k, stop), self.n, self.t_min, self.t_max)
            x, t = solvers.heun(teacher, x, t, r), r
        return stop_gradient(x), t


def _two_indices(draws: Mapping[str, Array], n: int) -> tuple[Array, Array]:
    """The indices of t and of s, below it, in the grid of n points."""
    floor = namespace(draws["t"]).floor
    start = 1.0 + floor(draws["t"] * (n - 1))
    return start, floor(draws["s"] * start)


@final
@dataclass(frozen=True)
class ConsistencyTrajectoryModel(TeacherSteps, AveragedTarget, Distils, Weighted, LeastTime, NoiseLevel):
    """CTM without its adversarial loss: jumps from t to any s, taught by the teacher's ODE, with a denoising loss beside.

    Both jumps to s, from t and from a point u on the teacher's ODE, are taken on to t_min by the target network, where they are
    compared; with ``mu = 0`` it is a copy of the network as the last step left it. The authors' program knows other ways: to compare
    at s, to take the one on by the network itself or to have the other's jump made by it. ``denoising_weight`` is constant, where the
    paper makes the two losses' gradients at the last layer equally large. ``gamma`` is the noise of the sampler: 0 none, 1 multistep
    consistency sampling.
    """

    outer: str = option("euler", "what multiplies x in a jump", ("euler", "variance", "mixed"))
    inner: str = option("edm", "the scalings within a jump", ("edm", "boundary", "none"))
    compare_at: str = option("t_min", "the time at which the jumps are compared", ("t_min", "s"))
    onward: str = option("target", "the network that takes the jump from t on to t_min", ("target", "online"))
    from_u: str = option("target", "the network that jumps from u, without gradient", ("target", "online"))
    denoising_weight: float = option(0.01, "weight of the denoising loss", NOT_NEGATIVE)
    gamma: float = option(0.0, "noise of the sampler: 0 is the ODE, 1 all anew", SHARE)
    optimizer: Optimizer = Optimizer("radam", lr=4e-4)

    name = "ctm"
    summary = "A flow map on the noise-level path, distilled from a teacher; without its adversarial loss a baseline."
    citation = "kim2024"
    draws = {"t": "uniform", "s": "uniform", "u": "uniform"}
    two_times = keep_target = True

    @property
    def parametrization_data(self) -> dict[str, Any]:
        """Return that the network is CTM's inner one, and the forms if they are not the paper's."""
        told = {"kind": TowardDenoiser.__name__, "sigma_data": self.sigma_data}
        return told if self._as_published else told | {"outer": self.outer, "inner": self.inner, "t_min": self.t_min}

    @property
    def _as_published(self) -> bool:
        """Whether a jump has the paper's forms, of which a file says no more."""
        return (self.outer, self.inner) == ("euler", "edm")

    def function(self, net: Network) -> TowardDenoiser:
        """Return the network as a flow map."""
        if self._as_published:
            return TowardDenoiser(net, self.sigma_data)
        return Trajectory(net, self.sigma_data, self.outer, self.inner, self.t_min)

    def time_inputs(self, times: TimePair) -> tuple[Array, ...]:
        """Return the inputs of g."""
        return tuple(self.parametrization().scalings(t).c_noise for t in (times.t, times.r))

    def per_sample(self, nets: Nets, batch: Batch, times: TimePair) -> Array:
        """Return the squared distance of the jumps' ends, and the denoising error."""
        x_t, t_min = VE().perturb(batch.x0, batch.z, times.t), 0.0 * times.t + self.t_min
        jump = {name: self.function(given.network(nets, name)) for name in ("online", "target")}
        x_u, u = self.along(self.denoiser(nets, batch), x_t, times.t, batch.draws)
        ends = [jump["online"](x_t, times.t, times.r, **batch.cond), jump[self.from_u](x_u, u, times.r, **batch.cond)]
        if self.compare_at == "t_min":
            ends = [
                jump[n](x, times.r, t_min, **batch.cond) for n, x in zip((self.onward, "target"), ends, strict=True)
            ]
        denoised = jump["online"].inner(x_t, times.t, times.t, **batch.cond)
        denoising = weightings.karras(times, self.sigma_data) * distances.squared_l2(denoised, batch.x0)
        return distances.squared_l2(ends[0], stop_gradient(ends[1])) + self.denoising_weight * denoising

    def times(self, steps: int) -> tuple[float, ...]:
        """Return the Karras grid of ``steps`` points down to sigma_data, followed by t_min."""
        return (*down_to(steps, self.sigma_data, self.t_max), self.t_min)

    def sample(
        self, net: Network, z: Array, times: Sequence[float], noise: Noise, cond: Mapping[str, Array] | None = None
    ) -> Array:
        """Jump from time to time, with gamma's share of noise (Kim et al. 2024, algorithm 3)."""
        return sampling.gamma(self.function(net), z, times, noise, self.gamma, self.t_min, cond=cond)
