"""How good a model's samples are, and how fast: compared with held-out data, by their values or by features."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from cmcore import grids, metrics
from cmcore.backend import Backend
from cmcore.errors import Error
from cmcore.features import Features, Pixels
from cmcore.generate import MOST_STEPS, Sampler
from cmcore.model import Model
from cmcore.run.data import Dataset
from cmcore.run.figures import Row, joined
from cmcore.run.real import FRECHET_UP_TO, Real
from cmcore.run.seen import sight
from cmcore.search import Found, greedy

CANDIDATES = 40
"""Points of the Karras grid that sampling times are searched for on: those of the paper's samplers."""


def evaluate(
    model: Model,
    data: Dataset,
    *,
    steps: Sequence[int],
    times: Sequence[float] | None = None,
    n: int = 5000,
    seed: int = 0,
    seeds: int = 1,
    features: Features | None = None,
    backend: Backend | None = None,
    batch: int = 256,
    compute: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> list[Row]:
    """Compare n samples for each number of steps with the data's held-out part, or all of it if none is held out.

    With ``times`` there is a row for a sampler with these times too. Each row is the mean over ``seeds`` seeds from ``seed`` on.
    ``features`` are what is compared, by default the values themselves; ``compute`` is `cmcore.generate.Sampler`'s. The last row is the floor: as many real samples that
    were trained on, or, if none are held out, one half of the data against the other; held-out samples' own memorisation is its
    too. Times are medians over batches, noise and copy to the host included; they leave out a first batch, in which networks are
    compiled. Samples are not kept: memory does not grow with their number but by what `cmcore.metrics` takes of their features.
    """
    if tuple(model.data.shape) != tuple(data.shape):
        raise ValueError(f"The model makes samples of shape {model.data.shape}, the data has {data.shape}.")
    check(model, steps, n=n, seed=seed, batch=batch, seeds=seeds)
    sampler, say = Sampler(model, backend, min(batch, n), compute), progress or (lambda _: None)
    schedules: list[tuple[int, str, dict[str, Any]]] = [
        (count, f"{count} {'step' if count == 1 else 'steps'}", {"steps": count}) for count in dict.fromkeys(steps)
    ]
    if times is not None:
        schedules.append((len(times), " ".join(f"{t:.3g}" for t in times), {"times": times}))
    rows = []
    with sight(features or Pixels()) as look:
        say("real data ...")
        real = Real(look, data, n)
        for count, name, schedule in schedules:
            sampler.warm_up(n, count)
            found = []
            for own in range(seed, seed + seeds):
                say(f"{name} ..." if seeds == 1 else f"{name}, seed {own} ...")
                seconds: list[float] = []
                seen = look.of(n, _made(sampler, n, schedule, own, seconds))
                # The median over batches, which a busy moment of the machine does not move.
                ms = 1e3 * float(np.median(seconds)) / min(batch, n)
                found.append(real.row(name, seen, nfe=model.recipe.evaluations(count), ms=ms))
            rows.append(joined(found))
        if floor := real.floor():
            rows.append(floor)
    return rows


def _made(
    sampler: Sampler, n: int, schedule: Mapping[str, Any], seed: int, seconds: list[float]
) -> Iterator[np.ndarray]:
    """Batches of samples; ``seconds`` is told how long each took, without what is done with it."""
    batches = sampler.batches(n, **schedule, seed=seed)
    while True:
        start = time.perf_counter()
        made = next(batches, None)
        if made is None:
            return
        seconds.append(time.perf_counter() - start)
        yield made[1]


def check(model: Model, steps: Sequence[int], *, n: int, seed: int, batch: int, seeds: int = 1) -> None:
    """Raise `ValueError` for settings that a model cannot be evaluated with; no data are needed for it."""
    for what, value, least in (("samples", n, 2), ("samples at once", batch, 1), ("seed", seeds, 1)):
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
