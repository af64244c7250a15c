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
    backend = _writer()
    net = model.network(backend)
    f, recipe, data = model.function(backend), model.recipe, model.data
    about = {
        "cmcore": json.dumps(
            {"recipe": recipe.name, "t_min": recipe.lowest_time, "t_max": recipe.highest_time}
            | {"sigma_data": recipe.sigma_data}
            | {
                "data": data.name,
                "shape": data.shape,
                "classes": data.classes,
                "center": data.center,
                "scale": data.scale,
            }
        )
    }
    batch = 2
    x = backend.asarray(np.zeros((batch, *data.shape), np.float32))
    t, s = (backend.asarray(np.full(batch, share * recipe.highest_time, np.float32)) for share in (0.9, 0.1))
    label = {"label": backend.asarray(np.zeros(batch, np.int32))} if model.architecture.classes else {}
    times = {"t": t, "s": s} if recipe.two_times else {"t": t}

    def evaluated(x: Array, *rest: Array) -> Array:
        return f(x, *rest[: len(times)], **dict(zip(label, rest[len(times) :], strict=True)))

    _write(backend, evaluated, {"x": x, **times, **label}, "f", folder / FUNCTION, about, net)
    if recipe.default_steps > 1:
        return [FUNCTION]

    def generated(z: Array, *rest: Array) -> Array:
        made = recipe.sample(net, z, recipe.times(1), _no_noise, dict(zip(label, rest, strict=True)))
        if not data.scale:
            return made
        sides = (-1, *(1,) * (len(data.shape) - 1))
        center, scale = (backend.asarray(np.reshape(v, sides).astype(np.float32)) for v in (data.center, data.scale))
        return made * scale + center

    _write(backend, generated, {"z": x, **label}, "x", folder / GENERATOR, about, net)
    return [FUNCTION, GENERATOR]


def _write(backend: Backend, function: Any, inputs: Any, output: str, path: Path, about: Any, net: Any) -> None:
    getattr(backend, "write_onnx")(function, inputs, output, path, about, [net])  # noqa: B009


def _writer() -> Backend:
    """The first installed backend that writes ONNX files."""
    for name in available():
        backend = load(name).on("cpu")
        if hasattr(backend, "write_onnx"):
            return backend
    raise Error('None of the installed backends writes ONNX files: pip install "cmcore[onnx]".')


def _no_noise(index: int) -> Array:
    raise AssertionError("One step adds no noise.")
