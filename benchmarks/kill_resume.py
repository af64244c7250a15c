"""Kill a training run again and again with SIGKILL, resume it each time, and compare with a run that was left alone.

    python benchmarks/kill_resume.py --backend torch --kills 20

Prints one line a kill; the last line says whether the final weights are equal bit for bit. Exit status 1 if they are not,
or if a file could not be read after a kill.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cmcore.model import load_model
from cmcore.run.checkpoint import load_state, newest_step


def kill_and_resume(
    arguments: Sequence[str], work: Path, kills: int, seed: int, say: Callable[[str], None] = print
) -> tuple[Path, Path, int]:
    """Train once undisturbed and once with kills, by ``cmcore train`` with these arguments.

    Returns the two run folders and how many of the kills found the run at work; after its end there is nothing to kill.
    """
    chance = random.Random(seed)
    whole, broken = work / "whole", work / "broken"
    _train(*arguments, "--out", str(whole)).wait()
    # By steps, not by time: a program that was compiled before is read back, and the run is over sooner.
    share = 0.9 * load_model(whole).steps / kills
    for kill in range(kills):
        process = _start(arguments, broken)
        # One kill in four comes while the process starts, the others after it has saved something.
        began = time.monotonic()
        goal = newest_step(broken / "state") + chance.uniform(0, share)
        if kill % 4 != 3:
            while process.poll() is None and newest_step(broken / "state") <= goal:
                time.sleep(0.001)
            time.sleep(chance.uniform(0, 0.05))
        else:
            time.sleep(chance.uniform(0, 5))
        process.kill()
        if process.wait() >= 0:
            say(f"the run ended before kill {kill + 1}")
            return whole, broken, kill
        say(f"kill {kill + 1}: after {time.monotonic() - began:.2f} s, newest state {_check(broken)}")
    _start(arguments, broken).wait()
    return whole, broken, kills


def same_weights(one: Path, other: Path) -> bool:
    """Tell whether two runs ended with the same weights, bit for bit."""
    a, b = load_model(one), load_model(other)
    bits = [{name: w.tobytes() for name, w in model.weights.items()} for model in (a, b)]
    return a.step == b.step == a.steps and bits[0] == bits[1]


def _train(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "cmcore", "train", *arguments], stderr=subprocess.DEVNULL)


def _start(arguments: Sequence[str], run: Path) -> subprocess.Popen[bytes]:
    resumable = (run / "config.json").exists()
    return _train("--out", str(run), *(["--resume"] if resumable else arguments))


def _check(run: Path) -> int | None:
    """Read everything that was saved; return the newest state's step."""
    if (run / "model.safetensors").exists():
        load_model(run)
    state = load_state(run / "state")
    return state[0] if state else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--recipe", default="ct", help="ct also keeps an averaged target network")
    parser.add_argument("--seed", type=int, default=0, help="of the moments at which the run is killed")
    parser.add_argument("--no-compile", action="store_true", help="run the train step eagerly")
    args = parser.parse_args()
    arguments = ["--data", "digits", "--recipe", args.recipe, "--backend", args.backend, "--steps", str(args.steps)]
    arguments += ["--width", "64", "--batch", "64", "--save-every", "20", "--sample-every", str(args.steps // 4)]
    arguments += ["--no-compile"] if args.no_compile else []
    with tempfile.TemporaryDirectory() as work:
        whole, broken, kills = kill_and_resume(arguments, Path(work), args.kills, args.seed)
        same = same_weights(whole, broken)
    print(f"{args.backend}: after {kills} kills the weights are", "equal bit for bit" if same else "NOT EQUAL")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
