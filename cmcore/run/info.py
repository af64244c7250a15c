"""``cmcore info RUN``: what a run or a model is, how far it is, how good it was found, and what to type next."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cmcore._words import counted, printable, quoted
from cmcore.errors import Error
from cmcore.model import Model, load_model
from cmcore.networks.cost import parameters
from cmcore.run import figures
from cmcore.run.csv_file import read_columns
from cmcore.run.folder import RunFolder
from cmcore.run.report import duration, facts
from cmcore.run.two_runs import resume_command


def lines(source: str) -> list[str]:
    """Return what there is to say of a run folder, a model file or a model that comes with the package; `Error` for none of these."""
    model, folder = load_model(source), RunFolder(Path(source))
    known = {
        "model": source,
        "recipe": f"{model.recipe.name}: {model.recipe.summary}",
        "network": f"{model.architecture.kind}, {counted(parameters(model.architecture), 'parameter')}",
        "data": _data(model),
        "step": f"{model.step:,} of {model.steps:,}" if model.steps else "",
    }
    versions = model.about.get("versions")
    next_, trained = [], folder.config.is_file()
    if trained:
        config, _, versions = folder.read()
        known["data"] += f", from {config.data}" if config.data and config.data != model.data.name else ""
        known["trained"] = f"{config.backend} on {config.device}, batches of {config.batch:,}, seed {config.seed}"
        known |= _course(folder)
        if model.step < config.steps:
            next_.append(f"To go on: {resume_command(folder.path)}")
        next_.append(f"To see it all as a page: cmcore report {quoted(source)}")
    elif model.steps:
        next_.append(f"To train on from its weights: cmcore train --init {quoted(source)} --data DATA --out RUN")
    if isinstance(versions, dict):
        known["versions"] = ", ".join(f"{name} {version}" for name, version in versions.items() if name != "backend")
    kind = "png" if model.data.images else "npz"
    label = " --label CLASS" if model.data.classes else ""
    next_.insert(0, f"To sample: cmcore sample {quoted(source)}{label} --out samples.{kind}")
    measured = _evaluation(folder.path / "eval.json") if trained else []
    if trained and not measured:
        next_.append(f"To measure it: cmcore eval {quoted(source)}")
    return [facts(known), "", *measured, *next_]


def _data(model: Model) -> str:
    data = model.data
    what = "images" if data.images else "points" if len(data.shape) == 1 else "latents"
    shown = ", ".join(map(printable, data.classes[:10])) + (", ..." if len(data.classes) > 10 else "")
    classes = f"; {counted(len(data.classes), 'class', 'classes')} ({shown})" if data.classes else ""
    return f"{data.name}: {what} of {' x '.join(map(str, data.shape))}{classes}"


def _course(folder: RunFolder) -> dict[str, str]:
    """What the log says last."""
    log = read_columns(folder.log)
    if not log:
        return {}
    last: dict[str, float] = {name: column[-1] for name, column in log.items()}
    return {"loss": f"{last['loss']:.4g} at step {last['step']:,.0f}, after {duration(last['seconds'])} of training"}


def _evaluation(path: Path) -> list[str]:
    """The evaluation that is kept in a file, as a table; nothing without the file, a sentence where it is broken."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        shown = figures.rows_of_json(text)
    except Error as broken:
        return [str(broken), ""]
    about: dict[str, Any] = json.loads(text)
    by = f" by {about['features']}" if about.get("features") else ""
    return [printable(f"Evaluated with {about.get('n', '?')} samples{by}:"), shown, ""]
