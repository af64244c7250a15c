"""loss_by_time.csv: at which times a network is good or bad already, told from the losses that its training computes anyway."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from cmcore.backend import Array
from cmcore.recipes import Recipe
from cmcore.run.csv_file import CsvFile
from cmcore.training import by_name, drawn

BUCKETS = 8
"""Into how many intervals the times are divided, each of which is drawn about as often as the others."""

LOOKS = 8
"""About how many steps between two rows are looked at: enough for a mean, and too few to be noticed."""


class LossByTime:
    """A table of the weighted loss of the samples whose time lies in each of some intervals; the columns are named by them.

    Rows are at the steps of log.csv's. They are means over every few steps, the same ones whether or not a run is interrupted.
    """

    def __init__(self, path: Path, recipe: Recipe, total: int, step: int, log_every: int) -> None:
        """Open the table, cut back to the rows up to a step."""
        self._recipe, self._every = recipe, max(1, log_every // LOOKS)
        self._file = CsvFile(path, step)
        self._edges = _edges_of(self._file.names) or edges(recipe, total)
        self._pending: list[tuple[Array, Array, dict[str, float]]] = []

    def keep(self, index: int, seen: Sequence[tuple[Array, Array]], scalars: Mapping[str, float]) -> None:
        """Remember a step's losses and tau, without waiting for them."""
        if index % self._every == 0:
            self._pending += [(losses, tau, dict(scalars)) for losses, tau in seen]

    def add(self, step: int, to_numpy: Callable[[Array], np.ndarray]) -> dict[str, float | None]:
        """Write and return the row of a step: the means since the last one, None where no time fell; nothing if none was looked at."""
        if not self._pending:
            return {}
        losses = np.concatenate([np.asarray(to_numpy(each), np.float64) for each, _, _ in self._pending])
        times = np.concatenate([_times(self._recipe, to_numpy(tau), scalars) for _, tau, scalars in self._pending])
        self._pending.clear()
        bucket = np.searchsorted(self._edges[1:-1], times, side="right")
        count = np.bincount(bucket, minlength=len(self._edges) - 1)
        total = np.bincount(bucket, losses, minlength=len(self._edges) - 1)
        means = [float(t / n) if n else None for t, n in zip(total, count, strict=True)]
        row = {"step": step, **dict(zip(_names(self._edges), means, strict=True))}
        self._file.add(row)
        return row


def edges(recipe: Recipe, total: int) -> list[float]:
    """Return the intervals' limits: quantiles of the times that a recipe draws in a run of ``total`` steps, to three digits."""
    rng = np.random.Generator(np.random.Philox(0))
    draw: dict[str, Any] = {"uniform": rng.random, "normal": rng.standard_normal}
    times = np.concatenate(
        [
            _times(
                recipe,
                drawn(recipe.draws, 2048, lambda distribution, shape: draw[distribution](shape, dtype=np.float32)),
                recipe.scalars(share * (total - 1) // 4, total),
            )
            for share in range(5)
        ]
    )
    found = np.quantile(times, np.linspace(0, 1, BUCKETS + 1))
    return sorted({float(f"{value:.3g}") for value in found}) if found[0] < found[-1] else [float(found[0])] * 2


def _times(recipe: Recipe, tau: np.ndarray, scalars: Mapping[str, float]) -> np.ndarray:
    arrays: dict[str, Any] = {name: np.asarray(value, tau.dtype) for name, value in scalars.items()}
    with np.errstate(all="ignore"):  # of a pair's earlier time, which is not asked for
        return np.asarray(recipe.pair(by_name(recipe.draws, tau), arrays).t, np.float64)


def _names(limits: Sequence[float]) -> list[str]:
    return [f"{low:g} to {high:g}" for low, high in pairwise(limits)]


def _edges_of(names: Sequence[str]) -> list[float]:
    """The limits that a table has already; none if it has no columns yet."""
    try:
        pairs = [tuple(map(float, name.split(" to "))) for name in names[1:]]
        return [low for low, _ in pairs] + [pairs[-1][1]] if pairs else []
    except ValueError:
        return []
