"""What the methods of two neighbouring times share: the consistency loss, from x at t to x at r."""

from __future__ import annotations

from cmcore import losses, solvers
from cmcore.backend import Array
from cmcore.grids import TimePair
from cmcore.losses import ConsistencyFn
from cmcore.paths import Denoiser
from cmcore.recipes import given
from cmcore.recipes.recipe import DISTANCES, Batch, Nets, Recipe


class Discrete(Recipe):
    """Two points of one trajectory must have the same answer (Song et al. 2023, algorithms 2 and 3)."""

    @property
    def step(self) -> solvers.Step:
        """Return the solver's step that leads from the first point to the second."""
        return solvers.euler

    def denoiser(self, nets: Nets, batch: Batch) -> Denoiser | None:
        """Return the denoiser whose ODE is followed; None is the unbiased one, which knows the sample's own x_0."""
        return None

    def target(self, nets: Nets) -> ConsistencyFn:
        """Return the function that answers at the second point."""
        return self.function(given.network(nets, "target"))

    def per_sample(self, nets: Nets, batch: Batch, times: TimePair) -> Array:
        """Return the distance of the answers at the two points."""
        return losses.consistency(
            self.function(given.network(nets, "online")),
            self.target(nets),
            batch.x0,
            batch.z,
            times.t,
            times.r,
            denoiser=self.denoiser(nets, batch),
            step=self.step,
            distance=DISTANCES[self.distance],
            cond=batch.cond,
        )
