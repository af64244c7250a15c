"""What evaluations found, kept as JSON in a run's folder: figures of quality against network evaluations."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from cmcore.run.figures import Row
from cmcore.run.html.plots import HEIGHT, WIDTH, Series, plot

NAMES = {"frechet": "Frechet distance", "sliced": "Sliced Wasserstein distance", "kid": "KID"}
APART = ("nfe", "ms", "kid_deviation")
"""Numbers of a row that are no figures of quality."""

_STYLE = (
    "svg{background:#fff;font:14px sans-serif}.grid{stroke:#e3e4e0}.axis{stroke:#b9bcb8}.tick{fill:#5b616b}.line{fill:none;stroke-width:2}"
    ".s0{stroke:#2a6fdb}.s1{stroke:#1f8a70}.dot{fill:#2a6fdb;stroke:#fff}.dashed{stroke-dasharray:7 6}.cursor{display:none}"
)
"""The page's colours, for a figure by itself."""


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


def figure(rows: Sequence[Row]) -> str:
    """Return an SVG by itself: the first distance of an evaluation against network evaluations, the floor dashed.

    `ValueError` for fewer than two numbers of evaluations.
    """
    plain = [asdict(row) for row in rows]
    for metric in ("frechet", "sliced"):
        if found := re.search(r"<svg ([^>]*)>(.*)</svg>", _plot(metric, plain), re.DOTALL):
            title = f'<text x="60" y="24" class="tick">{escape(_title(metric))}; dashed: real data</text>'
            head = f'xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" {found[1]}'
            return f"<svg {head}><style>{_STYLE}</style>{found[2]}{title}</svg>\n"
    raise ValueError("A plot of quality needs at least two numbers of steps, such as --steps 1 2 4.")


def _plot(metric: str, rows: Sequence[Mapping[str, Any]]) -> str:
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
