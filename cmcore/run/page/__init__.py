"""A page of plain files, none of which loads anything from elsewhere: what it is made of, and what it has to know of a model.

Its pictures come from an engine, ``engine.js``: that of ``server/`` asks `cmcore.run.play`, that of ``browser/`` computes them itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cmcore._words import counted, printable
from cmcore.errors import Error
from cmcore.generate import default_steps
from cmcore.model import Model
from cmcore.networks.cost import parameters

PAGE = Path(__file__).parent
"""The folder of the files."""

FILES = {
    "index.html": "text/html",
    "style.css": "text/css",
    "app.js": "text/javascript",
    "board.js": "text/javascript",
    "pictures.js": "text/javascript",
    "compare.js": "text/javascript",
}
"""What the page is made of, besides its engine, and what each file is."""

TASKS = ("sample", "interpolate", "inpaint", "stroke", "variations", "colourise", "upscale")
"""What can be asked for."""

EDITS = TASKS[2:]
"""The tasks that start from a picture."""

MOST_PICTURES = 16

EDIT_STEPS = 10
"""The evaluations of an edit where nothing else is asked for: fewer than the paper's 39, for the answer is waited for."""


def check_shown(name: str, model: Model) -> None:
    """Raise an `Error` unless a model's data are images that a page can show."""
    if not model.data.images or model.data.shape[0] not in (1, 3):
        raise Error(
            f"A page shows models of grey or colour images; the data of {name} have the shape {model.data.shape}. "
            "To see latents or points, use cmcore sample."
        )


def facts(name: str, model: Model) -> dict[str, Any]:
    """Return what a page has to know of a model, as plain JSON data."""
    data, recipe, shape = model.data, model.recipe, model.data.shape
    editable = tuple(task for task in EDITS if task != "colourise" or shape[0] == 3)
    picture = f"{shape[2]} x {shape[1]} {'grey' if shape[0] == 1 else 'colour'}"
    return {
        "name": printable(name),
        "summary": f"{recipe.name}, {counted(parameters(model.architecture), 'parameter')}, {printable(data.name)}, {picture}",
        "shape": list(shape),
        "classes": _class_names(model),
        "steps": default_steps(model),
        "edit_steps": EDIT_STEPS,
        "tasks": ["sample", "interpolate", *(task for task in editable if task != "upscale" or factors(shape))],
        "factors": factors(shape),
    }


def factors(shape: Sequence[int]) -> list[int]:
    """Return by how many times pictures of a shape (C, H, W) can be made smaller, both sides exactly, and stay pictures."""
    return [k for k in range(2, 17) if not shape[1] % k and not shape[2] % k and min(shape[1:]) // k >= 2]


def _class_names(model: Model) -> list[str]:
    count = model.architecture.classes
    return [printable(name) for name in model.data.classes] or [str(i) for i in range(count)]
