"""The score model: what the methods that distil are given, and what others start from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, final

from cmcore import grids, losses, sampling, solvers
from cmcore.backend import Array, Network
from cmcore.grids import TimePair
from cmcore.losses import ConsistencyFn
from cmcore.optimization import Optimizer
from cmcore.options import DEVIATION, FINITE, SHARE, option
from cmcore.recipes import given
from cmcore.recipes.guidance import Guided, drop_labels
from cmcore.recipes.noise_level import NoiseLevel
from cmcore.recipes.part import Compared, LeastTime, Weighted
from cmcore.recipes.recipe import Batch, Nets
from cmcore.sampling import Noise


@final
@dataclass(frozen=True)
class Denoiser(Guided, Weighted, Compared, LeastTime, NoiseLevel):
    """EDM: a denoiser, the teacher of distillation and the starting point of ECT.

    ``label_dropout`` is the share of samples whose class is hidden, so that the network learns the distribution without classes
    too, as classifier-free guidance needs: of a student's teacher, or of its own samples by ``guidance``.
    """

    weighting: str = "karras"
    mean: float = option(-1.2, "mean of ln t", FINITE)
    std: float = option(1.2, "standard deviation of ln t", DEVIATION)
    label_dropout: float = option(0.0, "share of samples whose class is hidden, for guidance", SHARE)
    optimizer: Optimizer = Optimizer("adam")

    name = "edm"
    summary = "The score model: many steps, the best quality. The teacher for cd and a good start for ect."
    citation = "karras2022"
    draws = {"t": "normal", "hidden": "uniform"}
    default_steps = 18

    def pair(self, draws: Mapping[str, Array], scalars: Mapping[str, Array]) -> TimePair:
        """Draw log-normal times; r = 0."""
        t = grids.lognormal_time(draws["t"], self.mean, self.std)
        return TimePair(t, 0.0 * t, t)

    def per_sample(self, nets: Nets, batch: Batch, times: TimePair) -> Array:
        """Return the denoising error."""
        denoiser = self.function(given.network(nets, "online"))
        cond = drop_labels(batch.cond, batch.draws["hidden"] < self.label_dropout)
        return losses.denoising(denoiser, batch.x0, batch.z, times.t, self.compare, cond=cond)

    def times(self, steps: int) -> tuple[float, ...]:
        """Return the Karras grid of ``steps`` points, followed by 0."""
        if steps < 2:
            raise ValueError(f"The ODE sampler needs at least 2 steps, got {steps}.")
        return (*(float(t) for t in grids.karras_host(steps, self.t_min, self.t_max)[::-1]), 0.0)

    def sample(
        self, net: Network, z: Array, times: Sequence[float], noise: Noise, cond: Mapping[str, Array] | None = None
    ) -> Array:
        """Follow the probability-flow ODE with Heun's method (Karras et al. 2022, algorithm 1), with guidance."""
        return sampling.ode(self.guided(self.function(net)), z, times, cond=cond)

    def consistency(self, net: Network) -> ConsistencyFn:
        """Return where the ODE leads by Heun's method, in as many steps as samples take; 35 evaluations each time."""
        shares = [i / (self.default_steps - 1) for i in range(self.default_steps)]
        return end_of_ode(self.guided(self.function(net)), self.t_min, shares)

    def guided(self, denoiser: ConsistencyFn) -> ConsistencyFn:
        """Return the denoiser with guidance; `ValueError` where it never learned what to do without a class."""
        if self.guidance != 1.0 and not self.label_dropout:
            raise ValueError(
                f"Guidance of {self.guidance} asks the network for its output without a class, so it must have been trained without one "
                "at times: label_dropout must be above 0."
            )
        return super().guided(denoiser)

    def evaluations(self, steps: int) -> int:
        """Return two evaluations a step but one for the last, 35 for 18 steps; with guidance twice as many."""
        return (2 * steps - 1) * (1 if self.guidance == 1.0 else 2)


def end_of_ode(denoiser: ConsistencyFn, t_min: float, shares: Sequence[float]) -> ConsistencyFn:
    """Return where Heun's method leads from x at t, by the Karras grid's times at these shares of its index, ending at t_min."""

    def end(x: Array, t: Array, **cond: Any) -> Array:
        def asked(x: Array, t: Array) -> Array:
            return denoiser(x, t, **cond)

        grid = [((1.0 - u) * t ** (1 / grids.RHO) + u * t_min ** (1 / grids.RHO)) ** grids.RHO for u in shares]
        for late, early in pairwise(grid):
            x = solvers.heun(asked, x, late, early)
        return asked(x, grid[-1])

    return end
