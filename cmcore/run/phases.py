"""Two runs by one command, for pictures and no method that was asked for: a teacher, in RUN-teacher, then its student, in RUN.

RUN/.phases.json holds the settings of both from the start, so that RUN can be resumed whichever of them was broken off.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from cmcore import recipes
from cmcore._files import atomic_write, placed
from cmcore._words import choice, counted, quoted
from cmcore.backend import Backend
from cmcore.ema import Average, check_one_average
from cmcore.errors import Error
from cmcore.model import Model, load_model
from cmcore.run import defaults
from cmcore.run.config import Config, as_typed, differing, parse_options
from cmcore.run.folder import RunFolder
from cmcore.run.lock import held
from cmcore.run.plan import CONV_FROM, make_plan
from cmcore.run.report import Progress
from cmcore.run.resuming import FREE, check_data
from cmcore.run.train import is_finished, train
from cmcore.run.two_runs import TEACHER

if TYPE_CHECKING:
    from cmcore.run.data import Dataset

INHERITED = ("network", "network_settings", "width", "blocks")
"""The settings of a network, which the student has from its teacher."""


@dataclass(frozen=True)
class Phases:
    """The settings of a teacher and of its student."""

    teacher: Config
    student: Config

    def with_given(self, given: Mapping[str, Any], pairs: Sequence[str]) -> Phases:
        """Return these with what was typed in place of what was chosen; ``pairs`` are the ``KEY=VALUE`` of --set.

        Everything is for both but that the student has its teacher's network and a share of its steps, and that an option of
        one recipe alone is that one's. An option of neither is a `ValueError`.
        """
        theirs = {name: value for name, value in given.items() if name not in INHERITED}
        if "steps" in theirs:
            theirs["steps"] = defaults.students_steps(theirs["steps"])
        teachers, students = sorted_out(pairs, defaults.RECIPES)
        return Phases(
            replace(self.teacher, **given, options=_options(self.teacher, teachers)),
            replace(self.student, **theirs, options=_options(self.student, students)),
        )


def chosen(
    folder: RunFolder, data: Dataset, backend: Backend, given: Mapping[str, Any], pairs: Sequence[str]
) -> Phases:
    """Return the settings of both runs for these pictures, with what was typed."""
    best = defaults.for_pictures(len(data.samples), data.shape, given.get("batch"), given.get("steps"))
    both: dict[str, Any] = {"batch": best.batch, "backend": backend.name, "precision": defaults.precision(backend)}
    teacher, student = defaults.RECIPES
    return Phases(
        Config(recipe=teacher, steps=best.teacher_steps, network=best.network, options=best.teacher, **both),
        Config(
            recipe=student,
            steps=best.student_steps,
            options=best.student,
            teacher=str(teachers(folder).path.resolve()),
            **both,
        ),
    ).with_given(given, pairs)


def are_for(data: Dataset) -> bool:
    """Tell whether data get a teacher and a student where no method is asked for: pictures that are not tiny."""
    return data.images and len(data.shape) == 3 and min(data.shape[1:]) >= CONV_FROM


def sorted_out(pairs: Sequence[str], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return each recipe's options of the ``KEY=VALUE`` given; one that no recipe has is a `ValueError`."""
    known = {name: recipes.by_name(recipes.get(name)) for name in names}
    every = sorted({key for options in known.values() for key in options})
    for key, equals, _ in (pair.partition("=") for pair in pairs):
        if equals and key not in every:
            *others, last = map(repr, names)
            who = f"The recipes {', '.join(others)} and {last} have" if others else f"The recipe {last} has"
            raise ValueError(f"{who} no option {key!r}; {choice(key, every, 'the options are')}")
    parsed = [
        parse_options(name, [pair for pair in pairs if "=" not in pair or pair.partition("=")[0] in known[name]])
        for name in names
    ]
    for options in parsed:
        check_one_average(options)
    return parsed


def _options(config: Config, given: Mapping[str, Any]) -> dict[str, Any]:
    # Of the settings that choose the average there is one, the one that was given.
    averages = {setting.name for setting in fields(Average)}
    dropped = averages if averages & given.keys() else set()
    return {name: value for name, value in config.options.items() if name not in dropped} | dict(given)


def teachers(folder: RunFolder) -> RunFolder:
    """Return the folder of the teacher of a run, beside it; its run is resumed by the student's."""
    path = folder.path if folder.path.name not in ("", "..") else folder.path.resolve()
    return RunFolder(path.with_name(f"{path.name}{TEACHER}"))


def check_free(folder: RunFolder) -> None:
    """Raise `Error` if a new run cannot begin in a folder: what `RunFolder.check_free` finds, or a teacher's run that is for it."""
    folder.check_free()
    if folder.phases.exists() and _began(teacher := teachers(folder)):
        raise Error(
            f"{folder.path} holds a run already, whose teacher is in {teacher.path}: add --resume to go on with it, or choose another "
            "--out."
        )


