"""A run under way: batches, steps, log, pictures, checkpoints; it can be killed and resumed exactly.

All randomness of a step depends on the seed and the step's number alone, so that a run which is killed and resumed ends
with the same weights, bit for bit, as one that is not (same versions, device and number of threads).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from cmcore.backend import Array, Backend
from cmcore.errors import Error
from cmcore.generate import generate
from cmcore.model import Model, save_model
from cmcore.run import pictures
from cmcore.run.augment import augmented, flipped
from cmcore.run.board import Board, opened
from cmcore.run.by_time import LossByTime
from cmcore.run.checkpoint import keep_only, save_average, save_state
from cmcore.run.config import PRECISIONS, Config
from cmcore.run.folder import Log, RunFolder, describe_versions
from cmcore.run.lock import held
from cmcore.run.memory import used
from cmcore.run.plan import Plan
from cmcore.run.report import Progress
from cmcore.run.save_timer import SaveTimer
from cmcore.run.signals import Requests, Stopped, heard
from cmcore.run.two_runs import resume_command
from cmcore.training import Trainer
from cmcore.workers import workers_of

if TYPE_CHECKING:
    from cmcore.run.data import Dataset

SAMPLES = 64
"""How many samples a picture made during training shows."""


_REHEARSED = 20
"""How many steps are timed at most."""


def _log_every(steps: int) -> int:
    """How many steps lie between two rows of the log."""
    return max(1, min(50, steps // 100))


class Run:
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
        self._workers = workers_of(backend)
        # Whether there is a folder is the same for all processes that train together; one of them writes into it.
        self._kept, self._place = folder is not None, folder
        self._folder = folder if self._workers.writes else None
        self._teacher, self._progress = teacher, progress
        # Where several devices share a batch, the train step places it.
        self._to_device = backend.asarray if self._workers.devices == 1 else np.asarray
        self._rows = self._workers.rows(config.batch, config.accumulate) if self._workers.count > 1 else None
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
        self._save(0)
        return self._loop(0)

    def resume(self, step: int, state: Mapping[str, np.ndarray], seconds: float) -> Model:
        """Train on from a saved state."""
        assert self._place is not None
        self._make_trainer(None)
        try:
            self._trainer.restore(state)
        except ValueError as unfit:
            raise Error(f"The training state in {self._place.state} does not fit the run: {unfit}") from unfit
        least, most = self._workers.agreed([-step, step])
        if -least != most:
            raise Error(
                f"The workers found different states in {self._place.state}, after the steps {-least:,} and {most:,}; the folder must be "
                "on a disk that all of them see."
            )
        self._saved = step
        model = self._whole_model(step)
        if self._folder and model:
            self._open_logs(self._folder, step, seconds)
            # The process may have been killed after it had written the state and before the rest of that step.
            keep_only(self._folder.state, step)
            save_model(model, self._folder.model)
        if self._draws and (step == self._config.steps or (step and step % self._config.sample_interval() == 0)):
            self._picture(model)
        return self._loop(step)

    def rehearse(self, weights: Mapping[str, np.ndarray] | None, seconds: float) -> tuple[float, list[float]]:
        """Take the first step and then some for about so many seconds; return how long the first took, compiling included, and each.

        The run is not to be started afterwards.
        """
        start = time.monotonic()
        self._make_trainer(weights)
        self._watched_step(0, "Taking the first step", quiet=True)
        done = 1
        if self._config.compiled:
            self._watched_step(1, "Compiling the train step, which can take a minute or two", quiet=True)
            done = 2
        first, each = time.monotonic() - start, list[float]()
        while not each or (sum(each) < seconds and len(each) < _REHEARSED):
            start = time.monotonic()
            self._step(done)
            self._collect(done + 1)
            each.append(time.monotonic() - start)
            done += 1
        return first, each

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
        if self._kept and not self._plan.data.images:
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
                    # Asked once a step, of all processes: a signal that comes any later is the next step's.
                    now = time.monotonic()
                    stop, requested, late, look = self._agreed(asked.stop, asked.save(), timer.due(), now - looked > 1)
                    last = done == config.steps or stop is not None
                    save = last or done % save_every == 0 or requested or late
                    if save or done % log_every == 0:
                        self._record(done)
                    elif look:
                        # Waiting for the device now and then keeps the bar honest and finds a bad loss early.
                        self._collect(done)
                        looked = now
                    if save:
                        self._save(done)
                        timer.restart()
                    if requested:
                        progress.note(f"Saved after step {done:,}, as asked for.")
                    # There may be no time for it after a signal; the resumed run makes it.
                    due = self._draws and (done == config.steps or done % sample_every == 0)
                    if due and stop is None:
                        stop = self._agreed(self._picture_unless_stopped(done, asked))[0]
                        due = stop is not None
                    if done == config.steps and not due:
                        break
                    if stop is not None:
                        self._record(done)
                        self._save(done)
                        self._say_how_to_go_on(done)
                        # Who leaves before all is written would have the launcher stop the others.
                        self._agreed(None)
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
        self._agreed(None)
        return self._model(done)

    def _agreed(self, stop: int | None, *wishes: bool) -> tuple[Any, ...]:
        """Return the signal to stop, if any process has got one, and whether any of them wishes each of the rest; all have to ask."""
        signum, *wished = self._workers.agreed([stop or 0, *map(int, wishes)])
        return (signum or None, *map(bool, wished))

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
        config, place, rows = self._config, self._to_device, self._rows
        x, labels = self._data.batch(config.seed, index, config.batch, rows)
        if config.flip:
            x = flipped(x, config.seed, index, rows)
        cond = {}
        if config.augment:
            x, told = augmented(x, config.seed, index, config.augment, rows)
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
        if not self._kept or self._saved == done:
            return
        model = self._whole_model(done)
        state = self._trainer.state() if self._folder or self._workers.sharded else {}
        if self._folder and model:
            self._write(self._folder, done, model, state)
        self._saved = done

    def _write(self, folder: RunFolder, done: int, model: Model, state: Mapping[str, np.ndarray]) -> None:
        try:
            # Before the state: a run that is killed in between writes it again when it is resumed.
            if self._keeps_average(done):
                save_average(folder.averages, model)
            save_state(folder.state, done, state, self._log.seconds)
        except ValueError as not_finite:
            raise self._diverged(f"Training broke down before step {done:,}: {not_finite}") from not_finite
        save_model(model, folder.model)

    def _keeps_average(self, done: int) -> bool:
        # At the same steps whether or not the run is interrupted.
        planned = done % self._config.save_interval() == 0 or done == self._config.steps
        return bool(self._plan.recipe.average.ema_std) and done > 0 and planned

    def _whole_model(self, done: int) -> Model | None:
        """Return the model where it is to be written; all processes have to ask if its weights are spread over them."""
        return self._model(done) if self._folder or self._workers.sharded else None

    def _model(self, done: int) -> Model:
        about = {"seed": self._config.seed, "versions": describe_versions(self._backend)}
        plan, weights = self._plan, self._trainer.weights("ema")
        return Model(plan.recipe, plan.architecture, weights, plan.data, done, self._config.steps, about)

    @property
    def _draws(self) -> bool:
        return self._kept and self._plan.data.images

    def _picture_unless_stopped(self, done: int, asked: Requests) -> int | None:
        """Make a picture; return the signal that came meanwhile, if any, for which it is left unmade."""
        model = self._whole_model(done)
        try:
            with asked.at_once():
                self._picture(model)
        except Stopped as stopped:
            return stopped.signum
        return None

    def _picture(self, model: Model | None) -> None:
        """Draw samples of a model, and write them, where they are to be written."""
        if self._folder is None or model is None:
            return
        with self._progress.phase("Making a picture of samples", quiet=True):
            image = pictures.grid(generate(model, SAMPLES, backend=self._backend, seed=self._config.seed))
            pictures.save_png(image, self._folder.picture(model.step))
            self._board.picture(model.step, image)

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
