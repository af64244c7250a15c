"""Train with one device and with several, the same batches, and print how far losses and weights are apart.

    python benchmarks/many_devices.py --backend torch
    python benchmarks/many_devices.py --backend jax
    python benchmarks/many_devices.py --backend tinygrad --devices 2 --ways whole --recipes edm ect
    python benchmarks/many_devices.py --backend torch --recipes ect --kill

The devices are processes on the CPU that talk by gloo (torch), or parts of the CPU (jax, tinygrad). The first rows of each recipe have
all weights on every device, those marked "shard" have them spread. Exit status 1 if anything is further apart than --within.
With --kill one of two processes is killed at work, and the run goes on with one and with four: torch alone has processes here.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

if "jax" in sys.argv:  # before the framework is imported
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"

import numpy as np

from cmcore.backend import load
from cmcore.errors import Error
from cmcore.run.checkpoint import load_state, newest_step
from cmcore.run.config import Config
from cmcore.run.data import Dataset
from cmcore.run.report import Progress
from cmcore.run.train import train

RECIPES = ("edm", "cd", "ct", "ect", "pd", "cmt", "sct", "meanflow", "psd", "shortcut", "ctm")
"""A recipe of each family: those with ``sct`` and ``meanflow`` take Jacobian-vector products, ``ct`` keeps a target network."""

WAYS = ("whole", "shard")
TEACHER = "edm"
DISTILLED = ("cd", "pd", "cmt", "ctm")
BATCH = 16


def data(shape: tuple[int, ...]) -> Dataset:
    """Points of a few clusters, or tiny pictures, in two classes."""
    rng = np.random.default_rng(0)
    label = np.arange(64) % 2
    x = np.tanh(0.3 * rng.standard_normal((64, *shape)) + (label - 0.5).reshape(-1, *(1,) * len(shape)))
    return Dataset(x.astype(np.float32), label, ("low", "high"), None, "clusters", images=len(shape) == 3)


def config(recipe: str, backend: str, steps: int, **changes: Any) -> Config:
    """The run of a recipe: flips and classes take part, and meanflow takes its batches in two parts."""
    settings: dict[str, Any] = {
        "recipe": recipe,
        # A hundred times the papers' rates: in so few steps weights must move, or wrong gradients would not be seen.
        "options": {"lr": 1e-2},
        "backend": backend,
        "device": None if backend == "tinygrad" else "cpu",
        "steps": steps,
        "batch": BATCH,
        "accumulate": 2 if recipe == "meanflow" else 1,
        "network": "mlp",
        "width": 8,
        "blocks": 2,
        "classes": True,
        "flip": True,
        "compiled": backend != "torch",
        "save_every": max(2, steps // 5),
        "sample_every": steps,
    }
    return Config(**settings | changes)


def several(count: int, work: Callable[[], None]) -> list[int]:
    """Do the work in so many processes that find each other as those of a launcher do; return how each ended."""
    children = started(count, work)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def started(count: int, work: Callable[[], None]) -> list[int]:
    """Start the work in so many processes and return their numbers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(count):
        child = os.fork()
        if not child:
            if count > 1:
                where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": count, "RANK": rank}
                os.environ.update({name: str(value) for name, value in where.items()}, LOCAL_RANK=str(rank))
            ended = 1
            try:
                work()
                ended = 0
            except Error as told:
                print(f"worker {rank}: {told}", file=sys.stderr)
                ended = 2
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(ended)
        children.append(child)
    return children


def curve(run: Path) -> np.ndarray:
    """Return the losses of a run's log."""
    with (run / "log.csv").open() as file:
        return np.array([float(row["loss"]) for row in csv.DictReader(file)])


def apart(run: Path, other: Path) -> tuple[float, float]:
    """Return the largest relative difference of two runs' losses, and the largest of their weights and averages."""
    ours, theirs = curve(run), curve(other)
    assert len(ours) == len(theirs), f"{run} has {len(ours)} losses, {other} {len(theirs)}"
    states = [load_state(place / "state") for place in (run, other)]
    assert states[0]
    assert states[1]
    assert states[0][1].keys() == states[1][1].keys()
    weights = (
        float(np.abs(array - states[1][1][name]).max())
        for name, array in states[0][1].items()
        if array.size and not name.startswith("optimizer/")
    )
    return float(np.max(np.abs(ours - theirs) / np.abs(theirs))), max(weights)