def check_teacher_free(folder: RunFolder) -> None:
    """Raise `Error` if a new teacher's run cannot begin beside a folder."""
    teacher = teachers(folder)
    if _began(teacher):
        state = "" if is_finished(teacher) else ", which is not finished"
        raise Error(
            f"{teacher.path}, where the teacher would be trained, holds a run already{state}: to distil that, give --recipe cd --teacher "
            f"{quoted(teacher.path)}, else choose another --out."
        )
    teacher.check_free()


def _began(folder: RunFolder) -> bool:
    return folder.config.exists() and folder.took_a_step()


def told(folder: RunFolder, phases: Phases) -> str:
    """Return in a line what is trained, and how to have another method."""
    first, second = (f"{c.recipe}, {counted(c.steps, 'step')} of {c.batch:,}" for c in (phases.teacher, phases.student))
    return (
        f"Without --recipe, two runs: the teacher ({first}) in {teachers(folder).path}, then the student ({second}) in {folder.path}. "
        "For one run of another method give --recipe NAME; cmcore recipes lists them."
    )


def then(folder: RunFolder, phases: Phases) -> str:
    """Return what comes after the teacher."""
    config = phases.student
    return (
        f"the student ({config.recipe}) in {folder.path}: {counted(config.steps, 'step')} of {counted(config.batch, 'sample')}, each of "
        "which takes about twice a teacher's time"
    )


def read(folder: RunFolder) -> Phases | None:
    """Return the settings of both as they are now, or None where a folder's run is one of its own."""
    if not folder.phases.is_file():
        return None
    try:
        with placed(folder.phases):
            record = json.loads(folder.phases.read_bytes())
        planned = Phases(*(Config(**record[name]) for name in ("teacher", "student")))
    except (ValueError, TypeError, KeyError) as unfit:
        raise Error(f"{folder.phases} cannot be used: {unfit}") from unfit
    teacher = teachers(folder)
    return Phases(
        teacher.read()[0] if teacher.config.is_file() and not folder.config.is_file() else planned.teacher,
        folder.read()[0] if folder.config.is_file() else planned.student,
    )


def write(folder: RunFolder, phases: Phases) -> None:
    """Write the settings of both into the student's folder, which is held."""
    record = {"teacher": asdict(phases.teacher), "student": asdict(phases.student)}
    atomic_write(folder.phases, (json.dumps(record, indent=2) + "\n").encode())


def check_same(folder: RunFolder, before: Phases, now: Phases) -> None:
    """Raise `Error`, naming the difference, if what is typed to resume differs in what the teacher's numbers depend on.

    The student, which has not begun, may have other options.
    """
    ours, theirs = (as_typed(config, but=FREE) for config in (before.teacher, now.teacher))
    if ours != theirs:
        raise Error(
            f"The run in {folder.path} was started with other settings, which its numbers depend on: {differing(ours, theirs)} "
            f"Resume it as it was (--out {quoted(folder.path)} --resume), or start a new run in another --out."
        )


def check_plans(phases: Phases, data: Dataset) -> None:
    """Raise what would be wrong with either run, the student's too, before the hour that its teacher takes."""
    plan = make_plan(phases.teacher, data)
    make_plan(phases.student, data, Model(plan.recipe, plan.architecture, {}, plan.data))


def train_both(
    folder: RunFolder, phases: Phases, data: Dataset, *, resume: bool, writes: bool, progress: Progress
) -> Model:
    """Train the teacher, or what is left of its training, then the student, and return the student's model.

    ``writes`` tells whether this process is the one that writes.
    """
    teacher = teachers(folder)
    # Of several processes the first may have begun by now, so a new run is not told from one to be resumed by its folder.
    resume, missing = resume and teacher.config.is_file(), resume and not teacher.config.is_file()
    with held(folder.path) if writes else nullcontext():
        if resume:
            check_data(teacher, teacher.read()[1], data)
        elif missing:
            progress.note(f"There is no run in {teacher.path}, so the teacher is trained from its first step.")
        with _noted(folder, phases, writes):
            guide = _teacher(teacher, phases.teacher, data, resume, progress)
    progress.note(f"2 of 2: the student ({phases.student.recipe}) in {folder.path}, distilled from {teacher.path}.")
    return train(phases.student, data, out=folder.path, teacher=guide, progress=progress)


def _teacher(folder: RunFolder, config: Config, data: Dataset, resume: bool, progress: Progress) -> Model:
    if resume and is_finished(folder):
        return load_model(folder.path)
    progress.note(f"1 of 2: the teacher ({config.recipe}) in {folder.path}.")
    return train(config, data, out=folder.path, resume=resume, progress=progress)


@contextmanager
def _noted(folder: RunFolder, phases: Phases, writes: bool) -> Iterator[None]:
    """Have the settings in the student's folder while its teacher is trained; not where that did not begin."""
    if writes:
        write(folder, phases)
    try:
        yield
    except BaseException:
        if writes and not teachers(folder).config.is_file():
            with suppress(OSError):
                folder.phases.unlink()
        raise
