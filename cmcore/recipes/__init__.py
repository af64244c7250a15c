"""The papers' methods by name, each a short declaration over the shared mathematics.

A recipe says which network output it trains (`parametrization`), how a batch's times are drawn (`curriculum`, `pair`)
and what is minimised (`per_sample`). Its fields are its options, with the paper's defaults; ``dataclasses.replace``
changes them. A recipe holds no state and no network.

    recipe = cmcore.recipes.get("ect")
    recipe.loss(nets, x0, z, tau, scalars, cond)        # (B,), what a backend's trainer minimises the mean of
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from cmcore.optimization import Optimizer
from cmcore.recipes import continuous, denoising, distillation, flow_maps, semigroup, training, trajectory
from cmcore.recipes.bibliography import BIBTEX
from cmcore.recipes.recipe import DISTANCES, STEPS, WEIGHTINGS, Batch, Nets, Recipe

__all__ = ["DISTANCES", "STEPS", "WEIGHTINGS", "Batch", "Nets", "Recipe", "cite", "get", "names"]

_RECIPES: dict[str, type[Recipe]] = {
    recipe.name: recipe
    for recipe in (
        denoising.Denoiser,
        distillation.ConsistencyDistillation,
        training.ConsistencyTraining,
        training.ImprovedConsistencyTraining,
        training.EasyConsistencyTuning,
        training.TruncatedConsistencyModel,
        training.StableConsistencyTuning,
        distillation.ProgressiveDistillation,
        distillation.MidTraining,
        continuous.ContinuousDistillation,
        continuous.ContinuousTraining,
        continuous.StabilizedTraining,
        continuous.StabilizedDistillation,
        flow_maps.MeanFlow,
        flow_maps.ImprovedMeanFlow,
        semigroup.ProgressiveSelfDistillation,
        semigroup.SplitMeanFlow,
        semigroup.Shortcut,
        trajectory.ConsistencyTrajectoryModel,
        flow_maps.AlignYourFlow,
    )
}


def names() -> tuple[str, ...]:
    """Return the names of all recipes."""
    return tuple(_RECIPES)


def get(name: str, **options: Any) -> Recipe:
    """Return the recipe of that name with some of its options changed.

    An option of the optimiser is given as ``optimizer=Optimizer(...)`` or by its own name (``lr=1e-3``). Unknown names
    and options are a `ValueError` that lists the known ones.
    """
    if not isinstance(name, str) or name not in _RECIPES:
        raise ValueError(f"There is no recipe named {name!r}; the known ones are {', '.join(names())}.")
    recipe = _RECIPES[name]()
    inner = {f.name for f in fields(Optimizer)}
    outer = {f.name for f in fields(recipe)}
    if unknown := sorted(options.keys() - inner - outer):
        known = ", ".join(sorted((inner | outer) - {"optimizer"}))
        raise ValueError(f"The recipe {name!r} has no option {unknown[0]!r}; its options are {known}.")
    optimizer = options.pop("optimizer", recipe.optimizer)
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f'The optimizer must be an Optimizer, such as Optimizer("adam", lr=1e-3), got {optimizer!r}.')
    optimizer = replace(optimizer, **{k: options.pop(k) for k in list(options) if k in inner})
    return replace(recipe, optimizer=optimizer, **options)


def cite(name: str) -> str:
    """Return the BibTeX entry of the paper that a recipe comes from."""
    return BIBTEX[get(name).citation]
