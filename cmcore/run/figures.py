"""The figures of an evaluation: a row for each number of steps, as a table, as JSON, as a mean over seeds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np

from cmcore.errors import Error
from cmcore.run.report import table
from cmcore.search import Found

QUALITY = ("frechet", "kid", "precision", "recall", "density", "coverage", "memorized", "classes", "sliced")
"""A row's figures of quality, in the order of the table."""


@dataclass(frozen=True)
class Row:
    """One line of an evaluation. ``nfe`` counts network evaluations a sample, ``ms`` milliseconds a sample.

    Figures that were not computed are None: distances ``frechet``, ``kid`` (with the ``kid_deviation`` between subsets) and
    ``sliced``; shares ``precision``, ``recall``, ``coverage`` and ``memorized``; ``density``; ``classes``, the largest difference between
    the shares of a class, and ``shares``, how many samples are of each class. ``spread`` are the least and the largest of each over seeds.
    """

    name: str
    nfe: int | None
    frechet: float | None
    sliced: float
    ms: float | None
    kid: float | None = None
    kid_deviation: float | None = None
    precision: float | None = None
    recall: float | None = None
    density: float | None = None
    coverage: float | None = None
    memorized: float | None = None
    classes: float | None = None
    shares: tuple[float, ...] = ()
    spread: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def joined(rows: Sequence[Row]) -> Row:
    """Return the mean of rows that differ in their seed alone, with the spread of each figure; one row as it is."""
    if len(rows) == 1:
        return rows[0]
    means: dict[str, Any] = {}
    spread = {}
    for name in (*QUALITY, "kid_deviation", "ms"):
        values = [getattr(row, name) for row in rows]
        if all(value is not None for value in values):
            means[name] = float(np.mean(values))
            if name in QUALITY:
                spread[name] = (min(values), max(values))
    shares = tuple(np.mean([row.shares for row in rows], axis=0).tolist())
    return replace(rows[0], **means, shares=shares, spread=spread)


_COLUMNS: Mapping[str, tuple[str, Callable[[float], str]]] = {
    "frechet": ("Frechet distance", lambda v: f"{v:.4g}"),
    "kid": ("KID", lambda v: f"{v:.2g}"),
    "precision": ("precision", lambda v: f"{v:.3f}"),
    "recall": ("recall", lambda v: f"{v:.3f}"),
    "density": ("density", lambda v: f"{v:.3f}"),
    "coverage": ("coverage", lambda v: f"{v:.3f}"),
    "memorized": ("memorised", lambda v: f"{v:.1%}"),
    "classes": ("classes off", lambda v: f"{v:.1%}"),
    "sliced": ("sliced Wasserstein", lambda v: f"{v:.4g}"),
}


def to_table(rows: Sequence[Row]) -> str:
    """Return an evaluation as text; distances are in the features' units. What no row has is left out."""
    shown = [name for name in QUALITY if any(getattr(row, name) is not None for row in rows) or name == "frechet"]
    cells = [
        [
            row.name,
            "-" if row.nfe is None else str(row.nfe),
            *(_cell(row, name) for name in shown),
            "-" if row.ms is None else f"{row.ms:.3f}",
        ]
        for row in rows
    ]
    return table(("", "NFE", *(_COLUMNS[name][0] for name in shown), "ms per image"), cells)


def _cell(row: Row, name: str) -> str:
    value, said = getattr(row, name), _COLUMNS[name][1]
    if value is None:
        return "-"
    if name == "kid" and row.kid_deviation is not None and name not in row.spread:
        return f"{said(value)} +- {said(row.kid_deviation)}"
    if name in row.spread and name in ("frechet", "kid"):
        return f"{said(value)} ({' to '.join(map(said, row.spread[name]))})"
    return said(value)


def to_json(rows: Sequence[Row], found: Found | None, about: Mapping[str, Any]) -> str:
    """Return an evaluation, and the times that were searched for, as JSON; ``about`` says of what it is."""
    searched = {} if found is None else {"times": found.times, "frechet_to_training_data": found.value}
    kept = [{name: value for name, value in asdict(row).items() if value not in ((), {})} for row in rows]
    return json.dumps({**about, "rows": kept, "search": searched}, indent=2) + "\n"


def rows_of_json(text: str) -> str:
    """Return the table of an evaluation that `to_json` described; `Error` for what is none."""
    known = {f.name for f in fields(Row)}
    try:
        rows = [
            {**row, "shares": tuple(row.get("shares") or ()), "spread": row.get("spread") or {}}
            for row in json.loads(text)["rows"]
        ]
        if odd := [name for row in rows for name in row if name not in known]:
            raise ValueError(f"unknown figure {odd[0]!r}")
        return to_table([Row(**row) for row in rows])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as broken:
        raise Error("The evaluation in eval.json cannot be read; make it again with cmcore eval.") from broken
