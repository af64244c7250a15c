"""Does each method, trained, reach the answer that is known? On a Gaussian and on a mixture of two, one dimension each.

    python benchmarks/recovery.py [--backend jax] [--recipe cd ect ...] [--law gaussian mixture] [--steps 4000] [--seed 0]
    python benchmarks/recovery.py --recipe cd --teacher edm vp linear      # the exact score in other shapes

Each recipe trains a small network from nothing, with the exact score as the teacher where it takes one, and is asked for one
step from t_max. Printed are the root-mean-square error to the exact map and, for the mixture .8 N(-1, .1^2) + .2 N(1, .1^2),
the share of the smaller mode. Robust distances and normalised tangents are replaced by their unbiased forms; ``--as-published``
keeps them, to show the bias.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import product
from statistics import NormalDist
from typing import Any

import numpy as np

import cmcore as cm
from cmcore.backend import Array, Backend
from cmcore.oracles import Along, Gaussian, Mixture, Oracle
from cmcore.recipes import Distils, Recipe

POINTS = 2048
LAWS: dict[str, Oracle] = {"gaussian": Gaussian(0.2, 0.5), "mixture": Mixture([0.8, 0.2], [-1.0, 1.0], 0.1)}
STD = {"gaussian": math.sqrt(0.5**2 + 0.2**2), "mixture": math.sqrt(0.1**2 + 1.0)}
"""Root mean squares: the scale that the networks' inputs are brought to."""

TUNING = {"weighting": "snr_plus_one", "mean": 0.0, "std": 2.0}
CHOICES: dict[str, dict[str, Any]] = {
    "edm": {"mean": -0.5, "std": 1.6},
    "cd": {"n": 40, "weighting": "inverse_gap"},
    "ct": {"s1": 1280, "weighting": "inverse_gap"},
    "ict": {"s1": 320, **TUNING},
    "ect": {"stages": 6, **TUNING},
    "sct-vr": {"stages": 6, **TUNING},
    "tcm": {"stage": 6, "weighting": "snr_plus_one"},
    "cmt": {"steps": 12},
    "cd-continuous": {"weighting": "inverse_gap", "lr": 2e-3},
    "ct-continuous": {"weighting": "inverse_gap", "lr": 1e-3},
    "sct": {"mean": 0.0, "std": 2.0, "learned_weight": False, "tangent_warmup": 500},
    "scd": {"mean": 0.0, "std": 1.6, "learned_weight": False, "tangent_warmup": 500, "lr": 2e-3},
    "meanflow": {"mean": 0.0, "std": 2.0, "diagonal": 0.75, "lr": 2e-3},
    "imf": {"mean": 0.0, "std": 2.0, "diagonal": 0.75, "lr": 2e-3},
    "psd": {"diagonal": 0.5},
    "splitmeanflow": {"diagonal": 0.5},
    "shortcut": {"diagonal": 0.75, "bound": 6.0, "mu": 0.9},
    "ctm": {"n": 24, "reach": 8, "mu": 0.9},
    "soflow": {"mean": 0.0, "std": 2.0, "diagonal": 0.5, "last": 0.01},
    "lsd": {"diagonal": 0.75, "lr": 2e-3},
    "imm": {"gap_exponent": 4.0, "edge": 0.002},
    "ayf": {"std": 1.6, "tangent_warmup": 500, "warmup_max": 1.0, "lr": 2e-3},
}
"""What suits a short run on these laws, found by trying: times that reach the noise, weights that do not forget it, finer grids."""

