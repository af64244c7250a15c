"""Break a run at each system call that touches its folder, in turn; go on with it, and compare with one that was left alone.

    python benchmarks/disk_faults.py --backend torch

Broken by SIGKILL, by a disk that is full or read-only from there on, by one failure, and by a disk that has no locks, no fsync, no
chmod. After each: every file can be read, the newest whole state is kept, what is said names the place, and the run ends with
the same bits in every file. Prints a row a kind of fault, and each case in which that is not so; exit status 1 if there is any.
Linux, needs cc.
"""

from __future__ import annotations

import argparse
import errno
import os
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from faulty_disk import Call, Fault, Machine, Outcome, machine
from run_files import differences, unreadable

from cmcore.run.checkpoint import load_state

GROW = ("create", "write", "mkdir", "fsync", "rename", "truncate", "close")
CHANGE = ("create", "mkdir", "rename", "unlink", "rmdir", "chmod", "utime", "link", "truncate")

KINDS = {
    "SIGKILL": Fault(),
    "SIGKILL in a write": Fault(half=True, calls=("write",)),
    "full from there on": Fault(error=errno.ENOSPC, lasting=True, half=True, calls=GROW),
    "no locks": Fault(error=errno.ENOLCK, calls=("flock",)),
    "no fsync": Fault(error=errno.EINVAL, calls=("fsync",)),
    "no chmod": Fault(error=errno.EPERM, calls=("chmod",)),
    "read-only from there on": Fault(error=errno.EROFS, lasting=True, calls=CHANGE),
    "one input/output error": Fault(error=errno.EIO),
}
COURTESIES = ("no locks", "no fsync", "no chmod")


@dataclass(frozen=True)
class Bench:
    """Where the runs are: ``whole`` was left alone, ``begun`` was broken off, ``run`` is broken."""

    machine: Machine
    arguments: tuple[str, ...]
    work: Path

    @property
    def run(self) -> Path:
        """The folder of the run that is broken."""
        return self.work / "box" / "the run"

    def train(self, out: Path, fault: Fault = Fault()) -> Outcome:  # noqa: B008, it is frozen
        """Start the run in a folder, or go on with the one that is there."""
        begun = (out / "config.json").exists()
        return self.machine.run(
            ["train", "--out", str(out), *(["--resume"] if begun else self.arguments)], out.parent, fault
        )

    def reset(self, begun: Path | None) -> None:
        """Put nothing, or a run that was broken off, in the place of the run."""
        shutil.rmtree(self.run.parent, ignore_errors=True)
        self.run.parent.mkdir()
        if begun:
            shutil.copytree(begun, self.run)


def prepared(bench: Bench) -> tuple[Path, Path]:
    """Return a run that was left alone, and one that was killed while it wrote its last state."""
    whole, begun, last = bench.work / "whole", bench.work / "begun", 0
    for out in (whole, begun):
        bench.reset(None)
        outcome = bench.train(bench.run, Fault(last))
        if outcome.status != (-9 if last else 0):
            raise SystemExit(f"the run that is to be broken does not work: {outcome.said}")
        bench.run.rename(out)
        states = (
            k for k, call in enumerate(outcome.calls, 1) if (call.name, call.path.parent.name) == ("rename", "state")
        )
        last = max(states)
    return whole, begun


def broken(bench: Bench, begun: Path | None, kind: str, at: int, whole: Path) -> tuple[bool, str, list[str]]:
    """Break the run at a call; return whether it was reached, how it ended, and what is wrong, which should be nothing."""
    fault = replace(KINDS[kind], at=at)
    bench.reset(begun)
    outcome = bench.train(bench.run, fault)
    if len(outcome.calls) < at:
        return False, "", []
    wrong = [*unreadable(bench.run), *said_wrong(kind, fault, outcome, bench.run)]
    has_run = (bench.run / "config.json").exists()
    state = load_state(bench.run / "state") if has_run else None
    kept = newest_written(outcome.calls[: at - 1], begun)
    if (has_run or begun) and (state is None or state[0] < kept):
        wrong.append(f"the state after step {kept} was written, {state and state[0]} is kept")
    last = bench.train(bench.run) if outcome.status else outcome
    if last.status and "is finished" not in last.said:
        wrong.append(f"it does not go on: {last.said}")
    else:
        wrong += [f"another {name}" for name in differences(bench.run, whole)]
    ended = {-9: "killed", 0: "went on", 2: "a sentence"}.get(outcome.status, str(outcome.status))
    what = outcome.calls[at - 1]
    return True, ended, [f"{kind} at call {at} ({what.name} {what.path.name}): {text}" for text in wrong]


