"""Discrete methods without a teacher: two noise levels of the same data and the same noise must give the same output."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

from cmcore import grids
from cmcore._arrays import per_sample
from cmcore.backend import Array, Network, namespace
from cmcore.ema import Average
from cmcore.grids import TimePair
from cmcore.losses import ConsistencyFn
from cmcore.optimization import Optimizer
from cmcore.options import AT_LEAST_ONE, BELOW_ONE, DEVIATION, FINITE, NOT_NEGATIVE, POSITIVE, SHARE, Limit, option
from cmcore.posterior import posterior_mean
from cmcore.recipes import given
from cmcore.recipes.discrete import neighbours_agree
from cmcore.recipes.noise_level import NoiseLevel, down_to
from cmcore.recipes.part import Compared, IdentityAtLeastTime, Part, Weighted
from cmcore.recipes.recipe import Batch, Nets
from cmcore.sampling import Noise

FINEST = Limit(lambda v: v <= 10**6, "at most 1,000,000 steps of the grid")


@final
@dataclass(frozen=True)
class ConsistencyTraining(Weighted, Compared, IdentityAtLeastTime, NoiseLevel):
    """Consistency training (CT): from data alone, on a grid that grows finer."""

    s0: int = option(2, "points of the first grid")
    s1: int = option(150, "points of the last grid", FINEST)
    mu0: float = option(0.9, "decay of the target network on the first grid; 0: the network itself")
    schedule: str = option("adaptive", "how N and mu change in the run", ("fixed", "progressive", "adaptive"))
    convention: Literal["paper", "code"] = option(
        "paper", "whether N counts points or steps: as in the paper or in its code", ("paper", "code")
    )
    optimizer: Optimizer = Optimizer("radam", lr=4e-4)
    average: Average = Average(0.9999)

    name = "ct"
    summary = "The paper's training without a teacher; prefer ect unless you are reproducing the paper."
    citation = "song2023"

    def check(self) -> None:
        """Raise `ValueError` for a curriculum that cannot be."""
        self.curriculum(0, 1)

    @property
    def keep_target(self) -> bool:
        """Whether mu0 > 0."""
        return self.mu0 > 0

    def curriculum(self, step: int, total: int) -> dict[str, float]:
        """Return N(k) and mu(k)."""
        if self.schedule == "fixed":
            return grids.Fixed(self.s1, self.mu0)(step, total)
        adaptive = self.schedule == "adaptive"
        return grids.Progressive(self.s0, self.s1, self.mu0, adaptive, self.convention)(step, total)

    def pair(self, draws: Mapping[str, Array], scalars: Mapping[str, Array]) -> TimePair:
        """Draw neighbours of the grid of N(k) points."""
        return grids.uniform_pair(draws["t"], given.scalar(scalars, "n"), self.t_min, self.t_max)

    def per_sample(self, nets: Nets, batch: Batch, times: TimePair) -> Array:
        """Return the distance of the outputs at the two points."""
        return neighbours_agree(self, nets, batch, times)


@final
@dataclass(frozen=True)
class ImprovedConsistencyTraining(Weighted, Compared, IdentityAtLeastTime, NoiseLevel):
    """Improved consistency training (iCT): no target network, a doubling grid, log-normal times, pseudo-Huber distance.

    The robust distance biases what is learned where the output is uncertain; ``distance="squared_l2"`` does not.
    """

    distance: str = "pseudo_huber"
    weighting: str = "inverse_gap"
    s0: int = option(10, "steps of the first grid")
    s1: int = option(1280, "steps of the last grid", FINEST)
    mean: float = option(-1.1, "mean of ln t", FINITE)
    std: float = option(2.0, "standard deviation of ln t", DEVIATION)
    optimizer: Optimizer = Optimizer("radam", lr=1e-4)
    average: Average = Average(0.99993)

    name = "ict"
    summary = "The strongest training from nothing with forward evaluations alone; long runs and large batches."
    citation = "song2024"

    def check(self) -> None:
        """Raise `ValueError` for a curriculum that cannot be."""
        grids.Doubling(self.s0, self.s1)

    def curriculum(self, step: int, total: int) -> dict[str, float]:
        """Return N(k)."""
        return grids.Doubling(self.s0, self.s1)(step, total)

    def pair(self, draws: Mapping[str, Array], scalars: Mapping[str, Array]) -> TimePair:
        """Draw neighbours of the grid, near the middle of the log-normal distribution more often."""
        n, logarithm, ends = given.scalar(scalars, "n"), (self.mean, self.std), (self.t_min, self.t_max)
        return grids.lognormal_index_pair(draws["t"], n, self.s1 + 1, *logarithm, *ends)

    def per_sample(self, nets: Nets, batch: Batch, times: TimePair) -> Array:
        """Return the distance of the outputs at the two points."""
        return neighbours_agree(self, nets, batch, times)


@dataclass(frozen=True)
class Nearing(Part):
    """ECT's map from t to r, which nears t stage by stage.

    ``k = 0`` is the paper's constant map. ``min_gap`` bounds (t - r) / t from below, as TCM's first stage does (0.001); ``min_r`` is
    the least r of times above it, as in TCM's program (1e-6).
    """

    q: float = option(
        2.0, "factor by which r / t nears 1 in each stage", Limit(lambda v: 1 < v < math.inf, "above 1, and finite")
    )
    k: float = option(8.0, "how much earlier small times near; 0: the constant map", NOT_NEGATIVE)
    b: float = option(1.0, "slope of the sigmoid in t", POSITIVE)
    min_gap: float = option(0.0, "least (t - r) / t", BELOW_ONE)
    min_r: float = option(0.0, "least r, for all t above it", NOT_NEGATIVE)

    def nearing(self, t: Array, scalars: Mapping[str, Array]) -> TimePair:
        """Return times t with the r of the stage."""
        times = grids.ect_pair(t, given.scalar(scalars, "stage"), self.q, self.k, self.b, self.min_gap)
        if not self.min_r:
            return times
        xp, least = namespace(t), 0.0 * t + self.min_r
        raised = (times.r < least) & (least < t)
        return TimePair(t, xp.where(raised, least, times.r), xp.where(raised, t - least, times.gap))


@dataclass(frozen=True)
class Staged(Part):
    """Log-normal times, and as many stages as there are, each for an equal length of the run."""

    mean: float = option(-1.1, "mean of ln t", FINITE)
    std: float = option(2.0, "standard deviation of ln t", DEVIATION)
    stages: int = option(8, "number of stages in the run", AT_LEAST_ONE)

    nearing: ClassVar[Callable[..., TimePair]]

    def curriculum(self, step: int, total: int) -> dict[str, float]:
        """Return the stage."""
        return grids.Stages(self.stages)(step, total)

    def pair(self, draws: Mapping[str, Array], scalars: Mapping[str, Array]) -> TimePair:
        """Draw log-normal t and map it to r by the stage's rule."""
        return self.nearing(grids.lognormal_time(draws["t"], self.mean, self.std), scalars)


