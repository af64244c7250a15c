"""Flow maps by the Lagrangian identity: the end of a jump moves along the ODE as the time that it leads to moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from cmcore import distances, tangents
from cmcore._arrays import per_sample
from cmcore.backend import Array, namespace, stop_gradient
from cmcore.ema import Average
from cmcore.grids import TimePair
from cmcore.optimization import Optimizer
from cmcore.options import option
from cmcore.recipes import given
from cmcore.recipes.recipe import Batch, Nets
from cmcore.recipes.straight import PATH, SelfDistilled, StraightFlowMap


@final
@dataclass(frozen=True)
class LagrangianSelfDistillation(SelfDistilled, StraightFlowMap):
    """LSD: ``dX(x, t, s)/ds = v(X, s)``, where the velocity v is the network's own for jumps of no length, as flow matching learns it.

    With ``X = x - (t - s) u`` the derivative is ``u - (t - s) du/ds``. As published, the gradient goes through it, to derivatives
    of second order; with ``stop_gradient`` it does not go through du/ds.
    """

    stop_gradient: bool = option(False, "no gradient through the derivative du/ds")
    optimizer: Optimizer = Optimizer("radam", lr=1e-3)
    average: Average = Average(0.9999)

    name = "lsd"
    summary = "A flow map from data alone by the Lagrangian identity: the best of its paper's three, at the cost of a derivative."
    citation = "boffi2025"
    draws = {"t": "uniform", "s": "uniform", "diagonal": "uniform"}
    needs_jvp = True

    def pair(self, draws: Mapping[str, Array], scalars: Mapping[str, Array]) -> TimePair:
        """Draw two uniform times, or one."""
        return self.uniform_times(draws)

    def per_sample(self, nets: Nets, batch: Batch, times: TimePair) -> Array:
        """Return the squared error of the identity, or of flow matching (Boffi et al. 2025, equation 13)."""
        x_t, one = PATH.perturb(batch.x0, batch.z, times.t), namespace(times.t).ones_like(times.t)
        online, target = (self.function(given.network(nets, name)) for name in ("online", "target"))
        gap = per_sample(times.gap, x_t)
        u, along = tangents.exact(lambda s: online.velocity(x_t, times.t, s, **batch.cond), (times.r,), (one,))
        v = target.velocity(stop_gradient(x_t - gap * u), times.r, times.r, **batch.cond)
        goal = stop_gradient(namespace(v).where(gap > 0, v, batch.z - batch.x0))
        return distances.squared_l2(u - gap * (stop_gradient(along) if self.stop_gradient else along), goal)