def said_wrong(kind: str, fault: Fault, outcome: Outcome, run: Path) -> Iterator[str]:
    """What is wrong with how a process ended and what it said."""
    if not fault.error:
        if outcome.status != -9:
            yield f"exit status {outcome.status}: {outcome.said}"
        return
    last = outcome.said.strip().splitlines()[-1] if outcome.said.strip() else ""
    if "Traceback" in outcome.said or outcome.status not in (0, 2):
        yield f"exit status {outcome.status}: {outcome.said}"
    elif kind in COURTESIES:
        if outcome.status or outcome.said.count("left out") != 1:
            yield f"exit status {outcome.status}: {outcome.said}"
    elif outcome.status:
        if not (last.startswith("cmcore: ") and os.strerror(fault.error) in last and str(run.parent) in last):
            yield f"it does not name the place and the cause: {outcome.said}"
        # If that cannot be read, the command that reads it has just been typed.
        unread = outcome.calls[fault.at - 1].path == run / "config.json"
        if (run / "config.json").exists() and not unread and f"cmcore train --out '{run}' --resume" not in last:
            yield f"it does not tell how to go on: {outcome.said}"


def newest_written(calls: list[Call], begun: Path | None) -> int:
    """Return the step of the last state that took its name, in these calls or before."""
    before = load_state(begun / "state") if begun else None
    names = [call.path.stem for call in calls if call.name == "rename" and call.path.parent.name == "state"]
    steps = [int(name.removeprefix("step-")) for name in names if re.fullmatch(r"step-\d+", name)]
    return max([*steps, before[0] if before else 0])


def measure(bench: Bench, kinds: list[str], stride: int) -> int:
    """Print a row a kind of fault; return how many cases were wrong."""
    whole, begun = prepared(bench)
    failures = 0
    print("| fault | in a new run | in a resumed one | ended | wrong | minutes |\n|---|---|---|---|---|---|")
    for kind in kinds:
        start, ends, wrong, counts = time.monotonic(), Counter[str](), [], []
        for origin in (None, begun):
            at, count = 1, 0
            while (case := broken(bench, origin, kind, at, whole))[0]:
                at, count = at + stride, count + 1
                ends[case[1]] += 1
                wrong += case[2]
                for text in case[2]:
                    print(text, file=sys.stderr, flush=True)
            counts.append(count)
        ended = ", ".join(f"{n} {how}" for how, n in ends.most_common())
        minutes = (time.monotonic() - start) / 60
        print(f"| {kind} | {counts[0]} | {counts[1]} | {ended} | {len(wrong)} | {minutes:.1f} |", flush=True)
        failures += len(wrong)
    return failures


def small_run(machine: Machine, backend: str, work: Path) -> Bench:
    """Return a run of a second that writes all that a run can: states, models, averages, pictures, a teacher's copy."""
    x = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 1)).astype(np.uint8)
    np.savez(work / "data.npz", x=x)
    settings = f"--backend {backend} --steps 6 --save-every 2 --sample-every 3 --width 8 --blocks 1 --batch 8"
    # JAX's compiled steps are read back; its eager ones would be compiled one by one.
    common = [*settings.split(), *(["--no-compile"] if backend == "torch" else []), "--data", str(work / "data.npz")]
    teacher = machine.run(["train", "--recipe", "edm", *common, "--out", str(work / "teacher")], work / "box")
    if teacher.status:
        raise SystemExit(teacher.said)
    student = ["--recipe", "cd", "--set", "ema_std=0.1", "--teacher", str(work / "teacher")]
    return Bench(machine, (*common, *student), work)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--stride", type=int, default=1, help="break at each n-th call only (%(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name).resolve()
        with machine(args.backend, work) as forked:
            failures = measure(small_run(forked, args.backend, work), args.kinds, args.stride)
    print(f"{args.backend}: {failures} wrong", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