@final
@dataclass(frozen=True)
class EasyConsistencyTuning(Staged, Nearing, Weighted, Compared, NoiseLevel):
    """ECT: from denoising (r = 0) to consistency (r near t), stage by stage; no grid and no target network."""

    distance: str = "norm"
    weighting: str = "inverse_gap"
    optimizer: Optimizer = Optimizer("radam", lr=1e-4)
    average: Average = Average(0.9999)

    name = "ect"
    summary = "From a trained denoiser (--init) or from nothing: the cheapest strong recipe without a teacher."
    citation = "geng2024"
    draws = {"t": "normal"}

    def per_sample(self, nets: Nets, batch: Batch, times: TimePair) -> Array:
        """Return the distance of the outputs at the two points."""
        return neighbours_agree(self, nets, batch, times)


@final
@dataclass(frozen=True)
class StableConsistencyTuning(Staged, Nearing, Weighted, Compared, NoiseLevel):
    """SCT: ECT whose second point comes from the mean of the data given the first, over the batch, not from one datum.

    With the whole data set as the batch this is distillation of the empirical distribution's exact score. With classes the mean is
    over the batch's samples of the same class.
    """

    distance: str = "norm"
    weighting: str = "inverse_gap"
    optimizer: Optimizer = Optimizer("radam", lr=1e-4)
    average: Average = Average(0.9999)

    name = "sct-vr"
    summary = "ect with a target of less variance: for small data sets, where a batch is a good part of the data."
    citation = "wang2024"
    draws = {"t": "normal"}

    def per_sample(self, nets: Nets, batch: Batch, times: TimePair) -> Array:
        """Return the distance of the outputs at the ends of a step by the mean, the denoiser of the batch's own distribution."""
        label = batch.cond.get("label")
        return neighbours_agree(self, nets, batch, times, lambda x, t: posterior_mean(batch.x0, x, t, label))


