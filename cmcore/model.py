"""The trained model: averaged weights, the recipe and the network they belong to, and the facts of the data; on disk too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from cmcore import networks, recipes
from cmcore._files import check_finite, read_arrays, write_arrays
from cmcore.ema import Average, Constant, Schedule
from cmcore.errors import Error
from cmcore.networks import Architecture
from cmcore.optimization import Optimizer
from cmcore.recipes import Recipe

MODEL = "model.safetensors"
"""The name of the model's file in a run folder."""


@dataclass(frozen=True)
class DataFacts:
    """What a model must know of the data it was trained on; ``shape`` is one sample's, ``fingerprint`` a digest.

    ``center`` and ``scale``, of one number or one for each index of a sample's first axis, say how the data were standardised;
    empty, they were not. Else the network knows ``(x - center) / scale``, and samples are brought back.
    """

    name: str
    shape: tuple[int, ...]
    images: bool = False
    classes: tuple[str, ...] = ()
    fingerprint: str = ""
    center: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("center", "scale"):
            numbers = tuple(float(v) for v in getattr(self, name))
            object.__setattr__(self, name, numbers)
            if len(numbers) not in (0, 1, *self.shape[:1]) or not np.isfinite(numbers).all():
                raise ValueError(f"The {name} of data of shape {tuple(self.shape)} cannot be {numbers}.")
        if bool(self.center) != bool(self.scale) or any(v < 0 for v in self.scale):
            raise ValueError("Data have a center and a scale of at least 0, or neither.")
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "classes", tuple(str(c) for c in self.classes))

    def standardized(self, x: np.ndarray) -> np.ndarray:
        """Return data (N, \\*shape) as the network knows them, float32."""
        if not self.scale:
            return x
        center, scale = self._columns()
        # What is constant has the scale 0.
        return np.asarray((x - center) / np.where(scale > 0, scale, 1.0), np.float32)

    def restored(self, x: np.ndarray) -> np.ndarray:
        """Return samples (N, \\*shape) of a network in the data's units, float32."""
        if not self.scale:
            return x
        center, scale = self._columns()
        return np.asarray(x * scale + center, np.float32)

    def _columns(self) -> tuple[np.ndarray, np.ndarray]:
        """Center and scale in float64, to be broadcast against samples."""
        center, scale = (np.reshape(v, (-1, *(1,) * (len(self.shape) - 1))) for v in (self.center, self.scale))
        return center, scale


@dataclass(frozen=True)
class Model:
    """Averaged weights and all that sampling with them needs. ``step`` of ``steps`` are done; ``about`` is for humans.

    ``weights`` are host arrays in the architecture's layout.
    """

    recipe: Recipe
    architecture: Architecture
    weights: Mapping[str, np.ndarray]
    data: DataFacts
    step: int = 0
    steps: int = 0
    about: Mapping[str, Any] = field(default_factory=dict)


def save_model(model: Model, path: str | PathLike[str]) -> None:
    """Write a model with its manifest, atomically; `ValueError` if a weight is not finite."""
    manifest = {
        "recipe": recipe_to_json(model.recipe),
        "path": type(model.recipe.path).__name__.lower(),
        "parametrization": model.recipe.form,
        "sigma_data": model.recipe.sigma_data,
        "network": networks.to_config(model.architecture),
        "data": {**asdict(model.data), "range": [-1, 1]},
        "ema": _described(model.recipe.average.schedule()),
        "step": model.step,
        "steps": model.steps,
        "about": dict(model.about),
    }
    write_arrays(path, model.weights, manifest)


def load_model(source: str | PathLike[str]) -> Model:
    """Read a model from a run folder or a model file.

    Whatever is wrong with it - missing, truncated, foreign, from a newer version, weights that do not fit the network -
    is a `cmcore.Error` that says so.
    """
    path = Path(source)
    if path.is_dir():
        path = path / MODEL
        if not path.is_file():
            raise Error(f"{source} has no {MODEL}: it is not a run folder, or its training has not saved anything yet.")
    elif not path.exists():
        raise Error(
            f"There is no run folder or model file {str(source)!r}; give the folder that cmcore train wrote (its --out), "
            f"or the {MODEL} in it."
        )
    weights, manifest = read_arrays(path)
    try:
        _check_sizes(manifest["network"], sum(w.size for w in weights.values()))
        # Files of before data were standardised do not say that they were not.
        facts = {"center": (), "scale": (), **{k: v for k, v in manifest["data"].items() if k != "range"}}
        model = Model(
            recipe_from_json(manifest["recipe"]),
            networks.from_config(manifest["network"]),
            weights,
            DataFacts(**{f.name: facts[f.name] for f in fields(DataFacts)}),
            int(manifest["step"]),
            int(manifest["steps"]),
            manifest["about"],
        )
        recorded = (manifest["path"], manifest["parametrization"])
        if recorded != (type(model.recipe.path).__name__.lower(), model.recipe.form):
            raise ValueError("Its path or parametrisation is not the one this version gives its recipe.")
        if model.architecture.shape != model.data.shape:
            raise ValueError("Its network and its data have different shapes.")
        networks.check_weights(model.architecture, weights)
        check_finite(weights)
    except KeyError as missing:
        raise Error(f"The model {path} cannot be used: its manifest lacks {missing}.") from missing
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as mismatch:
        raise Error(f"The model {path} cannot be used: {mismatch}") from mismatch
    return model


def _check_sizes(network: Mapping[str, Any], numbers: int) -> None:
    """Refuse settings larger than all weights together, before anything of such a size is made."""
    for name, value in network.items():
        if isinstance(value, dict):
            _check_sizes(value, numbers)
        for size in value if isinstance(value, list) else [value]:
            if isinstance(size, int) and size > max(numbers, 1024):
                raise ValueError(f"Its network has {name} {size}, and only {numbers} weights.")


def recipe_to_json(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe and all its options as plain JSON data."""
    options = asdict(recipe)
    # In files, from before the average had settings of its own, these are among the optimiser's.
    options["optimizer"] |= options.pop("average")
    return {"name": recipe.name, "options": _plain(options)}


def recipe_from_json(settings: Mapping[str, Any]) -> Recipe:
    """Return the recipe that `recipe_to_json` described; unknown names and options are a `ValueError`."""
    options = dict(settings["options"])
    optimizer = dict(options.pop("optimizer"))
    average = {f.name: optimizer.pop(f.name) for f in fields(Average) if f.name in optimizer}
    optimizer["betas"] = tuple(optimizer["betas"])
    recipe = recipes.get(settings["name"], **options)
    return replace(recipe, optimizer=Optimizer(**optimizer), average=Average(**average))


def _described(average: Schedule) -> dict[str, Any]:
    if isinstance(average, Constant):
        return {"kind": "exponential", "decay": average.rate}
    return {"kind": type(average).__name__, **asdict(average)}  # type: ignore[call-overload]


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with Python's own numbers in place of NumPy's, which JSON does not know."""
    return {
        name: _plain(value) if isinstance(value, dict) else value.item() if isinstance(value, np.generic) else value
        for name, value in options.items()
    }
