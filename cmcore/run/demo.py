"""The demonstration: on real handwritten digits, a teacher, then a consistency model that needs one network evaluation."""

from __future__ import annotations

import time
from argparse import Namespace
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL.Image import Image

from cmcore import backend as backends
from cmcore._files import atomic_write
from cmcore._words import quoted
from cmcore.backend import Backend
from cmcore.errors import Error
from cmcore.generate import generate
from cmcore.model import Model
from cmcore.run import pictures
from cmcore.run.config import Config
from cmcore.run.data import Dataset, load
from cmcore.run.evaluate import evaluate
from cmcore.run.figures import Row, to_table
from cmcore.run.report import Progress, say, terminal_progress
from cmcore.run.train import train

TEACHER_STEPS = 18
"""Heun steps of the teacher's sampler; its last is Euler's, so that it makes 35 network evaluations."""
SHOWN = 32
"""Images in each row of the picture."""


@dataclass(frozen=True)
class Scale:
    """How much training the demonstration does, and how many samples it measures."""

    teacher_steps: int = 6000
    teacher_batch: int = 256
    # At the same cost, more steps of smaller batches bring the student nearer to its teacher.
    student_steps: int = 14_000
    student_batch: int = 128
    width: int = 256
    blocks: int = 3
    samples: int = 5000


SMALL = Scale(1500, 128, 1500, 128, width=128, blocks=2, samples=1000)


def main(args: Namespace) -> None:
    """Run the demonstration as the command line asks for it."""
    scale = SMALL if args.small else Scale()
    if args.steps is not None:
        scale = replace(scale, teacher_steps=args.steps, student_steps=args.steps)
    demonstrate(Path(args.out), backends.use(args.backend, device=args.device), scale, args.seed)


def demonstrate(out: Path, backend: Backend, scale: Scale, seed: int = 0) -> None:
    """Train both models into folders of ``out``, write ``demo.png`` there and print the table of distances and times."""
    if out.exists() and any(out.iterdir()):
        raise Error(f"{out} exists already and nothing in it is overwritten; choose another folder with --out.")
    start = time.monotonic()
    data, progress = load("digits"), terminal_progress()
    held_out = np.asarray(data.held_out)
    say(f"{len(data.x)} handwritten digits of 8 x 8 pixels to train on, {len(held_out)} held out.")

    progress.note("1 of 3: the teacher, a score model (edm).")
    teacher = _train(out / "teacher", "edm", data, backend, scale, seed, progress)
    progress.note("2 of 3: the consistency model, distilled from it (cd).")
    student = _train(out / "student", "cd", data, backend, scale, seed, progress, teacher)
    progress.note("3 of 3: sampling and measuring.")
    teachers, floor = _measure("teacher", teacher, data, (TEACHER_STEPS,), backend, scale, seed)
    students, _ = _measure("consistency model", student, data, (1, 2), backend, scale, seed)
    rows = [*teachers, *students, replace(floor, name="real images (the floor)")]
    pictures.save_png(_picture(held_out, teacher, student, backend, seed), out / "demo.png")

    text = f"{scale.samples:,} samples against the held-out digits, pixels in [-1, 1]:\n\n{to_table(rows)}\n"
    # On disk before it is on the screen, which may be gone.
    atomic_write(out / "table.txt", text.encode())
    print(f"\n{text}")
    print(
        f"The picture is {out / 'demo.png'}; {time.monotonic() - start:.0f} s in all with {backends.describe(backend)}."
    )
    print(f"More images: cmcore sample {quoted(out / 'student')} --n 100 --steps 1 --out digits.png")


def _train(
    out: Path,
    recipe: str,
    data: Dataset,
    backend: Backend,
    scale: Scale,
    seed: int,
    progress: Progress,
    teacher: Model | None = None,
) -> Model:
    steps, batch = scale.teacher_steps, scale.teacher_batch
    # A short run: the learning rate is higher than the papers' and falls to 0, which does most of what averaging does.
    options: dict[str, object] = {"lr": 1e-3, "decay": True, "ema": 0.999}
    if teacher:
        steps, batch = scale.student_steps, scale.student_batch
        # Errors at small times are passed up to all larger ones; equal weights would leave them to the end.
        options |= {"lr": 2e-3, "weighting": "inverse_gap"}
    options["warmup"] = min(100, steps // 10)
    config = Config(
        data="digits",
        recipe=recipe,
        options=options,
        backend=backend.name,
        device=backend.device,
        steps=steps,
        batch=batch,
        seed=seed,
        network="mlp",
        width=scale.width,
        blocks=scale.blocks,
    )
    return train(config, data, out=out, teacher=teacher, progress=progress)


def _measure(
    name: str, model: Model, data: Dataset, steps: tuple[int, ...], backend: Backend, scale: Scale, seed: int
) -> tuple[list[Row], Row]:
    """Rows of the model's samples, and of real images."""
    *made, floor = evaluate(model, data, steps=steps, n=scale.samples, seed=seed, backend=backend)
    return [replace(row, name=f"{name}, {row.name}") for row in made], floor


def _picture(real: np.ndarray, teacher: Model, student: Model, backend: Backend, seed: int) -> Image:
    """Real digits above three samplers' images from the same noise."""

    def samples(model: Model, steps: int) -> np.ndarray:
        return generate(model, SHOWN, steps=steps, seed=seed, backend=backend)

    return pictures.rows(
        [
            ("real digits, held out", real[:SHOWN]),
            ("teacher, 35 network evaluations", samples(teacher, TEACHER_STEPS)),
            ("consistency model, 1 evaluation", samples(student, 1)),
            ("consistency model, 2 evaluations", samples(student, 2)),
        ]
    )
