"""Runs of an earlier version, resumed and sampled by this one: are the weights and the samples the same, bit for bit?

    python benchmarks/old_runs.py BEFORE

BEFORE is a folder of a checkout, such as one of commit 577df90. With it each run is trained undisturbed and sampled, and trained
again and cut short by Ctrl-C; this version resumes what was cut short and samples it. Exit status 1 if a bit differs.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from kill_resume import same_weights

from cmcore.run.checkpoint import newest_step

HERE = Path(__file__).resolve().parents[1]
SMALL_CONV = [
    "--network",
    "conv",
    "--width",
    "8",
    "--blocks",
    "1",
    "--steps",
    "40",
    "--batch",
    "8",
    "--save-every",
    "5",
]
MLP = ["--width", "64", "--steps", "400", "--save-every", "20"]
RUNS = {
    "ect on torch": ("torch", ["--recipe", "ect", *MLP, "--classes"]),
    "imf on torch": ("torch", ["--recipe", "imf", *MLP]),
    "cd on jax": ("jax", ["--recipe", "cd", *MLP]),
    "sct, convolutions, on torch": ("torch", ["--recipe", "sct", *SMALL_CONV, "--classes"]),
    "ict, convolutions, on torch": ("torch", ["--recipe", "ict", *SMALL_CONV, "--classes"]),
    "imf, convolutions, on jax": ("jax", ["--recipe", "imf", *SMALL_CONV]),
    "ict, convolutions, on jax": ("jax", ["--recipe", "ict", *SMALL_CONV, "--classes"]),
    "sct on torch": ("torch", ["--recipe", "sct", *MLP]),
    "sct on jax": ("jax", ["--recipe", "sct", *MLP, "--classes"]),
    "ect on tinygrad": ("tinygrad", ["--recipe", "ect", "--width", "32", "--steps", "200", "--save-every", "10"]),
    "imf on tinygrad": ("tinygrad", ["--recipe", "imf", "--width", "32", "--steps", "120", "--save-every", "10"]),
    "ict, convolutions, on tinygrad": ("tinygrad", ["--recipe", "ict", *SMALL_CONV, "--classes"]),
}


def start(checkout: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Start the command line of a checkout."""
    path = os.pathsep.join([str(checkout), str(checkout / "backends")])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "cmcore", *arguments]
    return subprocess.Popen(command, env=environment, cwd=checkout, stderr=subprocess.DEVNULL)


def run(checkout: Path, *arguments: str) -> None:
    """Run the command line of a checkout to its end."""
    if status := start(checkout, *arguments).wait():
        sys.exit(f"cmcore {' '.join(arguments)} of {checkout} ended with {status}.")


def cut_short(checkout: Path, out: Path, steps: int, *arguments: str) -> None:
    """Train, and press Ctrl-C once something of a tenth of the steps has been saved."""
    process = start(checkout, *arguments, "--out", str(out))
    while newest_step(out / "state") < steps // 10 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.wait()


def samples(checkout: Path, trained: Path, backend: str, out: Path) -> dict[str, np.ndarray]:
    """Return what a checkout samples with a run."""
    run(
        checkout,
        "sample",
        str(trained),
        "--n",
        "64",
        "--steps",
        "2",
        "--seed",
        "5",
        "--backend",
        backend,
        "--out",
        str(out),
    )
    with np.load(out) as file:
        return dict(file)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    before = parser.parse_args().before.resolve()
    different = 0
    with tempfile.TemporaryDirectory() as folder:
        work, teacher = Path(folder), Path(folder) / "teacher"
        run(before, "train", "--data", "digits", "--backend", "jax", "--recipe", "edm", *MLP, "--out", str(teacher))
        for i, (name, (backend, options)) in enumerate(RUNS.items()):
            whole, cut = work / f"whole{i}", work / f"cut{i}"
            options = [*options, "--teacher", str(teacher)] if "cd" in options else options
            command = ["train", "--data", "digits", "--backend", backend, "--seed", "3", *options]
            run(before, *command, "--out", str(whole))
            cut_short(before, cut, int(options[options.index("--steps") + 1]), *command)
            at = newest_step(cut / "state")
            run(HERE, "train", "--out", str(cut), "--resume")
            same = same_weights(whole, cut)
            for other in (backend, "numpy"):
                a = samples(before, whole, other, work / f"before{i}-{other}.npz")
                b = samples(HERE, cut, other, work / f"after{i}-{other}.npz")
                same &= a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)
            print(f"{name}, cut at step {at}: {'the same bits' if same else 'NOT THE SAME'}", flush=True)
            different += not same
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
