"""Discrete methods with a teacher: consistency distillation, progressive distillation, mid-training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from cmcore import grids, sampling, solvers
from cmcore._arrays import per_sample
from cmcore.backend import Array, Network, namespace, stop_gradient
from cmcore.ema import Average
from cmcore.grids import TimePair
from cmcore.optimization import Optimizer
from cmcore.options import AT_LEAST_ONE, BELOW_ONE, GRID_POINTS, option
from cmcore.recipes import given
from cmcore.recipes.discrete import neighbours_agree
from cmcore.recipes.noise_level import NoiseLevel, down_to
from cmcore.recipes.part import Compared, IdentityAtLeastTime, LeastTime, Weighted
from cmcore.recipes.recipe import STEPS, Batch, Nets
from cmcore.recipes.teacher import Distils
from cmcore.sampling import Noise


@final
@dataclass(frozen=True)
class ConsistencyDistillation(Distils, Weighted, Compared, IdentityAtLeastTime, NoiseLevel):
    """Consistency distillation (CD): each step of the teacher's ODE must not change the output.

    The authors' CIFAR-10 configuration has no target network, ``mu = 0``.
    """

    n: int = option(18, "points of the Karras grid", GRID_POINTS)
    solver: str = option("heun", "the step along the teacher's ODE", STEPS)
    mu: float = option(0.0, "decay of the target network; 0: the network itself", BELOW_ONE)
    optimizer: Optimizer = Optimizer("radam", lr=4e-4)
    average: Average = Average(0.9999)

    name = "cd"
    summary = "With a teacher: the steadiest way to one or two steps; unbiased with any distance."
    citation = "song2023"

    @property
    def keep_target(self) -> bool:
        """Whether mu > 0."""
        return self.mu > 0

    def curriculum(self, step: int, total: int) -> dict[str, float]:
        """Return the constant N and mu."""
        return grids.Fixed(self.n, self.mu)(step, total)

    def pair(self, draws: Mapping[str, Array], scalars: Mapping[str, Array]) -> TimePair:
        """Draw neighbours of the grid."""
        return grids.uniform_pair(draws["t"], given.scalar(scalars, "n"), self.t_min, self.t_max)

    def per_sample(self, nets: Nets, batch: Batch, times: TimePair) -> Array:
        """Return the distance of the outputs at the two ends of a step."""
        return neighbours_agree(self, nets, batch, times, self.denoiser(nets, batch), STEPS[self.solver])


@final
@dataclass(frozen=True)
class ProgressiveDistillation(Weighted, Compared, LeastTime, NoiseLevel):
    """Progressive distillation: a sampler of N steps learns to do what one of 2 N steps does, until N = 1.

    The target network is the teacher of the stage; it must start from the teacher's weights, as `cmcore train` sees to. The
    authors start from thousands of steps, and let the learning rate fall to zero in each stage; here it follows the run.
    """

    weighting: str = "truncated_snr"
    start: int = option(64, "steps of the first teacher's sampler, a power of 2")
    optimizer: Optimizer = Optimizer("adam", lr=5e-5, clip=1.0)

    name = "pd"
    summary = "The predecessor of cd, as a baseline: halves the teacher's steps stage by stage."
    citation = "salimans2022"
    teachers = ("edm",)
    starts_as_teacher = True
    keep_target = True

    def check(self) -> None:
        """Raise `ValueError` unless the number of steps can be halved down to one."""
        grids.Halving(self.start)

    def curriculum(self, step: int, total: int) -> dict[str, float]:
        """Return the student's number of steps, and when the teacher is replaced."""
        return grids.Halving(self.start)(step, total)

    def pair(self, draws: Mapping[str, Array], scalars: Mapping[str, Array]) -> TimePair:
        """Draw neighbours of the grid of N steps, N + 1 points."""
        return grids.uniform_pair(draws["t"], given.scalar(scalars, "n") + 1, self.t_min, self.t_max)

    def per_sample(self, nets: Nets, batch: Batch, times: TimePair) -> Array:
        """Return the distance to the denoiser's value whose one step ends where the target's two steps do."""
        x_t = batch.x0 + per_sample(times.t, batch.x0) * batch.z
        student, teacher = self.function(given.network(nets, "online")), self.function(given.network(nets, "target"))
        half = grids.karras_midpoint(times.t, times.r)
        x_r = solvers.solve(solvers.euler, lambda x, t: teacher(x, t, **batch.cond), x_t, (times.t, half, times.r))
        goal = x_t - per_sample(times.t / times.gap, x_t) * (x_t - x_r)
        return self.compare(student(x_t, times.t, **batch.cond), stop_gradient(goal))

    def times(self, steps: int) -> tuple[float, ...]:
        """Return the Karras grid of ``steps`` steps down to t_min."""
        if steps < 1:
            raise ValueError(f"Sampling needs at least one step, got {steps}.")
        return down_to(steps + 1, self.t_min, self.t_max)

    def sample(
        self, net: Network, z: Array, times: Sequence[float], noise: Noise, cond: Mapping[str, Array] | None = None
    ) -> Array:
        """Follow the ODE with Euler's method (DDIM)."""
        return sampling.ode(self.function(net), z, times, solvers.euler, cond=cond)


@final
@dataclass(frozen=True)
class MidTraining(Distils, Compared, LeastTime, NoiseLevel):
    """Consistency mid-training (CMT): every point of the teacher's trajectories is taken to its end.

    The trajectories start at t_max in noise and take ``steps`` Heun steps of the Karras grid. What comes out is a start for
    `ect` (``--init``), better than a score model's weights.
    """

    steps: int = option(8, "Heun steps of a trajectory", AT_LEAST_ONE)
    optimizer: Optimizer = Optimizer("radam", lr=1e-4)

    name = "cmt"
    summary = "With a teacher: a warm start for ect, by regression on whole trajectories."
    citation = "hu2025"

    def pair(self, draws: Mapping[str, Array], scalars: Mapping[str, Array]) -> TimePair:
        """Start at t_max, end at t_min, whatever is drawn."""
        return TimePair(*(0.0 * draws["t"] + time for time in (self.t_max, self.t_min, self.t_max - self.t_min)))

    def per_sample(self, nets: Nets, batch: Batch, times: TimePair) -> Array:
        """Return the distance, averaged over the points of the trajectory, of f there to the trajectory's end."""
        xp, grid = namespace(batch.z), down_to(self.steps + 1, self.t_min, self.t_max)
        *points, end = solvers.trajectory(solvers.heun, self.denoiser(nets, batch), self.t_max * batch.z, grid)
        # All points in one evaluation: (steps * B, ...), the points of one time after those of another.
        cond = {name: _repeated(value, self.steps, like=batch.z) for name, value in batch.cond.items()}
        t = xp.concat([0.0 * times.t + t for t in grid[:-1]], axis=0)
        outputs = self.function(given.network(nets, "online"))(stop_gradient(xp.concat(points, axis=0)), t, **cond)
        each = self.compare(outputs, xp.concat([stop_gradient(end)] * self.steps, axis=0))
        return xp.mean(xp.reshape(each, (self.steps, batch.z.shape[0])), axis=0)


def _repeated(value: Any, times: int, like: Array) -> Any:
    """Return a condition that has a value for each sample that many times over; any other as it is."""
    if getattr(value, "shape", ())[:1] != like.shape[:1]:
        return value
    return namespace(like).concat([value] * times, axis=0)
