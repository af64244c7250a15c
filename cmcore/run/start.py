"""``cmcore train``: from what was typed to a run that is begun or gone on with."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from cmcore import backend as backends_of
from cmcore import recipes
from cmcore._words import quoted
from cmcore.errors import Error
from cmcore.model import load_model
from cmcore.run import data as datasets
from cmcore.run import dry_run, network_settings, phases
from cmcore.run import train as training
from cmcore.run.config import Config, check_options_act, parse_options
from cmcore.run.data import Dataset
from cmcore.run.data.load import NAMED
from cmcore.run.defaults import UNASKED
from cmcore.run.folder import RunFolder
from cmcore.run.lock import held
from cmcore.run.phases import Phases
from cmcore.run.plan import check_given
from cmcore.run.report import Progress, say, terminal_progress
from cmcore.run.resuming import check_settings
from cmcore.workers import workers_of


def train(args: Namespace) -> None:
    """Start or resume a run; for pictures and no method that was asked for a teacher's and its student's."""
    folder, dry = RunFolder(Path(args.out)), getattr(args, "dry_run", False)
    resume = getattr(args, "resume", False)
    given, pairs = _given(args), getattr(args, "set", [])
    begun = phases.read(folder) if resume else None
    if not resume:
        phases.check_free(folder)
        if "data" not in given:
            raise Error(f"Training needs --data: {', '.join(NAMED)}, a folder of images or a file.")
    elif dry:
        raise Error("--dry-run tells of a new run, and --resume goes on with one; cmcore info RUN tells of that.")
    if dry:
        # Nothing is written, decoded pictures included.
        given["cache"] = "none"
    # Whether data are pictures, which get a teacher where no method is asked for, is known once they are read.
    unasked = not resume and not given.keys() & {"recipe", "teacher", "init"}
    both = begun and begun.with_given(given, pairs)
    teacher_first = bool(both) and not folder.config.is_file()
    if both:
        config = both.teacher if teacher_first else both.student
    else:
        config = _one(folder, resume, given, pairs, UNASKED if unasked else ())
    check_options_act(config)
    if not config.backend:
        # The choice of a default, and the line that tells it, belong to `use`.
        config = replace(config, backend=backends_of.use(device=config.device).name)
    progress = terminal_progress()
    with _resumable("device", resume, given):
        config, backend = training.resolved(config)
    writes = workers_of(backend).writes
    if not writes:
        progress = Progress()
    # What cannot be is told before the data are read.
    origins: dict[str, Any] = {}
    if begun and both and teacher_first:
        if own := given.keys() & {"teacher", "init"}:
            raise Error(
                f"The run in {folder.path} trains its own teacher, in {phases.teachers(folder).path}; leave out --{min(own)}."
            )
        phases.check_same(folder, begun, both)
    elif resume:
        check_settings(folder, config)
    else:
        origins = {name: load_model(path) for name in ("teacher", "init") if (path := getattr(config, name))}
        check_given(recipes.get(config.recipe), origins.get("teacher"))
    with _resumable("data", resume, given), progress.phase(f"Reading {config.data}") as count:
        data = load_data(config, note=progress.note, progress=count)
    if _inside(folder.path, config.data):
        progress.note(f"--out lies inside --data; what the run writes to {folder.path} is left out of the data.")
    if unasked and phases.are_for(data):
        phases.check_teacher_free(folder)
        both, teacher_first = phases.chosen(folder, data, backend, given, pairs), True
        progress.note(phases.told(folder, both))
    elif unasked and pairs:
        config = replace(config, options=parse_options(config.recipe, pairs))
    if not resume and writes and not dry:
        with held(folder.path):
            folder.clear()
    if both and teacher_first:
        both = Phases(*(training.resolved(one)[0] for one in (both.teacher, both.student)))
        phases.check_plans(both, data)
        if dry:
            dry_run.tell(both.teacher, data, progress, then=phases.then(folder, both))
            return
        model = phases.train_both(folder, both, data, resume=resume, writes=writes, progress=progress)
    elif dry:
        dry_run.tell(config, data, progress, **origins)
        return
    else:
        model = training.train(config, data, out=folder.path, resume=resume, progress=progress, **origins)
    kind = "png" if model.data.images else "npz"
    if writes:
        say(f"The model is in {folder.model}. To sample: cmcore sample {quoted(folder.path)} --out samples.{kind}")


def _given(args: Namespace) -> dict[str, Any]:
    """The settings that were typed, but the options of --set."""
    given = {f.name: getattr(args, f.name) for f in fields(Config) if hasattr(args, f.name)}
    for source in ("data", "held_out", "teacher", "init"):
        if source in given:
            given[source] = _settled_path(given[source])
    if given.get("cache", "none") != "none":
        given["cache"] = str(Path(given["cache"]).resolve())
    if hasattr(args, "set_network"):
        given["network_settings"] = network_settings.split(args.set_network)
        # Wrong ones are told before the data are read, where the network does not depend on them.
        if named := given.get("network"):
            given["network_settings"] = _read_settings(named, given["network_settings"])
    return given


def _read_settings(network: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    return network_settings.read(network_settings.of_name(network), settings)


def _one(
    folder: RunFolder, resume: bool, given: Mapping[str, Any], pairs: Sequence[str], unasked: Sequence[str]
) -> Config:
    """The settings of one run; its options those of all recipes that it may come to have, where none was asked for."""
    base = folder.read()[0] if resume else Config()
    typed = dict(given)
    if pairs:
        recipe = given.get("recipe", base.recipe)
        typed["options"] = {
            name: value for options in phases.sorted_out(pairs, unasked or (recipe,)) for name, value in options.items()
        }
    if "network_settings" in given and base.network and "network" not in given:
        typed["network_settings"] = _read_settings(base.network, given["network_settings"])
    return replace(base, **typed)


@contextmanager
def _resumable(setting: str, resume: bool, given: Collection[str]) -> Iterator[None]:
    """Say how a run that is resumed is told what has changed since it began."""
    try:
        yield
    except (Error, ValueError) as lacking:
        if resume and setting not in given:
            changed = f"If it has changed since the run began, say so with --{setting}."
        elif resume and setting == "data":
            changed = "Resuming needs the data that the run was trained on."
        else:
            raise
        raise Error(f"{lacking} {changed}") from lacking


def _inside(out: Path, data: str | None) -> bool:
    return (
        data is not None and data not in NAMED and Path(data).is_dir() and Path(data).resolve() in out.resolve().parents
    )


def load_data(config: Config, **told: Any) -> Dataset:
    """Read the data of a run; what reading can tell goes to what is ``told``."""
    if config.data is None:
        raise Error("The run does not say where its data is, for a program started it; resume it in that program.")
    return datasets.load(
        config.data,
        size=config.size,
        channels=config.channels,
        classes=config.classes,
        fit=config.fit,
        fast_jpegs=config.fast_jpegs,
        value_range=config.range,
        latents=config.latents,
        skip_broken=config.skip_broken,
        cache=config.cache,
        held_out=config.held_out,
        **told,
    )


def _settled_path(source: str) -> str:
    # Absolute, so that a run can be resumed from any folder; names of data sets stay as they are.
    return source if source in NAMED or not Path(source).exists() else str(Path(source).resolve())
