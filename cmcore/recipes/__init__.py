"""The papers' methods by name, each a short declaration over the shared mathematics.

A recipe says which network output it trains (`parametrization`), how a batch's times are drawn (`Recipe.curriculum`, `Recipe.pair`)
and what is minimised (`Recipe.per_sample`). Its fields are its options, with the paper's defaults (docs/methods.md tells where not);
``dataclasses.replace`` changes them. A recipe holds no state and no network.

    recipe = cmcore.recipes.get("ect")
    recipe.loss(nets, x0, z, tau, scalars, cond)        # (B,), what a backend's trainer minimises the mean of

An option says its default, its bounds or choices and one line of help where it is declared (`cmcore.options.option`); `options_of`
lists them, as ``cmcore recipes NAME`` shows them. A method from elsewhere is a class like these, derived from `NoiseLevel` or `StraightFlowMap` (examples/new_method.py). An entry
point in the group ``cmcore.recipes`` makes it known by its name, to the command line as well.
"""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from cmcore._entry_points import loaded
from cmcore._words import choice
from cmcore.ema import Average
from cmcore.optimization import Optimizer
from cmcore.options import Limit, option, options_of
from cmcore.recipes import (
    continuous,
    denoising,
    distillation,
    eulerian,
    lagrangian,
    moment_matching,
    semigroup,
    training,
    trajectory,
)
from cmcore.recipes.bibliography import BIBTEX
from cmcore.recipes.guidance import Guided
from cmcore.recipes.noise_level import NoiseLevel
from cmcore.recipes.part import DISTANCES, WEIGHTINGS, Compared, IdentityAtLeastTime, LeastTime, Weighted
from cmcore.recipes.recipe import PATHS, STEPS, Batch, Nets, Recipe
from cmcore.recipes.straight import SelfDistilled, StraightFlowMap
from cmcore.recipes.teacher import Distils, velocity_on

__all__ = [
    "DISTANCES",
    "PATHS",
    "STEPS",
    "WEIGHTINGS",
    "Batch",
    "Compared",
    "Distils",
    "Guided",
    "IdentityAtLeastTime",
    "LeastTime",
    "Limit",
    "Nets",
    "NoiseLevel",
    "Recipe",
    "SelfDistilled",
    "StraightFlowMap",
    "Weighted",
    "by_name",
    "cite",
    "get",
    "names",
    "option",
    "options_of",
    "velocity_on",
]

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
        eulerian.MeanFlow,
        eulerian.ImprovedMeanFlow,
        semigroup.ProgressiveSelfDistillation,
        semigroup.SplitMeanFlow,
        semigroup.Shortcut,
        trajectory.ConsistencyTrajectoryModel,
        eulerian.AlignYourFlow,
        eulerian.SolutionFlow,
        lagrangian.LagrangianSelfDistillation,
        moment_matching.InductiveMomentMatching,
    )
}


def names() -> tuple[str, ...]:
    """Return the names of all recipes, those of other distributions last."""
    return (*_RECIPES, *sorted(_others()))


def get(name: str, **options: Any) -> Recipe:
    """Return the recipe of that name with some of its options changed.

    An option of the optimiser is given as ``optimizer=Optimizer(...)`` or by its own name (``lr=1e-3``), one of the average as
    ``average=Average(...)`` or by its own name (``ema=0.99``). Unknown names and options are a `ValueError` that lists the
    known ones.
    """
    if not isinstance(name, str) or name not in names():
        raise ValueError(f"There is no recipe named {name!r}; {choice(name, names())}")
    recipe = _class_of(name)()
    known = by_name(recipe)
    if unknown := sorted(options.keys() - known.keys() - {"optimizer", "average"}):
        those = choice(unknown[0], sorted(known), "its options are")
        raise ValueError(f"The recipe {name!r} has no option {unknown[0]!r}; {those}")
    optimizer, average = options.pop("optimizer", recipe.optimizer), options.pop("average", recipe.average)
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f'The optimizer must be an Optimizer, such as Optimizer("adam", lr=1e-3), got {optimizer!r}.')
    if not isinstance(average, Average):
        raise TypeError(f"The average must be an Average, such as Average(ema=0.99), got {average!r}.")
    parts = {"optimizer": _changed(optimizer, options), "average": _changed(average, options)}
    return replace(recipe, **parts, **options)


def by_name(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe's options and their values, its optimiser's and its average's among them, as `get` takes them."""
    own = {f.name: getattr(recipe, f.name) for f in fields(recipe) if f.name not in ("optimizer", "average")}
    return own | vars(recipe.optimizer) | vars(recipe.average)


def cite(name: str) -> str:
    """Return the BibTeX entry of the paper that a recipe comes from: its `Recipe.citation`, or the entry of that key."""
    citation = get(name).citation
    return BIBTEX.get(citation, citation)


def _changed(part: Any, options: dict[str, Any]) -> Any:
    """The optimiser or the average with what the options say of it by name, which they then say no more."""
    return replace(part, **{f.name: options.pop(f.name) for f in fields(part) if f.name in options})


def _class_of(name: str) -> type[Recipe]:
    if name in _RECIPES:
        return _RECIPES[name]
    recipe = loaded(_others()[name])
    if not (isinstance(recipe, type) and issubclass(recipe, Recipe) and getattr(recipe, "name", None) == name):
        raise TypeError(
            f"The entry point {_others()[name].value!r} must be a class derived from cmcore.recipes.Recipe "
            f"whose name is {name!r}, got {recipe!r}."
        )
    return recipe


@cache
def _others() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group="cmcore.recipes") if point.name not in _RECIPES}
