"""Do to runs what machines and people do, and compare their ends with that of a run that was left alone.

    python benchmarks/disturbances.py --backend torch

Two processes at once in one folder, with locks and without; a process stopped for seconds; the folder copied while it is written;
and, for root, a disk that is really full or read-only. Prints a row each; exit status 1 if anything is wrong. Linux, needs cc.
"""

from __future__ import annotations

import argparse
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from faulty_disk import Fault, Machine, machine
from run_files import differences, unreadable

from cmcore.run.checkpoint import newest_step


class Bench:
    """A machine, the arguments of a run, and where it was left alone."""

    def __init__(self, machine: Machine, backend: str, work: Path, steps: int) -> None:
        self.machine, self.work, self.whole = machine, work, work / "whole"
        np.savez(work / "data.npz", x=np.random.default_rng(0).integers(0, 256, (64, 8, 8, 1)).astype(np.uint8))
        settings = f"--backend {backend} --recipe ect --set ema_std=0.1 --steps {steps} --width 16 --blocks 1 --batch 8"
        self.arguments = [*settings.split(), "--save-every", "10", "--sample-every", "50"]
        self.arguments += ["--data", str(work / "data.npz"), *(["--no-compile"] if backend == "torch" else [])]
        outcome = machine.run(self.command(self.whole), work / "nothing")
        if outcome.status:
            raise SystemExit(outcome.said)

    def command(self, out: Path) -> list[str]:
        """Start a run, or go on with one."""
        return ["train", "--out", str(out), *(["--resume"] if (out / "config.json").exists() else self.arguments)]

    def end(self, out: Path) -> list[str]:
        """Go on with a run; return how its files differ from those of the one that was left alone."""
        outcome = self.machine.run(self.command(out), self.work / "nothing")
        if outcome.status and "is finished" not in outcome.said:
            return [f"it does not go on: {outcome.said}"]
        return [f"another {name}" for name in differences(out, self.whole)]

    def wait_for(self, run: Path, step: int) -> None:
        """Wait until a run has saved a step."""
        while newest_step(run / "state") < step:
            time.sleep(0.001)


def two_at_once(bench: Bench, rounds: int, fault: Fault, where: str) -> Iterator[tuple[str, list[str]]]:
    """One of two that start together trains, the other says that it does not."""
    for i in range(rounds):
        run = bench.work / where / str(i)
        both = [bench.machine.start(bench.command(run), bench.work / where, fault) for _ in range(2)]
        outcomes = sorted((process.outcome() for process in both), key=lambda outcome: outcome.status)
        statuses = [outcome.status for outcome in outcomes]
        refused = "Another process" in outcomes[1].said or "holds a run already" in outcomes[1].said
        wrong = [] if statuses == [0, 2] and refused else [f"they ended with {statuses}: {outcomes[1].said}"]
        yield "one trained, one said why not", [*wrong, *bench.end(run)]


def with_locks(bench: Bench, rounds: int) -> Iterator[tuple[str, list[str]]]:
    yield from two_at_once(bench, rounds, Fault(), "locks")


def without_locks(bench: Bench, rounds: int) -> Iterator[tuple[str, list[str]]]:
    yield from two_at_once(bench, rounds, Fault(at=1, lasting=True, error=errno.ENOLCK, calls=("flock",)), "no locks")


def stopped(bench: Bench, rounds: int) -> Iterator[tuple[str, list[str]]]:
    """Stopped for two seconds at a random moment, as a suspended machine does."""
    chance = random.Random(0)
    for i in range(rounds):
        run = bench.work / "stopped" / str(i)
        process = bench.machine.start(bench.command(run), bench.work / "nothing")
        bench.wait_for(run, 10)
        time.sleep(chance.uniform(0, 0.3))
        process.send(signal.SIGSTOP)
        time.sleep(2)
        process.send(signal.SIGCONT)
        outcome = process.outcome()
        wrong = [] if outcome.status == 0 else [f"it ended with {outcome.status}: {outcome.said}"]
        yield "trained to its end", [*wrong, *(f"another {name}" for name in differences(run, bench.whole))]


