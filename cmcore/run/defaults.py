"""What `cmcore train` chooses for pictures where nothing is asked for: the best that is known for a few thousand small ones on two
CPU cores in an hour. Where the numbers come from: BENCHMARKS.md and docs/choose.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cmcore.backend import Backend, computes_natively

RECIPES = ("edm", "cd")
"""The teacher's method and the student's."""
UNASKED = ("ect", *RECIPES)
"""The methods that are chosen where none is asked for: for what is no picture, or a tiny one, and for pictures."""

BATCH = 64
PASSES = 90
"""How often the teacher sees each picture, between the bounds: 3,000 pictures of 32 x 32 then take about 50 minutes in all."""
LEAST, MOST = 200_000, 1_500_000
"""Bounds of how many pictures the teacher is shown, however few or many there are."""
SHARE = 4
"""The student, which starts from the teacher's weights and is good after a few hundred steps, takes a quarter of its steps."""
DIVISIBLE = 4
"""The preset cuts pictures into patches of 2 x 2 and halves those once."""


@dataclass(frozen=True)
class Defaults:
    """The settings of the two runs, in which a teacher and then its student are trained.

    ``network`` is the teacher's, a preset or None for what pictures get by default; the student has its teacher's. ``teacher``
    and ``student`` are options of `RECIPES`.
    """

    network: str | None
    batch: int
    teacher_steps: int
    student_steps: int
    teacher: Mapping[str, Any]
    student: Mapping[str, Any]


def for_pictures(count: int, shape: tuple[int, ...], batch: int | None = None, steps: int | None = None) -> Defaults:
    """Return what is chosen for so many training pictures of a shape (C, H, W); the batch and the teacher's steps may be given.

    The number of channels changes nothing that was measured, and so decides nothing.
    """
    batch = batch or BATCH
    steps = steps or max(1, round(min(max(PASSES * count, LEAST), MOST) / batch))
    fits = not any(side % DIVISIBLE for side in shape[1:])
    # Errors at small times are passed up to all larger ones; equal weights would leave them to the end.
    student = {"lr": 5e-4, "weighting": "inverse_gap"}
    return Defaults(
        network="unet-patches" if fits else None,
        batch=batch,
        teacher_steps=steps,
        student_steps=students_steps(steps),
        teacher={"lr": 1e-3} | _of_length(steps),
        student=student | _of_length(students_steps(steps)),
    )


def students_steps(teachers: int) -> int:
    """Return how many steps the student takes after so many of its teacher's."""
    return max(1, teachers // SHARE)


def _of_length(steps: int) -> dict[str, Any]:
    """Options that depend on how long a run is: the average is about as long as a tenth of it, of half-life a fifteenth."""
    return {
        "decay": True,
        "warmup": min(100, steps // 10),
        "ema": round(min(max(1 - 10 / steps, 0.5), 0.9999), 6),
    }


def precision(backend: Backend) -> str:
    """Return what layers compute in: bfloat16 where the device has instructions for it, else float32."""
    return "bfloat16" if computes_natively(backend, "bfloat16") else "float32"
