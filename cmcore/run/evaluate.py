"""How good a model's samples are, and how fast: distances to held-out data in the space of the values themselves."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cmcore import grids, metrics
from cmcore.backend import Backend
from cmcore.errors import Error
from cmcore.generate import MOST_STEPS, Sampler
from cmcore.model import Model
from cmcore.run.data import Dataset
from cmcore.run.report import table
from cmcore.search import Found, greedy

CANDIDATES = 40
"""Points of the Karras grid that sampling times are searched for on: those of the paper's samplers."""

FRECHET_UP_TO = 4096
"""The Frechet distance is left out for samples of more numbers than this: its covariances would take too long."""


@dataclass(frozen=True)
class Row:
    """One line of an evaluation. ``nfe`` counts network evaluations a sample, ``ms`` milliseconds a sample."""

    name: str
    nfe: int | None
    frechet: float | None
    sliced: float
    ms: float | None


def evaluate(
    model: Model,
    data: Dataset,
    *,
    steps: Sequence[int],
    times: Sequence[float] | None = None,
    n: int = 5000,
    seed: int = 0,
    backend: Backend | None = None,
    batch: int = 256,
    progress: Callable[[str], None] | None = None,
) -> list[Row]:
    """Compare n samples for each number of steps with the data's held-out part, or all of it if none is held out.

    With ``times`` there is a row for a sampler with these times too. The last row is the floor: the distance of the training
    data to the held-out data, if any is held out. Times are medians over batches, noise and copy to the host included; they
    leave out a first batch, in which networks are compiled.
    """
    if tuple(model.data.shape) != tuple(data.shape):
        raise ValueError(f"The model makes samples of shape {model.data.shape}, the data has {data.shape}.")
    check(model, steps, n=n, seed=seed, batch=batch)
    real = data.x if data.held_out is None else data.held_out
    sampler = Sampler(model, backend, min(batch, n))
    rows = []
    schedules: list[tuple[int, str, dict[str, Any]]] = [
        (count, f"{count} {'step' if count == 1 else 'steps'}", {"steps": count}) for count in dict.fromkeys(steps)
    ]
    if times is not None:
        schedules.append((len(times), " ".join(f"{t:.3g}" for t in times), {"times": times}))
    for count, name, schedule in schedules:
        if progress is not None:
            progress(f"{name} ...")
        sampler.warm_up(n, count)
        x, seconds = _timed(sampler, n, schedule, seed)
        ms = 1e3 * seconds / min(batch, n)
        rows.append(compare(name, x, real, nfe=model.recipe.evaluations(count), ms=ms))
    if data.held_out is not None:
        rows.append(compare("real data", data.x, data.held_out))
    return rows


def check(model: Model, steps: Sequence[int], *, n: int, seed: int, batch: int) -> None:
    """Raise `ValueError` for settings that a model cannot be evaluated with; no data are needed for it."""
    for what, value, least in (("samples", n, 2), ("samples at once", batch, 1)):
        if value < least:
            raise ValueError(f"An evaluation needs at least {least} {what}, got {value}.")
    if seed < 0:
        raise ValueError(f"The seed must be at least 0, got {seed}.")
    for count in steps:
        if count > MOST_STEPS:
            raise ValueError(f"A sampler takes at most {MOST_STEPS:,} steps, got {count:,}.")
        model.recipe.times(count)


def check_search(model: Model, steps: int) -> None:
    """Raise `Error` or `ValueError` where times for so many steps cannot be searched for; no data are needed for it."""
    recipe, numbers = model.recipe, math.prod(model.data.shape)
    if len(recipe.times(2)) != 2:  # other samplers' times have an end
        raise Error(f"Times are searched for multistep consistency sampling, which {recipe.name!r} does not use.")
    if numbers > FRECHET_UP_TO:
        raise Error(f"Times are searched for samples of at most {FRECHET_UP_TO} numbers, these have {numbers}.")
    if not 1 <= steps < CANDIDATES:
        raise ValueError(f"Times are searched for at least one step and fewer than {CANDIDATES}, got {steps}.")


def search_times(
    model: Model,
    data: Dataset,
    steps: int,
    *,
    n: int = 5000,
    seed: int = 0,
    backend: Backend | None = None,
    batch: int = 256,
) -> Found:
    """Return the times of a sampler with that many steps whose n samples come nearest to the training data.

    Nearest by the Frechet distance, searched for by `cmcore.search.greedy` on a Karras grid.
    """
    recipe, shape = model.recipe, tuple(model.data.shape)
    check_search(model, steps)
    if shape != tuple(data.shape):
        raise ValueError(f"The model makes samples of shape {shape}, the data has {data.shape}.")
    sampler, real = Sampler(model, backend, min(batch, n)), metrics.statistics(data.x)

    def metric(times: tuple[float, ...]) -> float:
        # Other noise than the evaluation's, which is then not of the noise that the times were chosen for.
        x = sampler(n, times=times, seed=seed + 1)
        return metrics.frechet_distance_from_statistics(metrics.statistics(x), real)

    # The lowest is where f is the identity, or where another network takes over.
    candidates = grids.karras_host(CANDIDATES, recipe.lowest_time, recipe.highest_time)[1:]
    return greedy(metric, steps, candidates.tolist())


def _timed(sampler: Sampler, n: int, schedule: Mapping[str, Any], seed: int) -> tuple[np.ndarray, float]:
    """Samples, and the median of the batches' seconds, which a busy moment of the machine does not move."""
    clock = [time.perf_counter()]
    x = sampler(n, **schedule, seed=seed, progress=lambda _: clock.append(time.perf_counter()))
    return x, float(np.median(np.diff(clock)))


def compare(name: str, x: np.ndarray, real: np.ndarray, *, nfe: int | None = None, ms: float | None = None) -> Row:
    """Return the distances between samples and real data, both (N, ...), as a row."""
    frechet = metrics.frechet_distance(x, real) if x[0].size <= FRECHET_UP_TO else None
    return Row(name, nfe, frechet, metrics.sliced_wasserstein(x, real), ms)


def to_json(rows: Sequence[Row], found: Found | None, about: Mapping[str, Any]) -> str:
    """Return an evaluation, and the times that were searched for, as JSON; ``about`` says of what it is."""
    searched = {} if found is None else {"times": found.times, "frechet_to_training_data": found.value}
    return json.dumps({**about, "rows": [asdict(row) for row in rows], "search": searched}, indent=2) + "\n"


def rows_of_json(text: str) -> str:
    """Return the table of an evaluation that `to_json` described; `Error` for what is none."""
    try:
        return to_table([Row(**row) for row in json.loads(text)["rows"]])
    except (ValueError, KeyError, TypeError, RecursionError) as broken:
        raise Error("The evaluation in eval.json cannot be read; make it again with cmcore eval.") from broken


def to_table(rows: Sequence[Row]) -> str:
    """Return an evaluation as text; Frechet and sliced Wasserstein distances are in the data's units."""
    cells = [
        [
            row.name,
            "-" if row.nfe is None else str(row.nfe),
            "-" if row.frechet is None else f"{row.frechet:.4g}",
            f"{row.sliced:.4g}",
            "-" if row.ms is None else f"{row.ms:.3f}",
        ]
        for row in rows
    ]
    return table(("", "NFE", "Frechet distance", "sliced Wasserstein", "ms per image"), cells)
