"""Models and training states on disk: safetensors written whole or not at all, validated when read, never unpickled."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from cmcore import networks
from cmcore.ema import Constant, Schedule
from cmcore.errors import Error
from cmcore.networks import Architecture
from cmcore.recipes import Recipe
from cmcore.run.config import DataFacts, recipe_from_json, recipe_to_json
from cmcore.run.files import atomic_write

FORMAT = 1
"""The version of the layout of model and state files; files of a higher one are refused."""

MODEL = "model.safetensors"
_KEY = "cmcore"
_STATE = re.compile(r"step-(\d{8,})\.safetensors")


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
    _check_finite(model.weights)
    manifest = {
        "format": FORMAT,
        "recipe": recipe_to_json(model.recipe),
        "path": type(model.recipe.path).__name__.lower(),
        "parametrization": model.recipe.form,
        "sigma_data": model.recipe.sigma_data,
        "network": networks.to_config(model.architecture),
        "data": {**asdict(model.data), "range": [-1, 1]},
        "ema": _described(model.recipe.optimizer.average()),
        "step": model.step,
        "steps": model.steps,
        "about": dict(model.about),
    }
    _write(path, model.weights, manifest)


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
    weights, manifest = _read(path)
    try:
        facts = {f.name: manifest["data"][f.name] for f in fields(DataFacts)}
        model = Model(
            recipe_from_json(manifest["recipe"]),
            networks.from_config(manifest["network"]),
            weights,
            DataFacts(**facts),
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
        _check_finite(weights)
    except KeyError as missing:
        raise Error(f"The model {path} cannot be used: its manifest lacks {missing}.") from missing
    except (ValueError, TypeError, AttributeError) as mismatch:
        raise Error(f"The model {path} cannot be used: {mismatch}") from mismatch
    return model


def save_state(folder: Path, step: int, arrays: Mapping[str, np.ndarray], seconds: float) -> None:
    """Write the state after ``step`` steps, atomically, and only then remove the older ones."""
    _check_finite(arrays)
    path = folder / f"step-{step:08d}.safetensors"
    _write(path, arrays, {"format": FORMAT, "step": step, "seconds": seconds})
    for older in _states(folder):
        if older != path:
            older.unlink(missing_ok=True)


def load_state(folder: Path) -> tuple[int, dict[str, np.ndarray], float] | None:
    """Return (step, arrays, seconds of training so far) of the newest readable state, or None if there is no state.

    States that cannot be read are passed over for older ones; if none can be read, the newest one's `Error` is raised.
    """
    problem: Error | None = None
    for path in _states(folder):
        try:
            arrays, about = _read(path)
            return int(about["step"]), arrays, float(about["seconds"])
        except (KeyError, ValueError, TypeError) as unfit:
            problem = problem or Error(f"The training state {path} cannot be used: {unfit!r}.")
        except Error as unreadable:
            problem = problem or unreadable
    if problem:
        raise problem
    return None


def newest_step(folder: Path) -> int:
    """Return the step of the newest state in a folder, readable or not; 0 if there is none."""
    return max(map(_step_of, _states(folder)), default=0)


def save_average(folder: Path, model: Model) -> None:
    """Write the average of a run under way, as a model, beside those of earlier steps."""
    folder.mkdir(exist_ok=True)
    save_model(model, folder / f"step-{model.step:08d}.safetensors")


def averages(folder: Path, up_to: int) -> list[Path]:
    """Return the files of the averages that `save_average` wrote in steps up to the given one, oldest first."""
    return [path for path in reversed(_states(folder)) if _step_of(path) <= up_to]


def _states(folder: Path) -> list[Path]:
    """The files of a folder that are named after steps, newest first."""
    found = [p for p in folder.glob("step-*.safetensors") if _STATE.fullmatch(p.name)] if folder.is_dir() else []
    return sorted(found, key=_step_of, reverse=True)


def _step_of(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


def _described(average: Schedule) -> dict[str, Any]:
    if isinstance(average, Constant):
        return {"kind": "exponential", "decay": average.rate}
    return {"kind": type(average).__name__, **asdict(average)}  # type: ignore[call-overload]


def _write(path: str | PathLike[str], arrays: Mapping[str, np.ndarray], manifest: Mapping[str, Any]) -> None:
    dense = {name: np.asarray(a, order="C") for name, a in arrays.items()}
    # JSON of floats is exact: Python writes the shortest text that reads back as the same number.
    atomic_write(path, safetensors.numpy.save(dense, {_KEY: json.dumps(manifest)}))


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    if not path.is_file():
        raise Error(f"There is no file {path}.")
    try:
        with safetensors.safe_open(path, framework="np") as file:
            manifest = json.loads((file.metadata() or {}).get(_KEY, "null"))
            ours = isinstance(manifest, dict) and isinstance(manifest.get("format"), int)
            if ours and manifest["format"] <= FORMAT:
                return {name: np.array(file.get_tensor(name)) for name in file.keys()}, manifest
    except (safetensors.SafetensorError, json.JSONDecodeError) as broken:
        raise Error(
            f"{path} cannot be read: it is truncated or damaged, or not a safetensors file ({str(broken).rstrip('.')})."
        ) from broken
    if not ours:
        raise Error(f"{path} is a safetensors file without cmcore's manifest; only what cmcore wrote can be used.")
    raise Error(
        f"{path} has format version {manifest['format']}, newer than {FORMAT}, which this cmcore reads; "
        "install a newer cmcore."
    )


def _check_finite(arrays: Mapping[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"The array {name!r} holds numbers that are not finite.")
