"""Kill a training run again and again with SIGKILL, resume it each time, and compare with a run that was left alone.

    python benchmarks/kill_resume.py --backend torch --kills 20
    python benchmarks/kill_resume.py --backend torch --kills 200 --warm --no-compile
    python benchmarks/kill_resume.py --backend jax --kills 200 --warm --batch 512 --steps 8000

Prints one line a kill; the last line says whether the runs ended with the same files, weights bit for bit. Exit status 1 if
they did not, or if a file could not be read after a kill. With ``--warm`` (Linux, needs cc) the processes are forked from one
that has imported the framework.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from faulty_disk import machine
from run_files import differences, unreadable

from cmcore.model import load_model
from cmcore.run.checkpoint import newest_step

Start = Callable[[Sequence[str]], Any]
"""Starts ``cmcore`` with these arguments and returns the process: poll(), wait(), kill()."""


def cold(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a process of its own."""
    return subprocess.Popen([sys.executable, "-m", "cmcore", *arguments], stderr=subprocess.DEVNULL)


def kill_and_resume(
    arguments: Sequence[str], work: Path, kills: int, seed: int, say: Callable[[str], None] = print, start: Start = cold
) -> tuple[Path, Path, int]:
    """Train once undisturbed and once with kills, by ``cmcore train`` with these arguments.

    Returns the two run folders and how many of the kills found the run at work; after its end there is nothing to kill.
    Raises `AssertionError` if a file cannot be read after a kill.
    """
    chance = random.Random(seed)
    whole, broken = work / "whole", work / "broken"
    began = time.monotonic()
    undisturbed = start(["train", *arguments, "--out", str(whole)])
    while undisturbed.poll() is None and not newest_step(whole / "state"):
        time.sleep(0.001)
    first_save = time.monotonic() - began
    undisturbed.wait()
    # By steps, not by time: a program that was compiled before is read back, and the run is over sooner.
    share = 0.9 * load_model(whole).steps / kills
    for kill in range(kills):
        process = start(_command(arguments, broken))
        # One kill in four comes while the process starts, the others after it has saved something.
        began = time.monotonic()
        goal = newest_step(broken / "state") + chance.uniform(0, share)
        if kill % 4 != 3:
            while process.poll() is None and newest_step(broken / "state") <= goal:
                time.sleep(0.001)
            time.sleep(chance.uniform(0, 0.05))
        else:
            time.sleep(chance.uniform(0, first_save))
        process.kill()
        if process.wait() >= 0:
            say(f"the run ended before kill {kill + 1}")
            return whole, broken, kill
        say(f"kill {kill + 1}: after {time.monotonic() - began:.2f} s, newest state {newest_step(broken / 'state')}")
        assert not (problems := unreadable(broken)), problems
    start(_command(arguments, broken)).wait()
    return whole, broken, kills


def _command(arguments: Sequence[str], run: Path) -> list[str]:
    resumable = (run / "config.json").exists()
    return ["train", "--out", str(run), *(["--resume"] if resumable else arguments)]


@contextmanager
def _starter(backend: str, work: Path, warm: bool) -> Iterator[Start]:
    if not warm:
        yield cold
        return
    with machine(backend, work) as forked:
        # Nothing is counted.
        yield lambda arguments: forked.start(arguments, work / "nothing")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=64, help="larger for a machine that outruns the kills")
    parser.add_argument("--recipe", default="ct", help="ct also keeps an averaged target network")
    parser.add_argument("--seed", type=int, default=0, help="of the moments at which the run is killed")
    parser.add_argument("--no-compile", action="store_true", help="run the train step eagerly")
    parser.add_argument("--warm", action="store_true", help="fork processes that have imported the framework")
    args = parser.parse_args()
    arguments = ["--data", "digits", "--recipe", args.recipe, "--backend", args.backend, "--steps", str(args.steps)]
    arguments += [
        "--width",
        "64",
        "--batch",
        str(args.batch),
        "--save-every",
        "20",
        "--sample-every",
        str(args.steps // 4),
    ]
    arguments += ["--no-compile"] if args.no_compile else []
    with tempfile.TemporaryDirectory() as name, _starter(args.backend, Path(name), args.warm) as start:
        whole, broken, kills = kill_and_resume(arguments, Path(name), args.kills, args.seed, start=start)
        other = differences(broken, whole)
    print(
        f"{args.backend}: after {kills} kills",
        f"OTHER FILES: {', '.join(other)}" if other else "the same files, to the bit",
    )
    return 1 if other else 0


if __name__ == "__main__":
    sys.exit(main())
