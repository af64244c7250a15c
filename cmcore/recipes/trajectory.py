"""Consistency trajectory models: a flow map on the noise-level path, distilled from a teacher."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cmcore import distances, grids, sampling, solvers, weightings
from cmcore.backend import Array, Network, namespace, stop_gradient
from cmcore.flow_maps import TowardDenoiser
from cmcore.grids import TimePair
from cmcore.losses import ConsistencyFn
from cmcore.optimization import Optimizer
from cmcore.options import AT_LEAST_ONE, NOT_NEGATIVE, SHARE, Limit, option
from cmcore.paths import VE
from cmcore.recipes import given
from cmcore.recipes.recipe import Batch, Nets, down_to
from cmcore.recipes.targets import AveragedTarget
from cmcore.recipes.teacher import Distils
from cmcore.sampling import Noise


@dataclass(frozen=True)
class ConsistencyTrajectoryModel(AveragedTarget, Distils):
    """CTM without its adversarial loss: jumps from t to any s, taught by the teacher's ODE, with a denoising loss beside.

    Both ways to s, straight and by a point u that up to ``reach`` of the teacher's Heun steps lead to, are taken on to
    t_min by the target network, where they are compared. ``denoising_weight`` is constant, where the paper makes the two
    losses' gradients at the last layer equally large. ``gamma`` is the noise of the sampler: 0 none, 1 multistep
    consistency sampling.
    """

    n: int = option(
        18, "points of the Karras grid", Limit(lambda v: 2 <= v < math.inf, "2 or more, the ends of the grid")
    )
    reach: int = option(17, "most steps of the grid from t to u", AT_LEAST_ONE)
    denoising_weight: float = option(0.01, "weight of the denoising loss", NOT_NEGATIVE)
    gamma: float = option(0.0, "noise of the sampler: 0 is the ODE, 1 all anew", SHARE)
    optimizer: Optimizer = Optimizer("radam", lr=4e-4)

    name = "ctm"
    summary = "A flow map on the noise-level path, distilled from a teacher; without its adversarial loss a baseline."
    citation = "kim2024"
    two_times = True
    ends_at_zero = True
    fixed = ("distance",)

    @property
    def draws(self) -> int:
        """Return 3: the two times and the point between."""
        return 3

    @property
    def form(self) -> dict[str, Any]:
        """Return that the network is CTM's inner one."""
        return {"kind": TowardDenoiser.__name__, "sigma_data": self.sigma_data}

    def function(self, net: Network) -> TowardDenoiser:  # type: ignore[override]
        """Return the network as a flow map."""
        return TowardDenoiser(net, self.sigma_data)

    def time_inputs(self, times: TimePair) -> tuple[Array, ...]:
        """Return the inputs of g."""
        scalings = self.parametrization().scalings
        return scalings(times.t).c_noise, scalings(times.r).c_noise

    def pair(self, tau: Array, scalars: Mapping[str, Array]) -> TimePair:
        """Draw two points of the grid, s below t."""
        t, s = (grids.karras_time(i, self.n, self.t_min, self.t_max) for i in self._indices(tau))
        return TimePair(t, s, t - s)

    def _indices(self, tau: Array) -> tuple[Array, Array]:
        floor = namespace(tau).floor
        start = 1.0 + floor(tau[:, 0] * (self.n - 1))
        return start, floor(tau[:, 1] * start)

    def per_sample(self, nets: Nets, batch: Batch, times: TimePair) -> Array:
        """Return the squared distance of the two ways' ends at t_min, and the denoising error."""
        x_t, t_min = VE().perturb(batch.x0, batch.z, times.t), 0.0 * times.t + self.t_min
        online, target = self.function(given.network(nets, "online")), self.function(given.network(nets, "target"))
        x_u, u = self._along_teacher(nets, batch, x_t, times)
        ours = target(online(x_t, times.t, times.r, **batch.cond), times.r, t_min, **batch.cond)
        theirs = target(target(x_u, u, times.r, **batch.cond), times.r, t_min, **batch.cond)
        denoised = online.inner(x_t, times.t, times.t, **batch.cond)
        denoising = weightings.karras(times, self.sigma_data) * distances.squared_l2(denoised, batch.x0)
        return distances.squared_l2(ours, stop_gradient(theirs)) + self.denoising_weight * denoising

    def _along_teacher(self, nets: Nets, batch: Batch, x: Array, times: TimePair) -> tuple[Array, Array]:
        """Return a point of the teacher's ODE between t and s, and its time."""
        xp, (start, end) = namespace(x), self._indices(batch.tau)
        teacher = self.denoiser(nets, batch)
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

    def sample(
        self,
        net: Network,
        z: Array,
        times: Sequence[float],
        noise: Noise,
        cond: Mapping[str, Array] | None = None,
    ) -> Array:
        """Jump from time to time, with gamma's share of noise (Kim et al. 2024, algorithm 3)."""
        return sampling.gamma(self.function(net), z, times, noise, self.gamma, self.t_min, cond=cond)

    def consistency(self, net: Network) -> ConsistencyFn:
        """Return the jumps to t_min."""
        jump = self.function(net)
        return lambda x, t, **cond: jump(x, t, self.t_min, **cond)

    @property
    def arrival(self) -> float:
        """Return t_min."""
        return self.t_min
