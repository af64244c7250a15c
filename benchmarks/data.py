"""Data that scales: how long a training takes to start on it, and how much memory it holds.

    python benchmarks/data.py files [--n 100000]
    python benchmarks/data.py array [--gib 4]

`files` makes a folder of that many small PNGs and starts on it twice, the second time from the cache; and on a tenth of them, to see
whether memory grows with their number. `array` writes an .npy of uint8 (N, 3, 64, 64), starts on it twice, and compares its batches
with those of the same array in memory, in turn, in one process. A start is a process of its own; "train" is the command line with
one step of a small network, the backend's import included. Memory is the most that the process ever held, mapped pages included.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

START = """
import json, resource, sys, time
began = time.perf_counter()
from cmcore.run.data import load
notes, calls = [], []
data = load(sys.argv[1], note=notes.append, progress=lambda done, total: calls.append(done))
seconds = time.perf_counter() - began
began = time.perf_counter()
for step in range(int(sys.argv[2])):
    data.batch(0, step, 256)
batches = time.perf_counter() - began
most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"seconds": seconds, "batches": batches, "most": most, "told": len(calls), "notes": notes}))
"""

TRAIN = "--steps 1 --batch 64 --width 8 --blocks 1 --network mlp --no-compile --size 32".split()


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("files", "array"))
    parser.add_argument("--n", type=int, default=100_000, help="PNGs (%(default)s)")
    parser.add_argument("--gib", type=float, default=4, help="size of the array (%(default)s)")
    parser.add_argument("--rounds", type=int, default=200, help="batches of 256 (%(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        os.environ["XDG_CACHE_HOME"] = f"{place}/cache"
        (files if args.what == "files" else array)(Path(place), args)


def files(place: Path, args: argparse.Namespace) -> None:
    """Measure folders of PNGs."""
    for name, n in (("a tenth", args.n // 10), ("all", args.n)):
        folder = place / name.replace(" ", "-")
        began = time.perf_counter()
        make(folder, n)
        print(f"{n:,} PNGs made in {time.perf_counter() - began:.0f} s", flush=True)
        for which in ("first", "second"):
            print(f"{which} start on {name}: {start(folder, args.rounds)}", flush=True)
        print(f"train on {name}: {train(folder, place / f'run-{n}')}", flush=True)


def array(place: Path, args: argparse.Namespace) -> None:
    """Measure one file of bytes."""
    path = place / "bytes.npy"
    shape = (int(args.gib * 2**30) // (3 * 64 * 64), 3, 64, 64)
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for begin in range(0, shape[0], 4096):
            file.write(rng.bytes(min(4096, shape[0] - begin) * 3 * 64 * 64))
    print(f"{path.stat().st_size / 2**30:.1f} GiB: {shape}", flush=True)
    for which in ("first", "second"):
        print(f"{which} start: {start(path, args.rounds)}", flush=True)
    print(f"train: {train(path, place / 'run', '--size', '64')}", flush=True)
    print(compared(path, args.rounds), flush=True)


def make(folder: Path, n: int) -> None:
    """Write n PNGs of 40 x 36 with some structure, a thousand a sub-folder."""

    def write(index: int) -> None:
        rng = np.random.default_rng(index)
        corners = Image.fromarray(rng.integers(0, 256, (3, 3, 3), np.uint8))
        name = folder / f"{index // 1000:05d}" / f"{index:07d}.png"
        corners.resize((40, 36), Image.Resampling.BILINEAR).save(name, compress_level=1)

    for begin in range(0, n, 1000):
        (folder / f"{begin // 1000:05d}").mkdir(parents=True)
    with ThreadPoolExecutor() as pool:
        list(pool.map(write, range(n)))


def start(source: Path, rounds: int) -> str:
    """Load data in a new process, take batches, and say how long that took and how much memory."""
    done = subprocess.run(
        [sys.executable, "-c", START, source, str(rounds)], check=True, capture_output=True, text=True
    )
    told = json.loads(done.stdout)
    return (
        f"{told['seconds']:.1f} s, then {rounds} batches of 256 in {told['batches']:.2f} s; at most {told['most'] / 2**20:,.0f} MiB; "
        f"progress told {told['told']:,} times; {' '.join(told['notes'])}"
    )


def train(source: Path, out: Path, *more: str) -> str:
    """Take one step on the command line."""
    command = [sys.executable, "-m", "cmcore", "train", "--data", source, "--out", out, *TRAIN, *more]
    began = time.perf_counter()
    process = subprocess.Popen([str(part) for part in command], stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"training on {source} failed")
    return f"{time.perf_counter() - began:.1f} s for the whole command, at most {usage.ru_maxrss / 2**10:,.0f} MiB"


def compared(path: Path, rounds: int) -> str:
    """Take the same batches from the mapped file and from memory in turn."""
    from cmcore.run.data import Dataset, load

    mapped = load(str(path))
    inside = Dataset(np.array(mapped.samples.stored), None, (), None, "memory", True)
    taken: dict[str, list[float]] = {"mapped": [], "memory": []}
    for step in range(rounds):
        for name, data in (("mapped", mapped), ("memory", inside)):
            began = time.perf_counter()
            data.batch(0, step, 256)
            taken[name].append(time.perf_counter() - began)
    ratio = median(a / b for a, b in zip(taken["mapped"], taken["memory"], strict=True))
    times = ", ".join(f"{name} {1e3 * median(seconds):.2f} ms" for name, seconds in taken.items())
    return f"a batch of 256: {times}; mapped / memory {ratio:.2f}"


if __name__ == "__main__":
    main()
