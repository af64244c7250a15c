"""Eight recipes on real pictures from one budget: a teacher of 35 evaluations, students of one and two steps, held-out figures.

    python benchmarks/pictures.py OUT --data fashion-mnist --images 200000             # the same number of images for each student
    python benchmarks/pictures.py OUT --data fashion-mnist --seconds 600               # the same time for each student
    python benchmarks/pictures.py OUT --data emoji --recipe cd psd --images 400000

Each run is a ``cmcore train`` into OUT/NAME; one that is there already is not trained again, and one that was stopped goes on. The
teacher, OUT/edm, sees ``--teacher-images``. Students whose method allows it start from its weights. Then ``cmcore eval`` compares
``--n`` samples of ``--seeds`` seeds with the held-out pictures, by the features that come with the package or pixels, and the table
has what it found. ``--part 0.1`` chooses options instead: students are trained and judged on a third part of the data, a share of
the training pictures that is kept from them, and never see the held-out ones. Torch with bfloat16 on one thread is the fastest of
what was tried on two CPU cores that have instructions for it (AMX).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import cmcore as cm
from cmcore.generate import generate
from cmcore.run import data as datasets
from cmcore.run.pictures import rows, save_png

SLOW = "decay=true warmup=100 ema=0.999"
RUNS: dict[str, tuple[str, str | None]] = {
    "edm": (f"lr=1e-3 {SLOW}", None),
    "cd": (f"lr=4e-4 weighting=inverse_gap {SLOW}", "teacher"),
    "ect": (f"lr=4e-4 {SLOW}", "init"),
    "ict": (f"lr=4e-4 {SLOW}", "init"),
    "sct": (f"lr=2e-4 tangent_warmup=500 network=edm learned_weight=false {SLOW}", "init"),
    "scd": (f"lr=2e-4 tangent_warmup=500 network=edm learned_weight=false {SLOW}", "teacher"),
    "imf": (f"lr=1e-3 {SLOW}", None),
    "psd": (f"lr=1e-3 {SLOW}", None),
    "tcm": (f"lr=1e-4 stage=6 {SLOW}", "ect"),
}
"""Options, and how the teacher is given: as what is distilled, as weights to start from, or not at all; tcm goes on from ect."""


def trained(name: str, args: argparse.Namespace) -> Path:
    """Train a recipe, and before it what it is given, unless its run is there and finished; return its folder."""
    options, given = RUNS[name]
    out = args.out / name
    command = [sys.executable, "-m", "cmcore", "train", "--out", str(out)]
    if (out / "config.json").is_file():
        if json.loads((out / "config.json").read_text()).get("steps", 0) <= _done(out):
            return out
        command += ["--resume"]
    else:
        origin = {"teacher": "edm", "init": "edm", "ect": "ect"}.get(given or "")
        if origin:
            command += ["--init" if given == "init" else "--teacher", str(trained(origin, args))]
        batch = args.teacher_batch if name == "edm" else args.batch
        command += ["--data", args.data, "--recipe", name, "--steps", str(_steps(name, args)), "--batch", str(batch)]
        command += ["--network", "unet-patches", "--set-network", f"width={args.width}"]
        command += ["--set-network", f"head_channels={args.width}", "--backend", args.backend, *_device(args)]
        command += ["--precision", args.precision, "--seed", str(args.seed)]
        command += ["--compile"] if args.compile else ["--no-compile"]
        command += ["--classes"] if args.data == "fashion-mnist" else ["--flip"]
        command += ["--held-out", str(args.part)] if args.part else []
        command += [word for option in options.split() for word in ("--set", option)]
    subprocess.run(command, check=True)
    return out


def _device(args: argparse.Namespace) -> list[str]:
    return ["--device", args.device] if args.device else []


def _done(out: Path) -> int:
    rows = (out / "log.csv").read_text().splitlines() if (out / "log.csv").is_file() else []
    return int(rows[-1].split(",")[0]) if len(rows) > 1 else 0


def _steps(name: str, args: argparse.Namespace) -> int:
    if name == "edm":
        return max(1, args.teacher_images // args.teacher_batch)
    if args.seconds is None:
        return max(1, args.images // args.batch)
    return max(1, round(args.seconds / args.step_seconds[name]))


def judged(folder: Path, steps: list[int], args: argparse.Namespace) -> list[dict[str, float]]:
    """Return the rows of an evaluation; one that is there is read."""
    place = folder / f"judged-{'-'.join(map(str, steps))}.json"
    if not place.is_file():
        command = [sys.executable, "-m", "cmcore", "eval", str(folder), "--n", str(args.n), "--seeds", str(args.seeds)]
        command += ["--steps", *map(str, steps), "--backend", args.backend, *_device(args)]
        command += ["--json", str(place)]
        subprocess.run(command, check=True)
    return json.loads(place.read_text())["rows"]


def said(row: dict[str, float]) -> str:
    """Return a row's figures as cells of the table."""
    least, most = row.get("spread", {}).get("frechet", (row["frechet"],) * 2)
    more = [f"{row[k]:.1%}" if row.get(k) is not None else "" for k in ("coverage", "memorized", "classes")]
    return " | ".join([f"{row['frechet']:.2f} ({least:.2f} to {most:.2f})", *more])


def draw(place: Path, args: argparse.Namespace, shown: int = 20) -> None:
    """Write rows of held-out pictures, of the teacher's samples and of each student's in so many steps, of the same noise."""
    backend, data = cm.use(args.backend), datasets.load(args.data)
    assert data.kept_out is not None
    spread = np.linspace(0, len(data.kept_out) - 1, shown).astype(int)  # files can be in the order of their subjects
    lines = [("real, held out", data.kept_out.take(spread))]
    for name in ["edm", *args.recipe]:
        model = cm.load_model(args.out / name)
        for steps in [18] if name == "edm" else args.show:
            said = f"{name}, {model.recipe.evaluations(steps)} evaluation{'s' * (steps > 1)}"
            lines.append((said, generate(model, shown, steps=steps, backend=backend)))
    save_png(rows(lines, columns=shown), place)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--recipe", nargs="*", default=[name for name in RUNS if name != "edm"], choices=RUNS)
    parser.add_argument("--teacher-images", type=int, default=768_000)
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--step-seconds", type=json.loads, default={}, help="what a step of each recipe takes, as JSON")
    parser.add_argument("--part", type=float)
    parser.add_argument("--n", type=int, default=5000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--teacher-batch", type=int, default=128)
    parser.add_argument("--width", type=int, default=48)
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--device", help="such as cuda")
    parser.add_argument("--compile", action="store_true", help="compile the train steps, which pays on a GPU")
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path, help="also draw samples into this .png")
    parser.add_argument("--show", type=int, nargs="+", default=[1, 2], help="steps of the students that it shows")
    args = parser.parse_args()
    print(
        "| model | steps | Frechet distance | coverage | memorised | classes off | minutes |\n|---|---|---|---|---|---|---|"
    )
    for name in ["edm", *args.recipe]:
        start = time.monotonic()
        folder = trained(name, args)
        minutes = (time.monotonic() - start) / 60
        found = judged(folder, [18] if name == "edm" else [1, 2], args)
        for row in found if name == "edm" else found[:-1]:
            print(f"| {name} | {row['name']} | {said(row)} | {minutes:.0f} |", flush=True)
    if args.picture:
        draw(args.picture, args)


if __name__ == "__main__":
    main()
