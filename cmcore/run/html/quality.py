"""What evaluations found, kept as JSON in a run's folder: figures of quality against network evaluations."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from cmcore.run.html.plots import Series, plot

NAMES = {"frechet": "Frechet distance", "sliced": "Sliced Wasserstein distance", "kid": "KID"}
APART = ("nfe", "ms")
"""Numbers of a row that are no figures of quality."""


def evaluations(folder: Path) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the evaluations in a folder by their files' names; files that hold none are passed over."""
    found: list[tuple[str, Mapping[str, Any]]] = []
    for path in sorted(folder.glob("*.json")):
        try:
            kept = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            continue
        if isinstance(kept, dict) and isinstance(kept.get("rows"), list):
            rows = [row for row in kept["rows"] if isinstance(row, dict)]
            found.append((path.name, {**kept, "rows": rows}))
    return found


def section(name: str, kept: Mapping[str, Any]) -> str:
    """Return an evaluation's plots and table as HTML."""
    rows = kept["rows"]
    metrics = list(
        dict.fromkeys(k for row in rows for k, v in row.items() if k not in APART and _number(v) is not None)
    )
    plots = "".join(_plot(metric, rows) for metric in metrics)
    head = "".join(f"<th>{escape(h)}</th>" for h in ("", "NFE", *(_title(m) for m in metrics)))
    body = "".join(
        f"<tr><th>{escape(str(row.get('name', '')))}</th>"
        + "".join(f"<td>{_cell(row.get(k))}</td>" for k in ("nfe", *metrics))
        + "</tr>"
        for row in rows
    )
    about = [f"{_cell(kept['n'])} samples" if _number(kept.get("n")) else "", str(kept.get("data", ""))]
    said = f"<p>{escape(name)}: {escape(', against '.join(filter(None, about)) or 'an evaluation')}.</p>"
    return f'{said}<div class="two">{plots}</div><div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _plot(metric: str, rows: list[Mapping[str, Any]]) -> str:
    measured = sorted(
        (nfe, value)
        for row in rows
        if (nfe := _number(row.get("nfe"))) is not None and (value := _number(row.get(metric))) is not None
    )
    if len(measured) < 2:
        return ""
    x, y = np.array(measured).T
    floors = [v for row in rows if row.get("nfe") is None and (v := _number(row.get(metric))) is not None]
    series = [Series("samples", y, dots=True)]
    if floors:
        series.append(Series("real data (the floor)", np.full(len(x), floors[0]), "s1", dashed=True))
    about = f"{_title(metric)} against network evaluations: " + ", ".join(f"{v:.4g} at {n:g}" for n, v in measured)
    return plot(_title(metric), about, x, series, "network evaluations")


def _number(value: Any) -> float | None:
    """A figure, be it a number or one with its spread."""
    if isinstance(value, dict):
        value = value.get("mean", value.get("value"))
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def _title(metric: str) -> str:
    return NAMES.get(metric, metric.replace("_", " ").capitalize())


def _cell(value: Any) -> str:
    number = _number(value)
    return "&ndash;" if number is None else f"{number:,.5g}"