def copied(bench: Bench, rounds: int) -> Iterator[tuple[str, list[str]]]:
    """Copied with cp -r while it is written: the copy goes on, or says what it lacks."""
    chance, i = random.Random(0), 0
    while i < rounds:
        run = bench.work / "copied" / f"run {i}"
        process = bench.machine.start(bench.command(run), bench.work / "nothing")
        bench.wait_for(run, 0)
        while process.poll() is None and i < rounds:
            time.sleep(chance.uniform(0, 0.05))
            copy = bench.work / "copied" / str(i)
            # cp tells of files that have gone meanwhile.
            subprocess.run(["cp", "-r", run, copy], stderr=subprocess.DEVNULL)
            i += 1
            yield _ended(bench, copy)
        process.kill()
        process.wait()


def _ended(bench: Bench, copy: Path) -> tuple[str, list[str]]:
    wrong = unreadable(copy)
    outcome = bench.machine.run(bench.command(copy), bench.work / "nothing")
    if outcome.status == 2 and "lost its training state" in outcome.said:
        how = "said that no state was copied"
    elif outcome.status and "is finished" not in outcome.said:
        how, wrong = "failed", [*wrong, outcome.said]
    else:
        # What was copied before the state was written can lack rows, pictures and averages; the weights are the test.
        other = [name for name in differences(copy, bench.whole) if name.startswith(("model", "state", "config"))]
        how, wrong = "went on", [*wrong, *(f"another {name}" for name in other)]
    shutil.rmtree(copy)
    return how, wrong


def full(bench: Bench, rounds: int) -> Iterator[tuple[str, list[str]]]:
    """A disk of its own that is full sooner or later, and then has more space."""
    need = sum(path.stat().st_size for path in bench.whole.rglob("*"))
    for i in range(rounds):
        with _mounted(bench.work / "disk", size := need * (i + 1) // (rounds + 1)) as disk:
            run = disk / "run"
            outcome = bench.machine.run(bench.command(run), bench.work / "nothing")
            wrong = unreadable(run)
            if outcome.status != 2 or "Traceback" in outcome.said or str(run) not in outcome.said:
                wrong.append(f"with {size} bytes it ended with {outcome.status}: {outcome.said}")
            subprocess.run(["mount", "-o", "remount,size=100m", disk], check=True)
            yield "a sentence, then its end", [*wrong, *bench.end(run)]


def read_only(bench: Bench, rounds: int) -> Iterator[tuple[str, list[str]]]:
    """A disk that is made read-only while a run is there, and before one is."""
    for i in range(rounds):
        with _mounted(bench.work / "disk", 100_000_000) as disk:
            run = disk / "run"
            if i % 2:
                process = bench.machine.start(bench.command(run), bench.work / "nothing")
                bench.wait_for(run, 20)
                process.kill()
                process.wait()
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
            outcome = bench.machine.run(bench.command(run), bench.work / "nothing")
            wrong = unreadable(run)
            if outcome.status != 2 or "Read-only" not in outcome.said or str(run) not in outcome.said:
                wrong.append(f"it ended with {outcome.status}: {outcome.said}")
            subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
            yield "a sentence, then its end", [*wrong, *bench.end(run)]


@contextmanager
def _mounted(place: Path, size: int) -> Iterator[Path]:
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


Disturbance = Callable[[Bench, int], Iterator[tuple[str, list[str]]]]

ALL: dict[str, tuple[Disturbance, int]] = {
    "two processes at once": (with_locks, 20),
    "two at once on a disk without locks": (without_locks, 20),
    "stopped for two seconds": (stopped, 10),
    "copied with cp -r while written": (copied, 100),
    "a disk that is full": (full, 20),
    "a disk that is read-only": (read_only, 4),
}
NEED_ROOT = (full, read_only)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--steps", type=int, default=200)
    args = parser.parse_args()
    failures = 0
    print("| disturbance | times | ended | wrong |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name, machine(args.backend, Path(name).resolve()) as forked:
        bench = Bench(forked, args.backend, Path(name).resolve(), args.steps)
        for what, (disturb, rounds) in ALL.items():
            if disturb in NEED_ROOT and os.geteuid():
                print(f"| {what} | 0 | not tried: only root mounts disks | |")
                continue
            cases = list(disturb(bench, rounds))
            wrong = [text for _, texts in cases for text in texts]
            ends = [how for how, _ in cases]
            ended = ", ".join(f"{ends.count(how)} {how}" for how in dict.fromkeys(ends))
            print(f"| {what} | {len(cases)} | {ended} | {len(wrong)} |", flush=True)
            for text in wrong:
                print(f"{what}: {text}", file=sys.stderr, flush=True)
            failures += len(wrong)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
