"""The training loop: curriculum, batches, steps, log, pictures, checkpoints; it can be killed and resumed exactly.

All randomness of a step depends on the seed and the step's number alone, so that a run which is killed and resumed ends
with the same weights, bit for bit, as one that is not (same versions, device and number of threads).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cmcore import backend as backends
from cmcore import recipes
from cmcore._words import counted, quoted
from cmcore.backend import Array, Backend
from cmcore.errors import Error, sentence
from cmcore.generate import generate
from cmcore.model import Model, load_model, save_model
from cmcore.networks import Architecture, grown, to_config
from cmcore.run import pictures
from cmcore.run.augment import augmented, flipped
from cmcore.run.board import Board, check_installed, opened
from cmcore.run.by_time import LossByTime
from cmcore.run.checkpoint import keep_only, load_state, newest_step, save_average, save_state
from cmcore.run.config import PRECISIONS, Config
from cmcore.run.failures import unexpected
from cmcore.run.folder import Log, RunFolder, describe_versions
from cmcore.run.lock import held
from cmcore.run.memory import used
from cmcore.run.plan import Plan, caution, continues, make_plan
from cmcore.run.report import Progress, either
from cmcore.run.resuming import changes, check_data, check_settings, check_teacher
from cmcore.run.save_timer import SaveTimer
from cmcore.run.signals import Requests, Stopped, heard
from cmcore.training import Trainer

if TYPE_CHECKING:
    from cmcore.run.data import Dataset

Source = Model | str | PathLike[str]
"""A model, or the run folder or file to load it from."""

SAMPLES = 64
"""How many samples a picture made during training shows."""


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
    config, backend = settle(config)
    check_installed(config.log)
    folder = RunFolder(Path(out)) if out is not None else None
    if not resume:
        if folder:
            folder.check_free()
        with _goes_on(folder):
            return _train_anew(config, data, backend, folder, teacher or config.teacher, init or config.init, progress)
    if folder is None:
        raise ValueError("There is nothing to resume without the folder of a run.")
    before = folder.read()[0]
    check_settings(folder, config)
    moved = teacher or (config.teacher if config.teacher != before.teacher else None)
    with _goes_on(folder), held(folder.path):
        return _train_on(config, data, backend, folder, _load(moved), progress)


def settle(config: Config) -> tuple[Config, Backend]:
    """Return the configuration with backend, device and compiling settled, and that backend; `Error` if it cannot train."""
    backend = (backends.load(config.backend) if config.backend else backends.default()).on(config.device)
    if not backend.trainable:
        raise Error(f"The backend {backend.name!r} has no gradients; train with {either(backends.may_train())}.")
    compiled = _pays_to_compile(config, backend) if config.compiled is None else config.compiled
    return replace(config, backend=backend.name, device=backend.device, compiled=compiled), backend


def _pays_to_compile(config: Config, backend: Backend) -> bool:
    """Whether compiling the train step is worth its time in a run of so many steps; where a backend does not say, it is."""
    pays = getattr(backend, "pays_to_compile", None)
    return pays is None or pays(config.steps, recipes.get(config.recipe).needs_jvp)


def resume_command(folder: Path) -> str:
    """Return the command that goes on with a run."""
    return f"cmcore train --out {quoted(folder)} --resume"


@contextmanager
def _goes_on(folder: RunFolder | None) -> Iterator[None]:
    """Say, if a disk or a framework fails a run that can be resumed, what is kept and how to go on."""
    try:
        yield
    except (OSError, MemoryError, RuntimeError) as failure:
        if folder is None or not folder.config.exists():
            raise
        kept = newest_step(folder.state)
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
    origin, guide = _load(init), _load(teacher)
    plan = make_plan(config, data, guide, origin)
    if said := caution(plan, data, bool(origin or guide)):
        progress.note(said)
    run = _Run(config, plan, data, backend, folder, guide, progress)
    return run.start(_first_weights(plan, origin, guide, config.seed, progress))


def _train_on(
    config: Config, data: Dataset, backend: Backend, folder: RunFolder, teacher: Model | None, progress: Progress
) -> Model:
    before, plan, versions = folder.read()
    check_data(folder, plan, data)
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
    if config != before:
        for change in changes(plan, before, config):
            progress.note(change)
        folder.write(config, plan, versions)
    progress.note(f"Going on after step {state[0]:,}.")
    return _Run(config, plan, data, backend, folder, copy, progress).resume(*state)


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
    if teacher.recipe.family != plan.recipe.family:
        return f"its network is of the kind {plan.recipe.family!r} and the teacher's of the kind {teacher.recipe.family!r}."
    if continues(teacher.architecture, plan.architecture):
        return ""
    ours, theirs = to_config(plan.architecture), to_config(teacher.architecture)
    names = ["kind"] if ours["kind"] != theirs["kind"] else [k for k in ours if k in theirs and ours[k] != theirs[k]]
    mine, other = (", ".join(f"{k} {config[k]}" for k in names) for config in (ours, theirs))
    return f"its network ({mine}) is not the teacher's ({other})."


def _fitted(weights: Mapping[str, np.ndarray], architecture: Architecture, seed: int) -> dict[str, np.ndarray]:
    """Return the weights without the layers that the architecture lacks and with those that it adds."""
    layout = architecture.layout()
    return grown({name: w for name, w in weights.items() if name in layout}, architecture, seed)


def _finished(folder: RunFolder, plan: Plan, config: Config) -> bool:
    if plan.data.images and not folder.picture(config.steps).exists():
        return False
    return folder.model.is_file() and load_model(folder.model).step >= config.steps


def _log_every(steps: int) -> int:
    """How many steps lie between two rows of the log."""
    return max(1, min(50, steps // 100))


class _Run:
    """A run under way: everything that its loop needs at hand."""

    def __init__(
        self,
        config: Config,
        plan: Plan,
        data: Dataset,
        backend: Backend,
        folder: RunFolder | None,
        teacher: Model | None,
        progress: Progress,
    ) -> None:
        self._config, self._plan, self._data, self._backend = config, plan, data, backend
        self._folder, self._teacher, self._progress = folder, teacher, progress
        self._log = Log(None, 0)
        self._by_time: LossByTime | None = None
        self._board = Board()
        self._pending: list[Array] = []
        self._losses: list[float] = []
        self._logged = 0
        self._saved = -1

    def start(self, weights: Mapping[str, np.ndarray] | None) -> Model:
        """Train from the first step."""
        self._make_trainer(weights)
        if folder := self._folder:
            # Once it is there, nothing but the folder is needed to go on: not the initial weights, not the teacher's run.
            with held(folder.path):
                with folder.created(self._config, self._plan, describe_versions(self._backend)):
                    if self._teacher:
                        save_model(self._teacher, folder.teacher)
                    self._save(0)
                self._open_logs(folder, 0)
                return self._loop(0)
        return self._loop(0)

    def resume(self, step: int, state: Mapping[str, np.ndarray], seconds: float) -> Model:
        """Train on from a saved state."""
        assert self._folder is not None
        self._make_trainer(None)
        try:
            self._trainer.restore(state)
        except ValueError as unfit:
            raise Error(f"The training state in {self._folder.state} does not fit the run: {unfit}") from unfit
        self._open_logs(self._folder, step, seconds)
        self._saved = step
        # The process may have been killed after it had written the state and before the rest of that step.
        keep_only(self._folder.state, step)
        save_model(self._model(step), self._folder.model)
        if self._draws and (step == self._config.steps or (step and step % self._config.sample_interval() == 0)):
            self._picture(step)
        return self._loop(step)

    def _make_trainer(self, weights: Mapping[str, np.ndarray] | None) -> None:
        recipe, teacher = self._plan.recipe, self._teacher
        architecture, config = self._plan.architecture, self._config
        build = partial(self._backend.network, compute=PRECISIONS[config.precision])
        spec = recipe.train_spec(
            seed=config.seed,
            compiled=bool(config.compiled),
            dropout=architecture.drops,
            accumulate=config.accumulate,
        )
        frozen = {"teacher": build(teacher.architecture, teacher.weights)} if teacher else None
        self._trainer = Trainer(self._backend, build(architecture, weights, seed=config.seed), spec, frozen)

    def _open_logs(self, folder: RunFolder, step: int, seconds: float = 0.0) -> None:
        steps = self._config.steps
        self._log = Log(folder.log, step, seconds)
        self._board = opened(self._config.log, folder.board, step)
        self._by_time = LossByTime(folder.by_time, self._plan.recipe, steps, step, _log_every(steps))

    def _loop(self, done: int) -> Model:
        config, progress = self._config, self._progress
        log_every = _log_every(config.steps)
        save_every, sample_every = config.save_interval(), config.sample_interval()
        self._logged = done
        if self._folder and not self._plan.data.images:
            progress.note("The data are not images, so no pictures of samples are made.")
        timer = SaveTimer(config.save_minutes)
        looked = time.monotonic()
        try:
            with heard(progress.note) as asked:
                if done < config.steps:
                    self._watched_step(done, "Taking the first step")
                    done += 1
                compiling = done if config.compiled else None
                progress.begin(done, config.steps, config.batch)
                progress.advance(done)
                while True:
                    # Asked once a step: a signal that comes any later is the next step's.
                    stop = asked.stop
                    last = done == config.steps or stop is not None
                    requested = asked.save()
                    save = last or done % save_every == 0 or requested or timer.due()
                    if save or done % log_every == 0:
                        self._record(done)
                    elif time.monotonic() - looked > 1:
                        # Waiting for the device now and then keeps the bar honest and finds a bad loss early.
                        self._collect(done)
                        looked = time.monotonic()
                    if save:
                        self._save(done)
                        timer.restart()
                    if requested:
                        progress.note(f"Saved after step {done:,}, as asked for.")
                    # There may be no time for it after a signal; the resumed run makes it.
                    due = self._draws and (done == config.steps or done % sample_every == 0)
                    if due and stop is None:
                        stop = self._picture_unless_stopped(done, asked)
                        due = stop is not None
                    if done == config.steps and not due:
                        break
                    if stop is not None:
                        self._record(done)
                        self._save(done)
                        self._say_how_to_go_on(done)
                        raise Stopped(stop)
                    if done == compiling:
                        self._watched_step(done, "Compiling the train step, which can take a minute or two", quiet=True)
                    else:
                        self._step(done)
                    done += 1
                    progress.advance(done)
        finally:
            progress.end()
            self._board.close()
        if self._folder:
            # Once more: what a disk would not remove.
            self._folder.clean()
        return self._model(done)

    def _watched_step(self, index: int, what: str, quiet: bool = False) -> None:
        """Take a step that may take long and wait for it: what compiles does so in the first two."""
        start = time.monotonic()
        with self._progress.phase(what, quiet):
            self._step(index)
            self._collect(index + 1)
        if not quiet:
            seconds = time.monotonic() - start
            self._progress.note(f"Step {index + 1:,} took {seconds:.1f} s; its loss is {self._losses[-1]:.4g}.")

    def _step(self, index: int) -> None:
        config, place = self._config, self._backend.asarray
        x, labels = self._data.batch(config.seed, index, config.batch)
        if config.flip:
            x = flipped(x, config.seed, index)
        cond = {}
        if config.augment:
            x, told = augmented(x, config.seed, index, config.augment)
            cond["augment"] = place(told)
        x = self._plan.data.standardized(x)
        if labels is not None and self._plan.architecture.classes:
            cond["label"] = place(labels.astype(np.int32))
        scalars = self._plan.recipe.scalars(index, config.steps)
        self._pending.append(self._trainer.step(index, place(x), scalars, cond or None))
        if self._by_time:
            self._by_time.keep(index, self._trainer.seen, scalars)

    def _collect(self, done: int) -> None:
        """Wait for the losses of the steps so far."""
        losses = [float(self._backend.to_numpy(v)) for v in self._pending]
        self._pending.clear()
        for i, loss in enumerate(losses):
            if not math.isfinite(loss):
                raise self._diverged(f"The loss became {loss} at step {done - len(losses) + i + 1:,}")
        self._losses += losses

    def _record(self, done: int) -> None:
        """Log the mean loss since the last row."""
        self._collect(done)
        if not self._losses or done == self._logged:
            return
        scalars = self._plan.recipe.scalars(done - 1, self._config.steps)
        loss = sum(self._losses) / len(self._losses)
        self._losses, self._logged = [], done
        row = self._log.add(done, loss, scalars, self._config.batch)
        by_time = self._by_time.add(done, self._backend.to_numpy) if self._by_time else {}
        self._board.row(row, by_time)
        self._progress.measure(row | {"memory": used(self._backend)})

    def _save(self, done: int) -> None:
        """Write the state and then the model, unless this step's are written already."""
        if self._folder is None or self._saved == done:
            return
        model = self._model(done)
        try:
            # Before the state: a run that is killed in between writes it again when it is resumed.
            if self._keeps_average(done):
                save_average(self._folder.averages, model)
            save_state(self._folder.state, done, self._trainer.state(), self._log.seconds)
        except ValueError as not_finite:
            raise self._diverged(f"Training broke down before step {done:,}: {not_finite}") from not_finite
        save_model(model, self._folder.model)
        self._saved = done

    def _keeps_average(self, done: int) -> bool:
        # At the same steps whether or not the run is interrupted.
        planned = done % self._config.save_interval() == 0 or done == self._config.steps
        return bool(self._plan.recipe.average.ema_std) and done > 0 and planned

    def _model(self, done: int) -> Model:
        about = {"seed": self._config.seed, "versions": describe_versions(self._backend)}
        plan, weights = self._plan, self._trainer.weights("ema")
        return Model(plan.recipe, plan.architecture, weights, plan.data, done, self._config.steps, about)

    @property
    def _draws(self) -> bool:
        return self._folder is not None and self._plan.data.images

    def _picture_unless_stopped(self, done: int, asked: Requests) -> int | None:
        """Make a picture; return the signal that came meanwhile, if any, for which it is left unmade."""
        try:
            with asked.at_once():
                self._picture(done)
        except Stopped as stopped:
            return stopped.signum
        return None

    def _picture(self, done: int) -> None:
        with self._progress.phase("Making a picture of samples", quiet=True):
            self._draw(done)

    def _draw(self, done: int) -> None:
        assert self._folder is not None
        image = pictures.grid(generate(self._model(done), SAMPLES, backend=self._backend, seed=self._config.seed))
        pictures.save_png(image, self._folder.picture(done))
        self._board.picture(done, image)

    def _diverged(self, what: str) -> Error:
        kept = f" The state after step {self._saved:,} is kept in {self._folder.path}." if self._folder else ""
        return Error(
            f"{what.rstrip('.')}.{kept} Start anew with a lower learning rate (--set lr=...) or clipping (--set clip=1)."
        )

    def _say_how_to_go_on(self, done: int) -> None:
        if self._folder is None:
            self._progress.note(f"Stopped after step {done:,}; nothing was saved, for the run has no folder.")
        else:
            self._progress.note(f"Saved after step {done:,}. To go on: {resume_command(self._folder.path)}")
