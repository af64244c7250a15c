"""Handwritten digits in one step, with the library's Python API: data, recipe, training, sampling.

    python examples/digits.py --backend torch        # or jax, tinygrad; a few minutes on two CPU cores

A teacher (a score model) is trained on 900 digits of 8 x 8 pixels and distilled into a consistency model. Expect
``digits.png`` to show real digits, the teacher's with 35 network evaluations, and the consistency model's with one and
with two, from the same noise: each column is one digit, hardly changed from row to row. It also prints how far each set
of samples is from digits held out of training. ``cmcore demo`` does the same from the command line, with more care.
"""

import argparse
from pathlib import Path

import cmcore as cm
from cmcore.generate import generate
from cmcore.run.config import Config
from cmcore.run.data import load
from cmcore.run.pictures import rows, save_png
from cmcore.run.report import terminal_progress
from cmcore.run.train import train

SHOWN = 16


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", choices=("torch", "jax", "tinygrad"), help="default: the first one installed")
    parser.add_argument("--steps", type=int, default=4000, help="training steps of each model (default %(default)s)")
    parser.add_argument("--samples", type=int, default=2000, help="samples to measure (default %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("digits.png"))
    args = parser.parse_args()

    backend, data, progress = cm.use(args.backend), load("digits"), terminal_progress()
    print(f"{len(data.x)} images of shape {data.shape}, standard deviation {data.sigma_data:.2f}")

    options = {"lr": 1e-3, "decay": True}
    settings = {"options": options, "backend": backend.name, "steps": args.steps}
    teacher = train(Config(recipe="edm", **settings), data, progress=progress)
    student = train(Config(recipe="cd", **settings), data, teacher=teacher, progress=progress)

    captioned = [("real digits", data.held_out[:SHOWN])]
    for name, model, steps in (
        ("teacher, 35 evaluations", teacher, 18),
        ("consistency model, 1 evaluation", student, 1),
        ("consistency model, 2 evaluations", student, 2),
    ):
        x = generate(model, args.samples, steps=steps, seed=0, backend=backend)
        distance = cm.metrics.frechet_distance(x, data.held_out)
        print(f"{name:34} Frechet distance to held-out digits {distance:.2f}")
        captioned.append((name, x[:SHOWN]))
    save_png(rows(captioned), args.out)
    print(f"The picture is {args.out}.")


if __name__ == "__main__":
    main()