UNBIASED: dict[str, dict[str, Any]] = {
    "ct": {"mu0": 0.0},
    "ict": {"distance": "squared_l2"},
    "ect": {"distance": "squared_l2"},
    "sct-vr": {"distance": "squared_l2"},
    "tcm": {"distance": "squared_l2"},
    "sct": {"normalize": math.inf},
    "scd": {"normalize": math.inf},
    "meanflow": {"power": 0.0},
    "imf": {"power": 0.0},
    "ayf": {"normalize": math.inf},
    "soflow": {"power": 0.0},
    "imm": {"particles": 64},
}
"""The options under which a method is unbiased. sCD and AYF are so in any case, but then weigh all samples alike here, too.

IMM compares each sample with its own target too, robustly, which is one pair of as many as a group has samples.
"""

ORIGINS = {"tcm": "ect", "pd": "edm"}
"""The recipes that start from another's network, which is their teacher."""


TEACHERS: dict[str, dict[str, Any]] = {
    "edm": {},
    "vp": {"teacher_predicts": "noise", "teacher_path": "vp", "teacher_time_scale": 999.0},
    "linear": {"teacher_predicts": "velocity", "teacher_path": "linear"},
}
"""The kinds of teachers that are public: EDM's, DDPM's predictors of the noise, flow matching's of the velocity."""


@dataclass(frozen=True)
class Size:
    """How large a run is: its length, the batch, the network, and the learning rate it starts from."""

    steps: int = 4000
    batch: int = 512
    width: int = 32
    blocks: int = 2
    features: int = 16
    lr: float = 5e-3


@dataclass(frozen=True, eq=False)
class ExactTeacher:
    """The network that, under EDM's scalings, is the law's denoiser."""

    law: Oracle
    sigma_data: float

    def __call__(self, y: Array, c_noise: Array) -> Array:
        """Return ``(D(x, t) - c_skip x) / c_out`` for ``y = c_in x``."""
        t = cm.namespace(y).exp(4.0 * c_noise)
        c = cm.parametrization.EDM(self.sigma_data).scalings(t)
        x = y / c.c_in[:, None]
        return (self.law.denoiser(x, t) - c.c_skip[:, None] * x) / c.c_out[:, None]


@dataclass(frozen=True, eq=False)
class PredictingTeacher:
    """The network that predicts the noise or the velocity of a law on a path."""

    law: Oracle
    path: cm.paths.Path
    quantity: str
    time_scale: float

    def __call__(self, x: Array, c_noise: Array) -> Array:
        """Return the noise or the velocity at x, a point of the path."""
        t = c_noise / self.time_scale
        convert = {"noise": self.path.noise, "velocity": self.path.velocity}[self.quantity]
        return convert(x, t, Along(self.law, self.path).denoiser(x, t))


def exact_teacher(recipe: Recipe, law: Oracle) -> ExactTeacher | PredictingTeacher:
    """Return the network of the kind that the recipe takes for a teacher, with the law's own score."""
    if not isinstance(recipe, Distils) or recipe.teacher_predicts == "edm":
        return ExactTeacher(law, recipe.sigma_data)
    path = cm.recipes.PATHS[recipe.teacher_path]
    return PredictingTeacher(law, path, recipe.teacher_predicts, recipe.teacher_time_scale)


def draw(law: Oracle, seed: int, batch: int) -> Iterator[np.ndarray]:
    """Yield batches of data, (batch, 1) float32, stratified: each has its components' shares to within one sample."""
    rng = np.random.default_rng(seed)
    while True:
        random = [rng.standard_normal((batch, 1))]
        if isinstance(law, Mixture):
            random.append((rng.permutation(batch)[:, None] + rng.random((batch, 1))) / batch)
        yield np.asarray(law.sample(*random), np.float32)


