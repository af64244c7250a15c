"""Averages of a run's weights made when it is over, from those that it stored on its way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from cmcore import ema
from cmcore.errors import Error
from cmcore.model import Model, load_model
from cmcore.run.checkpoint import averages
from cmcore.run.folder import RunFolder


def average(folder: RunFolder, std: float, at: int | None = None) -> tuple[Model, float]:
    """Return the model that a run would have given with ``ema_std=std`` after ``at`` steps, by default all so far.

    Beside it the relative error of the average's profile. Averages stored later than ``at`` are left aside. `Error` if the run
    stored none.
    """
    _, plan, _ = folder.read()
    width = plan.recipe.average.ema_std
    if not width:
        raise Error(f"The run in {folder.path} stored no averages; train with --set ema_std=0.05, say.")
    last = load_model(folder.model)
    at = last.step if at is None else at
    paths = averages(folder.averages, up_to=min(at, last.step))
    if not paths:
        raise Error(f"The run in {folder.path} has stored no average up to step {at}.")
    steps = [int(path.stem.removeprefix("step-")) for path in paths]
    gamma = ema.gamma_of(width)
    fit = ema.fit([ema.Profile(step, gamma) for step in steps], ema.Profile(at, ema.gamma_of(std)))
    recipe = replace(last.recipe, average=replace(last.recipe.average, ema_std=std))
    about = {**last.about, "averages": len(paths), "profile_error": fit.error}
    model = replace(last, recipe=recipe, weights=ema.combine(fit.factors, _weights(paths)), step=at, about=about)
    return model, fit.error


def _weights(paths: list[Path]) -> Iterator[ema.Weights]:
    """One at a time, for all together may not fit into memory."""
    return (load_model(path).weights for path in paths)
