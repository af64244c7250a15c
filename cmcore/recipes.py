"""The papers' methods by name, each a short declaration over the shared mathematics.

A recipe says which network output it trains (`parametrization`), how a batch's times are drawn (`curriculum`, `pair`)
and what is minimised (`per_sample`). Its fields are its options, with the paper's defaults; ``dataclasses.replace``
changes them. A recipe holds no state and no network.

    recipe = cmcore.recipes.get("ect")
    recipe.loss(nets, x0, z, tau, scalars, cond)        # (B,), what a backend's trainer minimises the mean of
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal

from cmcore import distances, grids, losses, sampling, solvers, weightings
from cmcore.backend import Array, Network
from cmcore.grids import TimePair
from cmcore.optimization import Optimizer
from cmcore.parametrization import EDM, Boundary, ConsistencyFunction, Parametrization
from cmcore.sampling import Noise

Nets = Mapping[str, Network]
"""The networks of a train step: "online", "target" and, for distillation, "teacher"."""

DISTANCES: dict[str, distances.Distance] = {
    "l1": distances.l1,
    "squared_l2": distances.squared_l2,
    "pseudo_huber": distances.PseudoHuber(),
    "norm": distances.PseudoHuber(1e-8),
}
WEIGHTINGS: dict[str, weightings.Weighting] = {
    "uniform": weightings.uniform,
    "snr": weightings.snr,
    "snr_plus_one": weightings.snr_plus_one,
    "truncated_snr": weightings.truncated_snr,
    "karras": weightings.karras,
    "inverse_gap": weightings.inverse_gap,
}
STEPS: dict[str, solvers.Step] = {"euler": solvers.euler, "heun": solvers.heun}


@dataclass(frozen=True)
class Recipe(ABC):
    """What all methods share: the data's standard deviation, the range of times, distance, weighting and optimiser."""

    sigma_data: float = 0.5
    t_min: float = grids.T_MIN
    t_max: float = grids.T_MAX
    distance: str = "squared_l2"
    weighting: str = "uniform"
    optimizer: Optimizer = Optimizer()

    name: ClassVar[str]
    summary: ClassVar[str]
    citation: ClassVar[str]
    tau: ClassVar[Literal["uniform", "normal"]] = "uniform"
    needs_teacher: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _choose(DISTANCES, self.distance, "distance")
        _choose(WEIGHTINGS, self.weighting, "weighting")
        if not self.sigma_data > 0:
            raise ValueError(f"sigma_data, the data's standard deviation, must be positive, got {self.sigma_data}.")

    @property
    def keep_target(self) -> bool:
        """Whether the target is an averaged copy of the network rather than the network itself."""
        return False

    def parametrization(self) -> Parametrization:
        """Return the scalings under which the trained network is used."""
        return Boundary(self.sigma_data, self.t_min)

    def function(self, net: Network) -> ConsistencyFunction:
        """Return the network as the function this recipe trains: a consistency function, or EDM's denoiser."""
        return ConsistencyFunction(net, self.parametrization())

    def curriculum(self, step: int, total: int) -> dict[str, float]:
        """Return the values that change during training (N, mu, stage) at a step of a run of ``total`` steps."""
        return {}

    def scalars(self, step: int, total: int) -> dict[str, float]:
        """Return all that a train step must be told at a step: the curriculum's values and the optimiser's."""
        return self.curriculum(step, total) | self.optimizer.scalars(step, total)

    @abstractmethod
    def pair(self, tau: Array, scalars: Mapping[str, Array]) -> TimePair:
        """Turn random numbers, (B,), into the batch's times; uniform in [0, 1) or normal, as the field `tau` says."""

    @abstractmethod
    def per_sample(self, nets: Nets, x0: Array, z: Array, pair: TimePair, cond: Mapping[str, Array]) -> Array:
        """Return the unweighted loss of each sample, (B,)."""

    def loss(
        self, nets: Nets, x0: Array, z: Array, tau: Array, scalars: Mapping[str, Array], cond: Mapping[str, Array]
    ) -> Array:
        """Return the weighted loss of each sample, (B,); the argument of `cmcore.backend.Backend.trainer`."""
        pair = self.pair(tau, scalars)
        weight = WEIGHTINGS[self.weighting](pair, self.sigma_data)
        return weight * self.per_sample(nets, x0, z, pair, cond)

    def times(self, steps: int) -> tuple[float, ...]:
        """Return the default times of a sampler with that many steps: down from t_max on a Karras grid.

        The last of several is sigma_data, where signal and noise are equally strong: below it there is little left to
        mend, and above it an evaluation undoes more than it mends.
        """
        if steps < 1:
            raise ValueError(f"Sampling needs at least one step, got {steps}.")
        if steps == 1:
            return (self.t_max,)
        return tuple(float(t) for t in grids.karras_host(steps, self.sigma_data, self.t_max)[::-1])

    def sample(self, net: Network, z: Array, times: Sequence[float], noise: Noise, **cond: Any) -> Array:
        """Turn standard normal z into samples by way of the given decreasing times."""
        return sampling.multistep(self.function(net), z, times, noise, self.t_min, **cond)

    def evaluations(self, steps: int) -> int:
        """Return the number of network evaluations (NFE) that a sampler with that many steps makes."""
        return steps


