"""A model as ONNX files: one evaluation of its function, and the generator of one step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from cmcore.backend import Array, Backend, available, load
from cmcore.errors import Error
from cmcore.model import Model

FUNCTION, GENERATOR = "function.onnx", "generator.onnx"


def write_onnx(model: Model, folder: Path) -> list[str]:
    """Write the model's files into a folder that is there, and return their names.

    ``function.onnx`` is one evaluation, (x, t) -> f of a consistency function or a denoiser, (x, t, s) -> X of a flow map, with
    ``label`` where the model has classes: x of shape (B, *shape) in the network's units (`cmcore.data_facts.DataFacts.standardized`), t and s of
    shape (B,) in the recipe's times, float32, label (B,) int32. ``generator.onnx``, for models of one step, is (z, label) -> x, from
    standard normal z to samples in the data's units. B is any number. A backend that writes ONNX has to be installed.
    """
    parts = _Parts(model)
    f, recipe = model.function(parts.backend), model.recipe
    times = {"t": parts.times[0], "s": parts.times[1]} if recipe.two_times else {"t": parts.times[0]}

    def evaluated(x: Array, *rest: Array) -> Array:
        return f(x, *rest[: len(times)], **dict(zip(parts.label, rest[len(times) :], strict=True)))

    parts.write(evaluated, {"x": parts.x, **times, **parts.label}, "f", folder / FUNCTION)
    if recipe.default_steps > 1:
        return [FUNCTION]
    write_generator(model, folder / GENERATOR)
    return [FUNCTION, GENERATOR]


def write_generator(model: Model, path: Path) -> None:
    """Write what ``generator.onnx`` is, (z, label) -> x."""
    parts = _Parts(model)
    recipe, data = model.recipe, model.data

    def generated(z: Array, *rest: Array) -> Array:
        made = recipe.sample(parts.net, z, recipe.times(1), _no_noise, dict(zip(parts.label, rest, strict=True)))
        if not data.scale:
            return made
        sides = (-1, *(1,) * (len(data.shape) - 1))
        columns = (np.reshape(v, sides).astype(np.float32) for v in (data.center, data.scale))
        center, scale = (parts.backend.asarray(column) for column in columns)
        return made * scale + center

    parts.write(generated, {"z": parts.x, **parts.label}, "x", path)


def write_evaluation(model: Model, path: Path) -> None:
    """Write one evaluation of a model's consistency function on `cmcore.paths.VE`, whatever its recipe, (x, t, label) -> f.

    It is what editing is made of: t is the standard deviation of the noise in x.
    """
    parts = _Parts(model)
    f = model.recipe.consistency(parts.net)

    def evaluated(x: Array, t: Array, *rest: Array) -> Array:
        return f(x, t, **dict(zip(parts.label, rest, strict=True)))

    parts.write(evaluated, {"x": parts.x, "t": parts.times[0], **parts.label}, "f", path)


class _Parts:
    """What every file is made of: a network, inputs of two samples to trace it with, and what is said of the model."""

    def __init__(self, model: Model) -> None:
        recipe, data, batch = model.recipe, model.data, 2
        self.backend = _writer()
        self.net = model.network(self.backend)
        self.x = self.backend.asarray(np.zeros((batch, *data.shape), np.float32))
        self.times = [self.backend.asarray(np.full(batch, s * recipe.highest_time, np.float32)) for s in (0.9, 0.1)]
        classes = model.architecture.classes
        self.label = {"label": self.backend.asarray(np.zeros(batch, np.int32))} if classes else {}
        facts = {"recipe": recipe.name, "t_min": recipe.lowest_time, "t_max": recipe.highest_time}
        facts |= {"sigma_data": recipe.sigma_data, "data": data.name, "shape": data.shape, "classes": data.classes}
        self.about = {"cmcore": json.dumps(facts | {"center": data.center, "scale": data.scale})}

    def write(self, function: Any, inputs: Any, output: str, path: Path) -> None:
        getattr(self.backend, "write_onnx")(function, inputs, output, path, self.about, [self.net])  # noqa: B009


def _writer() -> Backend:
    """The first installed backend that writes ONNX files."""
    for name in available():
        backend = load(name).on("cpu")
        if hasattr(backend, "write_onnx"):
            return backend
    raise Error('None of the installed backends writes ONNX files: pip install "cmcore[onnx]".')


def _no_noise(index: int) -> Array:
    raise AssertionError("One step adds no noise.")