def train(
    backend: Backend, name: str, law: str, size: Size, as_published: bool = False, seed: int = 0, **changed: Any
) -> tuple[Recipe, Any]:
    """Return the recipe and the network, trained on the law with it, under its averaged weights."""
    recipe = cm.recipes.get(name, **(options(name, law, size, as_published) | changed))
    architecture = cm.networks.ResidualMLP(
        (1,),
        size.width,
        size.blocks,
        features=size.features,
        two_times=recipe.two_times,
        log_weight=recipe.learned_weight,
    )
    teacher, weights = exact_teacher(recipe, LAWS[law]), None
    if origin := ORIGINS.get(name):
        teacher = train(backend, origin, law, size, as_published, seed)[1]
        weights = backend.weights(teacher)
    frozen = {"teacher": teacher} if recipe.needs_teacher else None
    net = backend.network(architecture, weights, seed=seed)
    trainer = cm.Trainer(backend, net, recipe.train_spec(seed=seed), frozen)
    for k, x0 in zip(range(size.steps), draw(LAWS[law], seed, size.batch), strict=False):
        trainer.step(k, backend.asarray(x0), recipe.scalars(k, size.steps))
    return recipe, backend.network(architecture, trainer.weights())


def one_step(backend: Backend, recipe: Recipe, net: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return equally likely noise, (POINTS, 1), and what the recipe makes of it in as few steps as it is meant for."""
    z = np.array([NormalDist().inv_cdf((i + 0.5) / POINTS) for i in range(POINTS)], np.float32)[:, None]
    x = recipe.sample(net, backend.asarray(z), recipe.times(recipe.default_steps), lambda i: backend.asarray(0.0 * z))
    return z, backend.to_numpy(x)


def exact(recipe: Recipe, law: Oracle, z: np.ndarray) -> np.ndarray:
    """Return where the probability-flow ODE takes the noise, on the recipe's path."""
    z = z.astype(np.float64)
    # The straight path starts in pure noise, where the noise-level path has infinite time.
    start = 1e6 if isinstance(recipe.path, cm.paths.Linear) else recipe.highest_time
    return np.asarray(law.flow(start * z, start, cm.recipes.by_name(recipe).get("t_min", cm.grids.T_MIN)))


def options(name: str, law: str, size: Size, as_published: bool = False) -> dict[str, Any]:
    """Return a recipe's options for a run of this size: a learning rate that falls to zero, and a short average."""
    common = {
        "sigma_data": STD[law],
        "lr": size.lr,
        "decay": True,
        "ema": 0.99,
        "algorithm": "adam",
        "weight_decay": 0.0,
    }
    return common | CHOICES.get(name, {}) | ({} if as_published else UNBIASED.get(name, {}))


def recover(
    backend: Backend, name: str, law: str, size: Size, as_published: bool = False, seed: int = 0, **changed: Any
) -> tuple[float, float]:
    """Return the root-mean-square error of the one-step map and the share of samples above 0."""
    recipe, net = train(backend, name, law, size, as_published, seed, **changed)
    z, x = one_step(backend, recipe, net)
    return float(np.sqrt(np.mean((x - exact(recipe, LAWS[law], z)) ** 2))), float(np.mean(x > 0))


def main() -> None:
    """Print a row for each recipe and law."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default=None)
    parser.add_argument("--recipe", nargs="*", default=list(cm.recipes.names()))
    parser.add_argument("--teacher", nargs="*", choices=TEACHERS, default=["edm"], help="for recipes that distil")
    parser.add_argument("--law", nargs="*", default=list(LAWS))
    for field in fields(Size):
        parser.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--as-published", action="store_true")
    args = parser.parse_args()
    backend, size = cm.use(args.backend), Size(**{field.name: getattr(args, field.name) for field in fields(Size)})
    print("| recipe | law | RMS error | share above 0 | seconds |\n|---|---|---|---|---|")
    for name, teacher in product(args.recipe, args.teacher):
        for law in args.law:
            start = time.perf_counter()
            error, share = recover(backend, name, law, size, args.as_published, args.seed, **TEACHERS[teacher])
            title = name if teacher == "edm" else f"{name}, teacher {teacher}"
            print(f"| {title} | {law} | {error:.4f} | {share:.3f} | {time.perf_counter() - start:.0f} |", flush=True)


if __name__ == "__main__":
    main()