@dataclass(frozen=True)
class DenoiserRecipe(Recipe):
    """EDM: a denoiser, the teacher of distillation and the starting point of ECT."""

    weighting: str = "karras"
    mean: float = -1.2
    std: float = 1.2
    optimizer: Optimizer = Optimizer("adam")

    name = "edm"
    summary = "The score model: many steps, the best quality. The teacher for cd and a good start for ect."
    citation = "karras2022"
    tau = "normal"

    def parametrization(self) -> Parametrization:
        """Return the denoiser's scalings."""
        return EDM(self.sigma_data)

    def pair(self, tau: Array, scalars: Mapping[str, Array]) -> TimePair:
        """Draw log-normal times; r = 0."""
        t = grids.lognormal_time(tau, self.mean, self.std)
        return TimePair(t, 0.0 * t, t)

    def per_sample(self, nets: Nets, x0: Array, z: Array, pair: TimePair, cond: Mapping[str, Array]) -> Array:
        """Return the denoising error."""
        return losses.denoising(self.function(nets["online"]), x0, z, pair.t, DISTANCES[self.distance], **cond)

    def times(self, steps: int) -> tuple[float, ...]:
        """Return the Karras grid of ``steps`` points, followed by 0."""
        if steps < 2:
            raise ValueError(f"The ODE sampler needs at least 2 steps, got {steps}.")
        return (*(float(t) for t in grids.karras_host(steps, self.t_min, self.t_max)[::-1]), 0.0)

    def sample(self, net: Network, z: Array, times: Sequence[float], noise: Noise, **cond: Any) -> Array:
        """Follow the probability-flow ODE with Heun's method (Karras et al. 2022, algorithm 1)."""
        denoiser = self.function(net)
        return solvers.solve(solvers.heun, lambda x, t: denoiser(x, t, **cond), times[0] * z, times)

    def evaluations(self, steps: int) -> int:
        """Return two evaluations a step but one for the last: 35 for 18 steps."""
        return 2 * steps - 1


@dataclass(frozen=True)
class Distillation(Recipe):
    """Consistency distillation (CD): each step of the teacher's ODE must not change the answer."""

    n: int = 18
    solver: str = "heun"
    mu: float = 0.0
    optimizer: Optimizer = Optimizer("radam", lr=4e-4)

    name = "cd"
    summary = "With a teacher: the steadiest way to one or two steps; unbiased with any distance."
    citation = "song2023"
    needs_teacher = True

    def __post_init__(self) -> None:
        super().__post_init__()
        _choose(STEPS, self.solver, "solver")
        grids.karras_host(self.n, self.t_min, self.t_max)

    @property
    def keep_target(self) -> bool:
        """Whether mu > 0; the authors' CIFAR-10 configuration uses mu = 0."""
        return self.mu > 0

    def curriculum(self, step: int, total: int) -> dict[str, float]:
        """Return the constant N and mu."""
        return grids.Fixed(self.n, self.mu)(step, total)

    def pair(self, tau: Array, scalars: Mapping[str, Array]) -> TimePair:
        """Draw neighbours of the grid."""
        return grids.uniform_pair(tau, scalars["n"], self.t_min, self.t_max)

    def per_sample(self, nets: Nets, x0: Array, z: Array, pair: TimePair, cond: Mapping[str, Array]) -> Array:
        """Return the consistency loss along a step of the teacher's ODE."""
        teacher = ConsistencyFunction(nets["teacher"], EDM(self.sigma_data))
        return losses.consistency(
            self.function(nets["online"]),
            self.function(nets["target"]),
            x0,
            z,
            pair.t,
            pair.r,
            denoiser=lambda x, t: teacher(x, t, **cond),
            step=STEPS[self.solver],
            distance=DISTANCES[self.distance],
            **cond,
        )


class _Training(Recipe):
    """What the methods without a teacher share: the loss of algorithm 3."""

    def per_sample(self, nets: Nets, x0: Array, z: Array, pair: TimePair, cond: Mapping[str, Array]) -> Array:
        """Return the consistency loss between two noise levels of the same data and noise."""
        f, f_target = self.function(nets["online"]), self.function(nets["target"])
        distance = DISTANCES[self.distance]
        return losses.consistency(f, f_target, x0, z, pair.t, pair.r, distance=distance, **cond)