@dataclass(frozen=True)
class Bench:
    """Runs in a folder, by backend, recipe, number of devices and whether weights are spread."""

    work: Path
    backend: str
    steps: int
    shape: tuple[int, ...]

    def run(self, recipe: str, count: int, shard: bool = False) -> Path:
        return self.work / f"{recipe}-{count}{'-shard' if shard else ''}"

    def train(self, recipes: Sequence[str], count: int, shard: bool = False, **changes: Any) -> None:
        """Train each recipe on so many devices; a teacher's run is that of one device."""

        def work() -> None:
            for recipe in recipes:
                teacher = self.run(TEACHER, 1) if recipe in DISTILLED else None
                settings = changes if self.processes or count == 1 else changes | {"devices": count}
                chosen = config(recipe, self.backend, self.steps, shard=shard, **settings)
                train(chosen, data(self.shape), out=self.run(recipe, count, shard), teacher=teacher)

        if not self.processes:
            work()
        elif any(ended := several(count, work)):
            sys.exit(f"Processes ended with {ended}.")

    @property
    def processes(self) -> bool:
        """Whether there is a process for each device."""
        return self.backend == "torch"


def kill(bench: Bench, recipe: str) -> float:
    """Kill one of two processes at work, go on with one and with four; print and return how far that is from an undisturbed run."""
    whole, broken = bench.run(recipe, 1), bench.work / "broken"
    chosen, worst = replace(config(recipe, bench.backend, bench.steps), save_every=2), 0.0
    killed, half = bench.work / "killed", bench.steps // 2

    def work(resume: bool, out: Path = broken) -> None:
        train(chosen, data(bench.shape), out=out, resume=resume, progress=Waiting(half, killed))

    children = started(2, partial(work, resume=False))
    while newest_step(broken / "state") < (half - 1) // 2 * 2:
        time.sleep(0.01)
    os.kill(children[1], signal.SIGKILL)
    killed.touch()
    ended = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    print(
        f"one of two processes killed; the other ended with the status {ended[0]}, step {newest_step(broken / 'state')} is kept"
    )
    assert ended == [2, -signal.SIGKILL], ended
    for count in (1, 4):
        copy = bench.work / f"broken-{count}"
        shutil.copytree(broken, copy)
        assert not any(several(count, partial(work, resume=True, out=copy)))
        losses, weights = apart(copy, whole)
        print(f"gone on with {count}: losses {losses:.1e}, weights {weights:.1e} from a run that was left alone")
        worst = max(worst, losses, weights)
    return worst


class Waiting(Progress):
    """Goes on after a step only once a file is there."""

    def __init__(self, step: int, file: Path) -> None:
        self._step, self._file = step, file

    def advance(self, done: int) -> None:
        while done == self._step and not self._file.exists():
            time.sleep(0.01)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--devices", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES))
    parser.add_argument("--shape", type=int, nargs="+", default=[1, 4, 4], help="of a sample: 2 for points")
    parser.add_argument(
        "--ways",
        nargs="+",
        choices=WAYS,
        default=list(WAYS),
        help="how weights are held: whole on each device, or sharded",
    )
    parser.add_argument("--within", type=float, default=1e-5)
    parser.add_argument(
        "--kill", action="store_true", help="kill one of two processes, and go on with one and with four"
    )
    args = parser.parse_args()
    load(args.backend)  # imported once, for all processes
    recipes = sorted({*args.recipes} | ({TEACHER} if {*args.recipes} & {*DISTILLED} else set()), key=RECIPES.index)
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name), args.backend, args.steps, tuple(args.shape))
        bench.train(recipes, 1)
        ways = [(n, way == "shard") for way in args.ways for n in args.devices]
        for count, shard in ways:
            bench.train(recipes, count, shard)
        print("| recipe | devices | losses, relative | weights |\n|---|---|---|---|")
        worst = 0.0
        for recipe in args.recipes:
            for count, shard in ways:
                losses, weights = apart(bench.run(recipe, count, shard), bench.run(recipe, 1))
                worst = max(worst, losses, weights)
                print(f"| {recipe} | {count}{', shard' if shard else ''} | {losses:.1e} | {weights:.1e} |")
        if args.kill:
            worst = max(worst, kill(bench, args.recipes[0]))
    return int(not worst <= args.within)


if __name__ == "__main__":
    sys.exit(main())
