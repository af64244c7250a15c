"""The page of a run: what its folder tells, section by section, in the template's places."""

from __future__ import annotations

import math
import re
from html import escape
from importlib.resources import files
from pathlib import Path

import numpy as np

from cmcore._words import quoted
from cmcore.errors import Error
from cmcore.run.csv_file import read_columns
from cmcore.run.data import Dataset
from cmcore.run.folder import RunFolder
from cmcore.run.html import film, neighbours, quality, settings
from cmcore.run.html.plots import Series, plot, smoothed, thinned
from cmcore.run.loop import SAMPLES
from cmcore.run.plan import Plan

MARK = '<meta name="generator" content="cmcore">'
"""By which a report knows another, which it may overwrite."""

APART = ("step", "loss", "images_per_second", "seconds")
"""The log's columns that are no schedule."""

TITLES = {
    "lr": "Learning rate",
    "n": "Points of the grid, N",
    "mu": "Decay of the target, μ",
    "ema_decay": "Decay of the average",
}


def place(path: Path) -> Path:
    """Return where a report may be written; `Error` where another file is, or for what is no .html."""
    if path.suffix != ".html":
        raise Error(f"A report is an .html file, not {path.name}; choose another --out.")
    if path.exists():
        with path.open("rb") as file:
            if MARK.encode() not in file.read(2000):
                raise Error(f"{path} exists already and is no report; choose another --out.")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def page(folder: RunFolder, data: Dataset | None = None) -> str:
    """Return the page; with the training data it shows the samples' neighbours among them."""
    config, plan, versions = folder.read()
    log = {name: np.array(column) for name, column in read_columns(folder.log).items()}
    grids = film.grids(folder.samples)
    name = folder.path.resolve().name
    evaluations = [quality.section(*found) for found in quality.evaluations(folder.path)]
    sections = {
        "Samples": film.film(grids, SAMPLES),
        "Training loss": f'<div class="two">{_loss(log)}{_by_time(folder.by_time)}</div>' if log else "",
        "Schedules": _schedules(log),
        "Quality": "".join(evaluations),
        "Nearest training pictures": _neighbours(grids, plan, data),
        "Settings": settings.section(config, plan, versions),
        "How to cite": settings.citation(plan),
    }
    drawn = "The same noise at each step, by the averaged weights." if grids else "No pictures of samples were made."
    hints = {
        "Samples": drawn,
        "Training loss": "" if log else "The run has not logged a step yet.",
        "Quality": "" if evaluations else f"Not measured yet: cmcore eval {escape(quoted(folder.path))}",
    }
    body = "".join(
        f'<section id="{title.lower().replace(" ", "-")}"><h2>{title}</h2>{_hint(hints.get(title, ""))}{content}</section>'
        for title, content in sections.items()
        if content or hints.get(title)
    )
    return _filled(
        title=escape(name),
        summary=f"{escape(plan.recipe.name)} &middot; {escape(plan.data.name)}, {_shape(plan)} &middot; "
        f"{escape(config.backend or '')} on {escape(config.device or 'its default device')}",
        about=escape(plan.recipe.summary),
        figures=_figures(log, plan, config.batch, config.steps),
        body=body,
    )


def _filled(**parts: str) -> str:
    template = files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda m: parts[m[1]], template)


def _hint(text: str) -> str:
    return f'<p class="hint">{text}</p>' if text else ""


def _shape(plan: Plan) -> str:
    return " &times; ".join(map(str, plan.data.shape))


def _figures(log: dict[str, np.ndarray], plan: Plan, batch: int, total: int) -> str:
    """The run's figures at a glance."""
    parameters = sum(math.prod(shape) for shape in plan.architecture.layout().values())
    shown = {"parameters": _short(parameters)}
    if log:
        done = int(log["step"][-1])
        tail = log["loss"][-max(1, len(log["loss"]) // 20) :]
        shown |= {
            "steps" if done == total else f"of {total:,} steps": f"{done:,}",
            "images seen": _short(done * batch),
            "training": _duration(log["seconds"][-1]),
            "images/s": f"{float(np.median(log['images_per_second'])):,.0f}",
            "loss at the end": f"{float(np.mean(tail)):.4g}",
        }
    return "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in shown.items())


def _short(number: float) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:,.0f}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _loss(log: dict[str, np.ndarray]) -> str:
    if not log:
        return ""
    x, raw, mean = thinned(log["step"], log["loss"], smoothed(log["loss"]))
    about = f"Loss against training steps: from {log['loss'][0]:.4g} to {log['loss'][-1]:.4g}"
    lines = [Series("logged", raw, "faint"), Series("mean of neighbours", mean)]
    return plot("All times", about, x, lines, "step", log_y=True)


def _by_time(path: Path) -> str:
    columns = read_columns(path)
    if not columns:
        return ""
    step, *values = map(np.array, columns.values())
    x, *lines = thinned(step, *(smoothed(v) for v in values))
    named = zip([*columns][1:], lines, strict=True)
    series = [Series(f"t {name.replace(' to ', '–')}", y, f"r{i}") for i, (name, y) in enumerate(named)]
    about = f"Loss of samples by their time t, against training steps: {'; '.join(s.name for s in series)}"
    return plot("By the time t", about, x, series, "step", log_y=True)


def _schedules(log: dict[str, np.ndarray]) -> str:
    plots, constant = [], []
    for name, values in log.items():
        if name in APART:
            continue
        title = TITLES.get(name, name.replace("_", " ").capitalize())
        if np.ptp(values) == 0:
            constant.append(f"{title} {values[0]:.6g}")
            continue
        x, y = thinned(log["step"], values)
        about = f"{title} against training steps: from {values[0]:.4g} to {values[-1]:.4g}"
        plots.append(plot(title, about, x, [Series(title, y)], "step"))
    if log:
        x, y = thinned(log["step"], log["images_per_second"])
        plots.append(plot("Speed", "Images a second against training steps", x, [Series("images/s", y)], "step"))
    said = _hint("Constant: " + escape("; ".join(constant)) + ".") if constant else ""
    return f'<div class="two">{"".join(plots)}</div>{said}' if plots else said


def _neighbours(grids: list[tuple[int, Path]], plan: Plan, data: Dataset | None) -> str:
    if data is None or not grids or not data.images or tuple(data.shape) != tuple(plan.data.shape):
        return ""
    return neighbours.section(film.tiles(grids[-1][1], plan.data.shape, neighbours.SHOWN), data)
