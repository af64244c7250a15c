"""What a run that is resumed may change: nothing that its numbers depend on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cmcore._words import quoted
from cmcore.errors import Error
from cmcore.model import Model
from cmcore.recipes import by_name
from cmcore.run.checkpoint import newest_step
from cmcore.run.config import Config, as_typed, differing
from cmcore.run.folder import RunFolder
from cmcore.run.plan import Plan, same_data

if TYPE_CHECKING:
    from cmcore.run.data import Dataset

FREE = (
    "data",
    "range",
    "fit",
    "fast_jpegs",
    "skip_broken",
    "cache",
    "held_out",
    "teacher",
    "device",
    "compiled",
    "accumulate",
    "devices",
    "shard",
    "save_every",
    "save_minutes",
    "sample_every",
    "log",
)
"""The settings that may change: what the data and the teacher are is checked, where and how they were read does not matter."""

ROUNDING = ("device", "compiled", "accumulate", "shard")
"""Those that may change the last bits."""


def check_settings(folder: RunFolder, config: Config) -> None:
    """Raise `Error`, naming the difference, unless a run was started with these settings, as far as its numbers depend on them."""
    before, now = (as_typed(c, but=FREE) for c in (folder.read()[0], config))
    if before == now:
        return
    finished = newest_step(folder.state) >= folder.read()[0].steps
    place = quoted(folder.path)
    advice = (
        "It is finished; to train on, start" if finished else f"Resume it as it was (--out {place} --resume), or start"
    )
    raise Error(
        f"The run in {folder.path} was started with other settings, which its numbers depend on: {differing(before, now)} "
        f"{advice} a new run from its weights with --init {place}."
    )


def check_data(folder: RunFolder, plan: Plan, data: Dataset) -> None:
    """Raise `Error` unless the data are those that the run was trained on, wherever they are now."""
    if not same_data(plan.data.fingerprint, data):
        raise Error(
            f"The data is not what the run in {folder.path} was trained on; resuming needs the same data. "
            "If it is in another place now, name that with --data; what is held out is the same with the same --held-out."
        )


def check_teacher(folder: RunFolder, own: Model, given: Model) -> None:
    """Raise `Error` if a teacher that is given again is not the one of which the run has a copy."""
    same = own.weights.keys() == given.weights.keys() and all(
        np.array_equal(w, given.weights[name]) for name, w in own.weights.items()
    )
    if not same:
        raise Error(f"The run in {folder.path} has another teacher, of which it keeps a copy; leave out --teacher.")


def draws_otherwise(plan: Plan) -> str | None:
    """Return a sentence where the steps to come draw other random numbers than those of an earlier version did, else None."""
    recipe = plan.recipe
    if plan.draws is None:
        # Uniform numbers were made from normal ones.
        same = recipe.name not in ("meanflow", "imf") and not (
            recipe.name == "edm" and by_name(recipe)["label_dropout"]
        )
    else:
        same = dict(plan.draws) == dict(recipe.draws)
    if same:
        return None
    return (
        f"The recipe {recipe.name!r} draws its random numbers in another way than in the version that the run was made with: it goes "
        "on as well as ever, but not to the bits that it would have come to there."
    )


def changes(plan: Plan, there: Config, here: Config) -> list[str]:
    """Return a sentence for each change that may show in the numbers or in what is kept."""
    said = [
        f"The run was made with {name}={getattr(there, name)} and goes on with {name}={getattr(here, name)}: "
        "the same results to the bit are not assured."
        for name in ROUNDING
        if getattr(there, name) != getattr(here, name)
    ]
    if plan.recipe.average.ema_std and there.save_interval() != here.save_interval():
        said.append(f"From here on an average is kept every {here.save_interval():,} steps.")
    return said
