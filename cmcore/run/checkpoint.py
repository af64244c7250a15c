"""What a run keeps on its way: the newest training state, and averages, as models, of earlier steps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cmcore._files import read_arrays, write_arrays
from cmcore.errors import Error
from cmcore.model import Model, save_model

_STATE = re.compile(r"step-(\d{8,})\.safetensors")


def save_state(folder: Path, step: int, arrays: Mapping[str, np.ndarray], seconds: float) -> None:
    """Write the state after ``step`` steps, atomically, and only then remove the older ones."""
    path = folder / f"step-{step:08d}.safetensors"
    write_arrays(path, arrays, {"step": step, "seconds": seconds})
    keep_only(folder, step)


def keep_only(folder: Path, step: int) -> None:
    """Remove the states after other steps."""
    for other in _states(folder):
        if _step_of(other) != step:
            other.unlink(missing_ok=True)


def load_state(folder: Path) -> tuple[int, dict[str, np.ndarray], float] | None:
    """Return (step, arrays, seconds of training so far) of the newest readable state, or None if there is no state.

    States that cannot be read are passed over for older ones; if none can be read, the newest one's `Error` is raised.
    """
    problem: Error | None = None
    for path in _states(folder):
        try:
            arrays, about = read_arrays(path)
            return int(about["step"]), arrays, float(about["seconds"])
        except (KeyError, ValueError, TypeError, OverflowError) as unfit:
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