@dataclass(frozen=True)
class Training(_Training):
    """Consistency training (CT): from data alone, on a grid that grows finer."""

    s0: int = 2
    s1: int = 150
    mu0: float = 0.9
    schedule: str = "adaptive"
    convention: Literal["paper", "code"] = "paper"
    optimizer: Optimizer = Optimizer("radam", lr=4e-4)

    name = "ct"
    summary = "The paper's training without a teacher; prefer ect unless you are reproducing the paper."
    citation = "song2023"

    def __post_init__(self) -> None:
        super().__post_init__()
        _choose(("fixed", "progressive", "adaptive"), self.schedule, "schedule")
        self._curriculum()

    @property
    def keep_target(self) -> bool:
        """Whether mu0 > 0."""
        return self.mu0 > 0

    def curriculum(self, step: int, total: int) -> dict[str, float]:
        """Return N(k) and mu(k)."""
        return self._curriculum()(step, total)

    def pair(self, tau: Array, scalars: Mapping[str, Array]) -> TimePair:
        """Draw neighbours of the grid of N(k) points."""
        return grids.uniform_pair(tau, scalars["n"], self.t_min, self.t_max)

    def _curriculum(self) -> grids.Fixed | grids.Progressive:
        if self.schedule == "fixed":
            return grids.Fixed(self.s1, self.mu0)
        return grids.Progressive(self.s0, self.s1, self.mu0, self.schedule == "adaptive", self.convention)


@dataclass(frozen=True)
class EasyConsistencyTuning(_Training):
    """ECT: from denoising (r = 0) to consistency (r near t), stage by stage; no grid and no target network."""

    distance: str = "norm"
    weighting: str = "inverse_gap"
    mean: float = -1.1
    std: float = 2.0
    q: float = 2.0
    k: float = 8.0
    b: float = 1.0
    stages: int = 8
    optimizer: Optimizer = Optimizer("radam", lr=1e-4, ema=0.9999)

    name = "ect"
    summary = "From a trained denoiser (--init) or from nothing: the cheapest strong recipe without a teacher."
    citation = "geng2024"
    tau = "normal"

    def parametrization(self) -> Parametrization:
        """Return EDM's scalings: ECT's boundary is at t = 0."""
        return EDM(self.sigma_data)

    def curriculum(self, step: int, total: int) -> dict[str, float]:
        """Return the stage."""
        return grids.Stages(self.stages)(step, total)

    def pair(self, tau: Array, scalars: Mapping[str, Array]) -> TimePair:
        """Draw log-normal t and map it to r by the stage's rule."""
        t = grids.lognormal_time(tau, self.mean, self.std)
        return grids.ect_pair(t, scalars["stage"], self.q, self.k, self.b)

    def sample(self, net: Network, z: Array, times: Sequence[float], noise: Noise, **cond: Any) -> Array:
        """Multistep sampling with noise of standard deviation t, for f ends at t = 0 here."""
        return sampling.multistep(self.function(net), z, times, noise, 0.0, **cond)


_RECIPES: dict[str, type[Recipe]] = {r.name: r for r in (DenoiserRecipe, Distillation, Training, EasyConsistencyTuning)}


def names() -> tuple[str, ...]:
    """Return the names of all recipes."""
    return tuple(_RECIPES)


def get(name: str, **options: Any) -> Recipe:
    """Return the recipe of that name with some of its options changed.

    An option of the optimiser is given as ``optimizer=Optimizer(...)`` or by its own name (``lr=1e-3``). Unknown names
    and options are a `ValueError` that lists the known ones.
    """
    if name not in _RECIPES:
        raise ValueError(f"There is no recipe named {name!r}; the known ones are {', '.join(names())}.")
    recipe = _RECIPES[name]()
    inner = {f.name for f in fields(Optimizer)}
    outer = {f.name for f in fields(recipe)}
    if unknown := sorted(options.keys() - inner - outer):
        known = ", ".join(sorted((inner | outer) - {"optimizer"}))
        raise ValueError(f"The recipe {name!r} has no option {unknown[0]!r}; its options are {known}.")
    optimizer = options.pop("optimizer", recipe.optimizer)
    optimizer = replace(optimizer, **{k: options.pop(k) for k in list(options) if k in inner})
    return replace(recipe, optimizer=optimizer, **options)


def cite(name: str) -> str:
    """Return the BibTeX entry of the paper that a recipe comes from."""
    return BIBTEX[get(name).citation]


def _choose(known: Collection[str], choice: str, what: str) -> None:
    if choice not in known:
        raise ValueError(f"Unknown {what} {choice!r}; choose one of {', '.join(known)}.")


BIBTEX = {
    "karras2022": """@inproceedings{karras2022elucidating,
  title={Elucidating the Design Space of Diffusion-Based Generative Models},
  author={Karras, Tero and Aittala, Miika and Aila, Timo and Laine, Samuli},
  booktitle={Advances in Neural Information Processing Systems},
  year={2022}
}""",
    "song2023": """@inproceedings{song2023consistency,
  title={Consistency Models},
  author={Song, Yang and Dhariwal, Prafulla and Chen, Mark and Sutskever, Ilya},
  booktitle={International Conference on Machine Learning},
  year={2023}
}""",
    "geng2024": """@inproceedings{geng2025consistency,
  title={Consistency Models Made Easy},
  author={Geng, Zhengyang and Pokle, Ashwini and Luo, William and Lin, Justin and Kolter, J. Zico},
  booktitle={International Conference on Learning Representations},
  year={2025}
}""",
}
