"""Every recipe on handwritten digits: trained, measured against held-out digits, and looked at.

    python benchmarks/digits.py OUT [--backend jax] [--recipe cd ect ...] [--share 1.0]

Trains each recipe by ``cmcore train`` into OUT/NAME (a run that is there already is not trained again), first what others
start from, and prints the Frechet distance of 2,000 samples in one and in two steps. ``samples/`` of each run shows the last
step's. ``--share 0.1`` takes a tenth of the steps.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from cmcore import backend, recipes
from cmcore.model import load_model
from cmcore.run import data as datasets
from cmcore.run.evaluate import evaluate

NETWORK = ("--width", "256", "--blocks", "3")
FAST, SLOW = "lr=2e-3 decay=true ema=0.999", "lr=1e-3 decay=true ema=0.999"
LIMIT = "lr=1e-4 decay=true ema=0.999 weighting=inverse_gap"
TANGENT = "lr=5e-4 tangent_warmup=1000 network=edm learned_weight=false"
RUNS: dict[str, tuple[int, str, tuple[str, str] | None]] = {
    "edm": (6000, SLOW, None),
    "cd": (8000, f"{FAST} weighting=inverse_gap", ("teacher", "edm")),
    "ct": (8000, f"{FAST} weighting=inverse_gap mu0=0", None),
    "ict": (8000, FAST, None),
    "ect": (8000, FAST, ("init", "edm")),
    "tcm": (3000, "lr=1e-4 decay=true ema=0.999 stage=6", ("teacher", "ect")),
    "sct-vr": (8000, FAST, ("init", "edm")),
    "pd": (16000, SLOW, ("teacher", "edm")),
    "cmt": (3000, FAST, ("teacher", "edm")),
    "cd-continuous": (8000, LIMIT, ("teacher", "edm")),
    "ct-continuous": (8000, LIMIT, ("init", "edm")),
    "sct": (8000, TANGENT, ("init", "edm")),
    "scd": (8000, TANGENT, ("teacher", "edm")),
    "meanflow": (8000, SLOW, None),
    "imf": (8000, SLOW, None),
    "psd": (8000, SLOW, None),
    "splitmeanflow": (8000, SLOW, None),
    "shortcut": (8000, f"{SLOW} weight_decay=0.01 mu=0.9", None),
    "ctm": (8000, f"{SLOW} reach=4 mu=0.9", ("teacher", "edm")),
    "ayf": (8000, f"{SLOW} tangent_warmup=1000 std=1.6", ("teacher", "edm")),
}
"""Steps, options and what each run is given. Higher learning rates than the papers', for a small network and short runs."""


def train(name: str, out: Path, framework: str, share: float) -> float:
    """Train a recipe, and before it what it is given, unless its run is there; return the seconds of its own training."""
    steps, options, given = RUNS[name]
    if given:
        train(given[1], out, framework, share)
    if (out / name).exists():
        return 0.0
    command = [sys.executable, "-m", "cmcore", "train", "--data", "digits", "--recipe", name, "--out", str(out / name)]
    command += ["--backend", framework, "--steps", str(max(1, round(share * steps))), *NETWORK]
    command += ["--batch", "256" if name == "edm" else "128", "--sample-every", str(10**9)]
    command += [part for option in options.split() for part in ("--set", option)]
    command += [f"--{given[0]}", str(out / given[1])] if given else []
    start = time.perf_counter()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--backend", default="jax")
    parser.add_argument("--recipe", nargs="*", default=list(recipes.names()))
    parser.add_argument("--share", type=float, default=1.0)
    args = parser.parse_args()
    data = datasets.load("digits")
    print("| recipe | 1 step | 2 steps | seconds |\n|---|---|---|---|")
    for name in args.recipe:
        seconds = train(name, args.out, args.backend, args.share)
        model = load_model(args.out / name)
        steps = [model.recipe.default_steps] if name == "edm" else [1, 2]
        rows = evaluate(model, data, steps=steps, n=2000, backend=backend.load(args.backend))
        found = [f"{row.frechet:.3f}" for row in rows][: len(steps)]
        cells = [f"{steps[0]} steps: {found[0]}", ""] if name == "edm" else found
        print(f"| {name} | {' | '.join(cells)} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
