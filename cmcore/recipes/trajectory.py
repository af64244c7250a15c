"""Consistency trajectory models: a flow map on the noise-level path, distilled from a teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from cmcore import distances, grids, sampling, solvers, weightings
from cmcore.backend import Array, Network, namespace, stop_gradient
from cmcore.flow_maps import TowardDenoiser
from cmcore.grids import TimePair
from cmcore.optimization import Optimizer
from cmcore.options import AT_LEAST_ONE, GRID_POINTS, NOT_NEGATIVE, SHARE, option
from cmcore.paths import VE, Denoiser
from cmcore.recipes import given
from cmcore.recipes.noise_level import NoiseLevel, down_to
from cmcore.recipes.part import AveragedTarget, LeastTime, Weighted
from cmcore.recipes.recipe import Batch, Nets
from cmcore.recipes.teacher import Distils
from cmcore.sampling import Noise


@final
@dataclass(frozen=True)
class ConsistencyTrajectoryModel(AveragedTarget, Distils, Weighted, LeastTime, NoiseLevel):
    """CTM without its adversarial loss: jumps from t to any s, taught by the teacher's ODE, with a denoising loss beside.

    Both ways to s, straight and by a point u that up to ``reach`` of the teacher's Heun steps lead to, are taken on to
    t_min by the target network, where they are compared; with ``mu = 0`` it is a copy of the network as the last step left it. ``denoising_weight`` is constant, where the paper makes the two
    losses' gradients at the last layer equally large. ``gamma`` is the noise of the sampler: 0 none, 1 multistep
    consistency sampling.
    """

    n: int = option(18, "points of the Karras grid", GRID_POINTS)
    reach: int = option(17, "most steps of the grid from t to u", AT_LEAST_ONE)
    denoising_weight: float = option(0.01, "weight of the denoising loss", NOT_NEGATIVE)
    gamma: float = option(0.0, "noise of the sampler: 0 is the ODE, 1 all anew", SHARE)
    optimizer: Optimizer = Optimizer("radam", lr=4e-4)

    name = "ctm"
    summary = "A flow map on the noise-level path, distilled from a teacher; without its adversarial loss a baseline."
    citation = "kim2024"
    draws = {"t": "uniform", "s": "uniform", "u": "uniform"}
    two_times = keep_target = True

    @property
    def form(self) -> dict[str, Any]:
        """Return that the network is CTM's inner one."""
        return {"kind": TowardDenoiser.__name__, "sigma_data": self.sigma_data}

    def function(self, net: Network) -> TowardDenoiser:
        """Return the network as a flow map."""
        return TowardDenoiser(net, self.sigma_data)

    def time_inputs(self, times: TimePair) -> tuple[Array, ...]:
        """Return the inputs of g."""
        scalings = self.parametrization().scalings
        return scalings(times.t).c_noise, scalings(times.r).c_noise

    def pair(self, draws: Mapping[str, Array], scalars: Mapping[str, Array]) -> TimePair:
        """Draw two points of the grid, s below t."""
        t, s = (grids.karras_time(i, self.n, self.t_min, self.t_max) for i in _two_indices(draws, self.n))
        return TimePair(t, s, t - s)

    def per_sample(self, nets: Nets, batch: Batch, times: TimePair) -> Array:
        """Return the squared distance of the two ways' ends at t_min, and the denoising error."""
        x_t, t_min = VE().perturb(batch.x0, batch.z, times.t), 0.0 * times.t + self.t_min
        online, target = (self.function(given.network(nets, name)) for name in ("online", "target"))
        x_u, u = self._along(self.denoiser(nets, batch), x_t, times.t, batch.draws)
        ours = target(online(x_t, times.t, times.r, **batch.cond), times.r, t_min, **batch.cond)
        theirs = target(target(x_u, u, times.r, **batch.cond), times.r, t_min, **batch.cond)
        denoised = online.inner(x_t, times.t, times.t, **batch.cond)
        denoising = weightings.karras(times, self.sigma_data) * distances.squared_l2(denoised, batch.x0)
        return distances.squared_l2(ours, stop_gradient(theirs)) + self.denoising_weight * denoising

    def _along(self, teacher: Denoiser, x: Array, t: Array, draws: Mapping[str, Array]) -> tuple[Array, Array]:
        """Return a point of the teacher's ODE between t and s, and its time."""
        xp, (start, end) = namespace(x), _two_indices(draws, self.n)
        within_reach = xp.minimum(start - end, xp.full_like(start, float(self.reach)))
        stop = start - 1.0 - xp.floor(draws["u"] * within_reach)
        # Steps past the stop have no length.
        for k in range(1, self.reach + 1):
            r = grids.karras_time(xp.maximum(start - k, stop), self.n, self.t_min, self.t_max)
            x, t = solvers.heun(teacher, x, t, r), r
        return stop_gradient(x), t

    def times(self, steps: int) -> tuple[float, ...]:
        """Return the Karras grid of ``steps`` points down to sigma_data, followed by t_min."""
        return (*down_to(steps, self.sigma_data, self.t_max), self.t_min)

    def sample(
        self, net: Network, z: Array, times: Sequence[float], noise: Noise, cond: Mapping[str, Array] | None = None
    ) -> Array:
        """Jump from time to time, with gamma's share of noise (Kim et al. 2024, algorithm 3)."""
        return sampling.gamma(self.function(net), z, times, noise, self.gamma, self.t_min, cond=cond)


def _two_indices(draws: Mapping[str, Array], n: int) -> tuple[Array, Array]:
    """The indices of t and of s, below it, in the grid of n points."""
    floor = namespace(draws["t"]).floor
    start = 1.0 + floor(draws["t"] * (n - 1))
    return start, floor(draws["s"] * start)