@final
@dataclass(frozen=True)
class TruncatedConsistencyModel(Nearing, Weighted, Compared, NoiseLevel):
    """TCM's second stage: only times above ``transition`` are learned; below it, the first stage's network is used.

    The first stage, an `ect` run, is the teacher, and the weights start from its. A share ``boundary`` of the samples sits
    at the transition itself, with the weight ``boundary_weight``, and ties the two together.
    """

    distance: str = "norm"
    weighting: str = "inverse_gap"
    transition: float = option(1.0, "the time from which on is learned", POSITIVE)
    boundary: float = option(0.25, "share of samples at the transition", SHARE)
    boundary_weight: float = option(0.1, "their weight", NOT_NEGATIVE)
    stage: int = option(9, "the stage of ect's map from t to r, throughout", NOT_NEGATIVE)
    optimizer: Optimizer = Optimizer("radam", lr=5e-5)
    average: Average = Average(0.9999)

    name = "tcm"
    summary = "After ect, with its run as the teacher: spends the network on large times alone; for one step."
    citation = "lee2024"
    draws = {"t": "uniform", "boundary": "uniform"}
    teachers = ("ect",)

    @property
    def lowest_time(self) -> float:
        """Return the transition."""
        return self.transition

    def curriculum(self, step: int, total: int) -> dict[str, float]:
        """Return the constant stage."""
        return {"stage": float(self.stage)}

    def pair(self, draws: Mapping[str, Array], scalars: Mapping[str, Array]) -> TimePair:
        """Draw heavy-tailed times above the transition, or the transition."""
        t = grids.heavy_tailed_time(draws["t"], self.transition, self.t_max)
        t = namespace(t).where(draws["boundary"] < self.boundary, 0.0 * t + self.transition, t)
        return self.nearing(t, scalars)

    def per_sample(self, nets: Nets, batch: Batch, times: TimePair) -> Array:
        """Return the consistency loss, with a weight of its own at the transition."""
        loss = neighbours_agree(self, nets, batch, times, target=self._spliced(nets))
        return namespace(loss).where(batch.draws["boundary"] < self.boundary, self.boundary_weight * loss, loss)

    def _spliced(self, nets: Nets) -> ConsistencyFn:
        """The network itself above the transition and the first stage's below."""
        online, first = self.function(given.network(nets, "target")), self.function(given.network(nets, "teacher"))

        def spliced(x: Array, r: Array, **cond: Any) -> Array:
            below = per_sample(r < self.transition, x)
            return namespace(x).where(below, first(x, r, **cond), online(x, r, **cond))

        return spliced

    def times(self, steps: int) -> tuple[float, ...]:
        """Return a Karras grid from t_max down to the transition, below which the network was not trained."""
        return down_to(steps, max(self.sigma_data, self.transition), self.t_max)

    def sample(
        self, net: Network, z: Array, times: Sequence[float], noise: Noise, cond: Mapping[str, Array] | None = None
    ) -> Array:
        """Turn noise into samples by way of times that are not below the transition."""
        if times[-1] < self.lowest_time:
            learned = f"The recipe {self.name!r} learns times from the transition, {self.transition}, up"
            raise ValueError(f"{learned}; got {times[-1]} to sample from.")
        return super().sample(net, z, times, noise, cond)
