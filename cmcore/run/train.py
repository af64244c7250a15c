"""Training as configured: a run that is new, or one that is gone on with; what it starts from, and what is checked first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cmcore import backend as backends
from cmcore import recipes
from cmcore._words import counted
from cmcore.backend import Backend
from cmcore.errors import Error, sentence
from cmcore.model import Model, load_model
from cmcore.networks import Architecture, extend_weights, to_config
from cmcore.run.board import check_installed
from cmcore.run.checkpoint import load_state, newest_step
from cmcore.run.config import Config
from cmcore.run.failures import unexpected
from cmcore.run.folder import RunFolder, describe_versions
from cmcore.run.lock import held
from cmcore.run.loop import Run
from cmcore.run.plan import Plan, caution, continues, make_plan
from cmcore.run.report import Progress, either
from cmcore.run.resuming import changes, check_data, check_settings, check_teacher, draws_otherwise
from cmcore.run.two_runs import resume_command
from cmcore.training import pays_to_compile
from cmcore.workers import Workers, workers_of

if TYPE_CHECKING:
    from cmcore.run.data import Dataset

Source = Model | str | PathLike[str]
"""A model, or the run folder or file to load it from."""


def train(
    config: Config,
    data: Dataset,
    *,
    out: str | PathLike[str] | None = None,
    teacher: Source | None = None,
    init: Source | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Model:
    """Train as configured and return the model; with ``out``, write a run folder on the way, from which it can resume.

    ``teacher`` and ``init`` (weights to start from, of a run with the same network) come before the configuration's.
    ``resume`` goes on with the run in ``out``, which must have been started with the same settings and data. On Ctrl-C
    the step under way is finished and saved before `KeyboardInterrupt` is raised. Raises `Error` for what the user can
    mend, a loss that is not finite included.
    """
    progress = progress or Progress()
    config, backend = resolved(config)
    check_installed(config.log)
    folder = RunFolder(Path(out)) if out is not None else None
    workers = workers_of(backend)
    if not workers.writes:
        progress = Progress()
    if not resume:
        if folder and workers.writes:
            folder.check_free()
        with _goes_on(folder, workers):
            return _train_anew(config, data, backend, folder, teacher or config.teacher, init or config.init, progress)
    if folder is None:
        raise ValueError("There is nothing to resume without the folder of a run.")
    before = folder.read()[0]
    check_settings(folder, config)
    moved = teacher or (config.teacher if config.teacher != before.teacher else None)
    with _goes_on(folder, workers), held(folder.path) if workers.writes else nullcontext():
        return _train_on(config, data, backend, folder, _load(moved), progress)


def resolved(config: Config) -> tuple[Config, Backend]:
    """Return the configuration with backend, device and compiling settled, and that backend; `Error` if it cannot train."""
    backend = backends.load(config.backend) if config.backend else backends.default()
    if hasattr(backend, "across"):
        backend = backend.across(config.device, config.devices, config.shard)
    elif config.shard or (config.devices or 1) > 1:
        raise Error(f"The backend {backend.name!r} trains on one device; leave out --devices and --shard.")
    else:
        backend = backend.on(config.device)
    if not backend.trainable:
        raise Error(f"The backend {backend.name!r} has no gradients; train with {either(backends.may_train())}.")
    workers = workers_of(backend)
    workers.check(config.batch, config.accumulate)
    compiled = config.compiled
    if compiled is None:
        compiled = pays_to_compile(backend, config.steps, jvp=recipes.get(config.recipe).needs_jvp)
    # Of several processes the launcher knows how many they are, and how many a run was begun with matters no more.
    devices = workers.devices if workers.count == 1 and workers.devices > 1 else config.devices
    return replace(config, backend=backend.name, device=backend.device, devices=devices, compiled=compiled), backend


@contextmanager
def _goes_on(folder: RunFolder | None, workers: Workers) -> Iterator[None]:
    """Say, if a disk, a framework or another process fails a run that can be resumed, what is kept and how to go on."""
    try:
        yield
    except (OSError, MemoryError, RuntimeError) as failure:
        lost = workers.lost(failure)
        if folder is None or not folder.config.exists():
            if lost:
                raise Error("Another worker was lost, and nothing was saved.") from failure
            raise
        kept = newest_step(folder.state)
        if lost:
            raise Error(
                f"Another of the {workers.count} workers was lost. The state after step {kept:,} is kept; to go on from there, with any "
                f"number of them: {resume_command(folder.path)}"
            ) from failure
        # A run that has not taken a step is begun anew, with other settings perhaps.
        if not kept and not isinstance(failure, OSError):
            raise
        said = sentence(failure) if isinstance(failure, OSError) else unexpected(failure)
        raise Error(
            f"{said} The state after step {kept:,} is kept; to go on from there: {resume_command(folder.path)}"
        ) from failure


def _train_anew(
    config: Config,
    data: Dataset,
    backend: Backend,
    folder: RunFolder | None,
    teacher: Source | None,
    init: Source | None,
    progress: Progress,
) -> Model:
    _, run, weights = prepared(config, data, backend, folder, teacher, init, progress)
    return run.start(weights)


def prepared(
    config: Config,
    data: Dataset,
    backend: Backend,
    folder: RunFolder | None,
    teacher: Source | None,
    init: Source | None,
    progress: Progress,
) -> tuple[Plan, Run, Mapping[str, np.ndarray] | None]:
    """Return the plan of a new run, the run itself, not begun, and the weights to start it from."""
    origin, guide = _load(init), _load(teacher)
    plan = make_plan(config, data, guide, origin)
    if said := caution(plan, data, bool(origin or guide)):
        progress.note(said)
    run = Run(config, plan, data, backend, folder, guide, progress)
    return plan, run, _first_weights(plan, origin, guide, config.seed, progress)


def _train_on(
    config: Config, data: Dataset, backend: Backend, folder: RunFolder, teacher: Model | None, progress: Progress
) -> Model:
    before, plan, versions = folder.read()
    check_data(folder, plan, data)
    writes = workers_of(backend).writes
    if writes:
        folder.clean()
    state = load_state(folder.state)
    if state is None:
        raise Error(
            f"The run in {folder.path} has lost its training state; start a new one from its weights with --init."
        )
    if versions != (now := describe_versions(backend)):
        progress.note(f"The run was made with {versions}, this is {now}: the same results to the bit are not assured.")
    if state[0] >= config.steps and _finished(folder, plan, config):
        raise Error(f"The run in {folder.path} is finished after {counted(config.steps, 'step')}.")
    copy = load_model(folder.teacher) if plan.recipe.needs_teacher else None
    if copy and teacher:
        check_teacher(folder, copy, teacher)
    if said := draws_otherwise(plan):
        progress.note(said)
    if said or config != before:
        for change in changes(plan, before, config):
            progress.note(change)
        if writes:
            folder.write(config, plan, versions)
    progress.note(f"Going on after step {state[0]:,}.")
    return Run(config, plan, data, backend, folder, copy, progress).resume(*state)


def _load(source: Source | None) -> Model | None:
    return source if source is None or isinstance(source, Model) else load_model(source)


def _first_weights(
    plan: Plan, init: Model | None, teacher: Model | None, seed: int, progress: Progress
) -> Mapping[str, np.ndarray] | None:
    if init:
        return _fitted(init.weights, plan.architecture, seed)
    if teacher is None:
        return None
    if difference := _other_network(plan, teacher):
        progress.note(f"The student starts from random weights: {difference}")
        return None
    progress.note("The network starts from the teacher's weights (give --init to start from others).")
    return _fitted(teacher.weights, plan.architecture, seed)


def _other_network(plan: Plan, teacher: Model) -> str:
    """Why a teacher's weights cannot start the student's network; empty where they can."""
    if teacher.recipe.network_kind != plan.recipe.network_kind:
        return f"its network is of the kind {plan.recipe.network_kind!r} and the teacher's of the kind {teacher.recipe.network_kind!r}."
    if continues(teacher.architecture, plan.architecture):
        return ""
    ours, theirs = to_config(plan.architecture), to_config(teacher.architecture)
    names = ["kind"] if ours["kind"] != theirs["kind"] else [k for k in ours if k in theirs and ours[k] != theirs[k]]
    mine, other = (", ".join(f"{k} {config[k]}" for k in names) for config in (ours, theirs))
    return f"its network ({mine}) is not the teacher's ({other})."


def _fitted(weights: Mapping[str, np.ndarray], architecture: Architecture, seed: int) -> dict[str, np.ndarray]:
    """Return the weights without the layers that the architecture lacks and with those that it adds."""
    layout = architecture.layout()
    return extend_weights({name: w for name, w in weights.items() if name in layout}, architecture, seed)


def is_finished(folder: RunFolder) -> bool:
    """Tell whether the run that is there has taken all of its steps and written what came of them."""
    config, plan, _ = folder.read()
    return newest_step(folder.state) >= config.steps and _finished(folder, plan, config)


def _finished(folder: RunFolder, plan: Plan, config: Config) -> bool:
    if plan.data.images and not folder.picture(config.steps).exists():
        return False
    return folder.model.is_file() and load_model(folder.model).step >= config.steps
