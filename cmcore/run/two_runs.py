"""Folders of a run whose teacher is trained first, in RUN-teacher: what marks them, and the command that goes on with a run."""

from __future__ import annotations

from pathlib import Path

from cmcore._words import quoted

PHASES = ".phases.json"
"""In a run's folder while, and after, its teacher is trained first; see `cmcore.run.phases`."""
TEACHER = "-teacher"
"""What the name of that teacher's folder ends in."""


def resume_command(folder: Path) -> str:
    """Return the command that goes on with a run: of a teacher that is trained first with the student's beside it."""
    name = folder.name.removesuffix(TEACHER)
    if name not in ("", folder.name) and (student := folder.with_name(name)).joinpath(PHASES).is_file():
        folder = student
    return f"cmcore train --out {quoted(folder)} --resume"


def teacher_first(folder: Path) -> str:
    """Return what to say of a folder that has no run yet because its teacher is trained first; empty where that is not so."""
    if not (folder / PHASES).is_file():
        return ""
    return (
        f"There is no run in {folder} yet, for its teacher is trained first, in {folder}{TEACHER}; to go on with that: "
        f"{resume_command(folder)}"
    )
