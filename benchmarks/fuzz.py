"""Give every reader and the command line damaged and hostile inputs, and count what is not a sentence.

    python benchmarks/fuzz.py --inputs 100000 [--seed 0] [--only npz cli]
    python benchmarks/fuzz.py --only npz --replay 1234

Each target starts from a valid input of its own and spoils it: bytes flipped, cut, doubled or overwritten, numbers of JSON and of
headers made huge or negative, types exchanged, strings made strange. What passes is a result or an error that ``cmcore`` tells as
a sentence; a traceback, more than 5 seconds, a crash or more memory than 10 times the input and 300 MB is counted, with the seed
that replays it. Inputs are read in forked processes of one thread. Exit status 1 if anything is counted. Linux.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import gzip
import io
import json
import os
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import published
from PIL import Image

import cmcore as cm
from cmcore.errors import Error, sentence
from cmcore.model import DataFacts, Model, load_model, save_model
from cmcore.networks import ResidualMLP
from cmcore.run import cli
from cmcore.run.checkpoint import load_state, save_state
from cmcore.run.config import Config
from cmcore.run.data import load
from cmcore.run.folder import Log, RunFolder
from cmcore.run.plan import make_plan

SLOW, SPARE = 5, 300 * 2**20
"""Seconds and bytes that an input may take, the bytes besides ten times its size."""

BATCH = 200
"""Inputs that one forked process reads."""

NUMBERS = (
    0,
    -1,
    1,
    2**31,
    2**63,
    -(2**63),
    2**64,
    10**30,
    1e999,
    -1e999,
    float("nan"),
    1e-320,
    0.5,
    True,
    None,
    "",
    [],
    {},
    "x",
)
TEXTS = (
    "",
    " ",
    "\0",
    "a\0b",
    "\udcff",
    "データ",
    "-1",
    "nan",
    "1e999",
    "../../x",
    "/proc/self/mem",
    "x" * 5000,
)


def spoilt_bytes(data: bytes, chance: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8, 40))):
        place, kind = chance.randrange(len(out) + 1), chance.randrange(6)
        length = chance.choice((1, 2, 4, 8, 64))
        if kind == 0 and out:
            out[place % len(out)] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del out[place : place + length]
        elif kind == 2:
            out[place:place] = bytes(chance.randrange(256) for _ in range(length))
        elif kind == 3:
            out[place : place + length] = chance.choice((b"\xff", b"\0", b"\x7f")) * length
        elif kind == 4:
            out[place:place] = out[place : place + length]
        else:
            del out[place:]
    return bytes(out)


def spoilt_json(record: Any, chance: random.Random) -> str:
    record = copy.deepcopy(record)
    for _ in range(chance.choice((1, 1, 2, 4))):
        node = record
        while isinstance(node, (dict, list)) and node:
            key = chance.choice(list(node)) if isinstance(node, dict) else chance.randrange(len(node))
            if not isinstance(node[key], (dict, list)) or not node[key] or chance.random() < 0.3:
                action = chance.randrange(4)
                if action == 0:
                    del node[key]
                elif action == 1 and isinstance(node, dict):
                    node[chance.choice(TEXTS)] = node.pop(key)
                else:
                    node[key] = chance.choice((*NUMBERS, *TEXTS))
                break
            node = node[key]
    text = json.dumps(record)
    if chance.random() < 0.02:
        text = "[" * 100_000
    return text


def safetensors_bytes(chance: random.Random, data: bytes) -> bytes:
    """A file with its header spoilt as JSON, the manifest within it as well, or any of its bytes."""
    size = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    kind = chance.randrange(4)
    if kind == 0:
        return spoilt_bytes(data, chance)
    if kind == 1 or "cmcore" not in header.get("__metadata__", {}):
        header = spoilt_json(header, chance)
    else:
        header["__metadata__"]["cmcore"] = spoilt_json(json.loads(header["__metadata__"]["cmcore"]), chance)
        header = json.dumps(header)
    raw = header.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", chance.choice((len(raw), len(raw), len(raw), 2**40, 0))) + raw + body


class World:
    """A folder with one valid input of each kind."""

    def __init__(self, place: Path) -> None:
        self.place = place
        cm.load("torch")  # or its import would count as an input's memory
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 256, (4, 4, 4), dtype=np.uint8)
        np.savez(place / "a.npz", x=pixels, y=np.arange(4))
        np.save(place / "a.npy", rng.normal(size=(4, 3)))
        idx = bytes((0, 0, 8, 3)) + struct.pack(">3I", 4, 4, 4) + pixels.tobytes()
        (place / "a-images").write_bytes(idx)
        (place / "a-images.gz").write_bytes(gzip.compress(idx))
        data = load(str(place / "a.npz"))
        config = Config(
            data=str(place / "a.npz"),
            recipe="ct",
            backend="torch",
            device="cpu",
            compiled=False,
            width=8,
            blocks=1,
            steps=4,
        )
        plan = make_plan(config, data)
        self.run = RunFolder(place / "run")
        self.run.path.mkdir()
        with self.run.created(config, plan, {"cmcore": "0", "backend": "torch", "torch": "0"}):
            architecture = ResidualMLP((1, 4, 4), width=8, blocks=1)
            facts = DataFacts("toy", architecture.shape, True)
            model = Model(cm.recipes.get("ct"), architecture, architecture.init(0), facts, 1, 4)
            save_model(model, self.run.model)
            save_state(self.run.state, 2, {"online/a": np.ones(3, np.float32)}, 1.0)
        self.run.log.write_text("step,loss\n1,0.5\n2,0.25\n")
        self.published = place / "published"
        self.published.mkdir()
        published.write(self.published)
        self.images = {}
        for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "ICO"):
            out = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(out, kind)
            self.images[kind.lower().replace("jpeg", "jpg")] = out.getvalue()


def reading(world: World, name: str, chance: random.Random) -> tuple[int, Callable[[], Any]]:
    """Write a spoilt input; return its size and what reads it."""
    place = Path(tempfile.mkdtemp(dir=world.place))
    if name in ("npz", "npy", "idx", "idx.gz"):
        source = {"npz": "a.npz", "npy": "a.npy", "idx": "a-images", "idx.gz": "a-images.gz"}[name]
        data = (world.place / source).read_bytes()
        if name == "idx.gz" and chance.random() < 0.5:
            data = gzip.compress(spoilt_bytes(gzip.decompress(data), chance))
        else:
            data = spoilt_bytes(data, chance)
        (place / source).write_bytes(data)
        return len(data), lambda: load(str(place / source), classes=chance.random() < 0.5)
    if name == "images":
        kind = chance.choice(list(world.images))
        data = spoilt_bytes(world.images[kind], chance)
        (place / f"a.{kind}").write_bytes(data)
        (place / "b.png").write_bytes(world.images["png"])
        (place / "c.png").write_bytes(world.images["png"][::-1] if chance.random() < 0.1 else world.images["png"])
        return len(data), lambda: load(str(place), size=8, skip_broken=chance.random() < 0.5)
    if name == "dataset.json":
        text = spoilt_json({"labels": [["a.png", 1], ["b.png", 2]]}, chance)
        (place / "dataset.json").write_text(text)
        for picture in ("a.png", "b.png"):
            (place / picture).write_bytes(world.images["png"])
        return len(text), lambda: load(str(place), size=8, classes=True)
    if name == "model":
        data = safetensors_bytes(chance, world.run.model.read_bytes())
        (place / "model.safetensors").write_bytes(data)
        return len(data), lambda: load_model(place)
    if name == "state":
        data = safetensors_bytes(chance, next(world.run.state.glob("*.safetensors")).read_bytes())
        (place / "step-00000002.safetensors").write_bytes(data)
        return len(data), lambda: load_state(place)
    if name == "config.json":
        text = spoilt_json(json.loads(world.run.config.read_bytes()), chance)
        data = text.encode() if chance.random() < 0.7 else spoilt_bytes(text.encode(), chance)
        (place / "config.json").write_bytes(data)
        return len(data), RunFolder(place).read
    if name == "log.csv":
        data = spoilt_bytes(world.run.log.read_bytes(), chance)
        (place / "log.csv").write_bytes(data)
        return len(data), lambda: Log(place / "log.csv", 1).add(3, 0.1, {}, 1)
    if name in published.FILES:
        data = (world.published / name).read_bytes()
        if name == "torch.zip":
            data = published.spoilt_zip(data, chance, spoilt_bytes)
        else:
            data = safetensors_bytes(chance, data) if name == "safetensors" else spoilt_bytes(data, chance)
        (place / "a").write_bytes(data)
        return len(data), lambda: cm.import_model(place / "a")
    if name in published.FOLDERS:

        def spoil(data: bytes, suffix: str) -> bytes:
            if suffix == ".safetensors":
                return safetensors_bytes(chance, data)
            text = spoilt_json(json.loads(data), chance).encode("utf-8", "surrogatepass")
            return text if chance.random() < 0.7 else spoilt_bytes(text, chance)

        size = published.spoilt_folder(world.published / name, place, chance, spoil)
        return size, lambda: cm.import_model(place)
    return 0, lambda: command(world, place, chance)


TARGETS = (
    "npz", "npy", "idx", "idx.gz", "images", "dataset.json", "model", "state", "config.json", "log.csv", *published.FILES,
    *published.FOLDERS, "cli",
)  # fmt: skip


def command(world: World, place: Path, chance: random.Random) -> None:
    """Run the command line with arguments of its own grammar, spoilt; what it does is cut short where it would train."""
    (sub,) = (a for a in cli._parser()._actions if isinstance(a, argparse._SubParsersAction))
    name = chance.choice(("train", "sample", "eval", "average"))
    values = (*TEXTS, "0", "1", "3", "-5", "99999999999999999999", "0.5", "inf", "1,0", "0,1", "4x4", str(world.place / "a.npz"),
              str(world.run.path), str(place), str(place / "new.npz"), str(place / "new"), "digits", "numpy", "torch", "lr=nan", "n=-1",
              "n", "betas=1,2", "weighting=x", "=", "t_max=1e-9", "sigma_data=-1", "cuda:99", "ct", "edm", "cd")  # fmt: skip
    argv = [name] + ([str(world.run.path)] if name in ("sample", "eval", "average") and chance.random() < 0.8 else [])
    for action in chance.sample(sub.choices[name]._actions, chance.randrange(1, 7)):
        if action.option_strings and action.dest not in ("help", "debug", "batch", "n", "steps", "search"):
            argv += [action.option_strings[0]] + ([] if action.nargs == 0 else [chance.choice(values)])
    for option, small in (("--n", "2"), ("--steps", "1"), ("--batch", "2")):
        if option in sub.choices[name]._option_string_actions:
            argv += [option, small if chance.random() < 0.8 else chance.choice(TEXTS[:10])]
    if name != "train" and chance.random() < 0.8:
        argv += ["--backend", "numpy"] if "--backend" in sub.choices[name]._option_string_actions else []
    if chance.random() < 0.5:
        argv += ["--out", str(place / chance.choice(("x.npz", "x", "x.png", "x.safetensors", "v1.5")))]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            status = cli.main(argv)
        except SystemExit as left:
            status = left.code
    if status == 1 or "Traceback" in err.getvalue():
        raise RuntimeError(f"{argv}: {err.getvalue()}")


def judged(read: Callable[[], Any]) -> str:
    """What is wrong with how an input ends; empty if nothing is."""
    try:
        read()
    except (Error, ValueError, TypeError, OSError, MemoryError) as told:
        if isinstance(told, (UnicodeError, json.JSONDecodeError)) or not sentence(told).endswith(
            (".", "!", "?", "--resume")
        ):
            return f"{type(told).__name__}: {told}"
    except Exception as raw:
        return f"{type(raw).__name__}: {str(raw)[:300]}"
    return ""


def work(world: World, name: str, seeds: range, report: int) -> None:
    """Read inputs, and write a line of JSON for each that goes wrong."""
    warnings.simplefilter("ignore")
    for seed in seeds:
        chance = random.Random(f"{name} {seed}")
        os.write(report, f"{seed}\n".encode())
        size, read = reading(world, name, chance)
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
        wrong = judged(read)
        took = time.perf_counter() - start
        grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        # A command that finds what others wrote trains and samples, which takes what it takes.
        if not wrong and name != "cli" and grown > 10 * size + SPARE:
            wrong = f"memory: {grown / 2**20:.0f} MB for {size} bytes"
        if not wrong and took > SLOW:
            wrong = f"time: {took:.1f} s"
        if wrong:
            os.write(report, (json.dumps([seed, wrong]) + "\n").encode())


def run(world: World, name: str, seeds: range) -> list[tuple[int, str]]:
    """Read inputs in a process of their own; one that hangs or crashes is wrong, and the rest goes on."""
    found = []
    while seeds:
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.close(reader)
            signal.alarm(SLOW * 12 + len(seeds))
            # What asks for all the memory there is fails, before other processes suffer.
            there = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (there + 2**31,) * 2)
            with contextlib.suppress(BaseException):
                work(world, name, seeds, writer)
                os._exit(0)
            os._exit(1)
        os.close(writer)
        with open(reader) as lines:  # noqa: PTH123
            said = [json.loads(line) for line in lines if line.strip()]
        _, status = os.waitpid(child, 0)
        found += [(seed, wrong) for seed, wrong in (s for s in said if isinstance(s, list))]
        if status == 0:
            break
        last = max(s for s in said if isinstance(s, int))
        found.append((last, f"the process ended with {status}"))
        seeds = range(last + 1, seeds.stop)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000, help="of all targets together")
    parser.add_argument("--seed", type=int, default=0, help="of the first input of each target")
    parser.add_argument("--only", nargs="+", choices=TARGETS, default=TARGETS)
    parser.add_argument("--replay", type=int, help="one input, with its traceback")
    args = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as place:
        world = World(Path(place))
        os.chdir(place)
        if args.replay is not None:
            reading(world, args.only[0], random.Random(f"{args.only[0]} {args.replay}"))[1]()
            return 0
        print("| target | inputs | not a sentence | seconds |\n|---|---|---|---|")
        for name in args.only:
            start, count, kinds = time.perf_counter(), args.inputs // len(args.only), Counter[str]()
            for first in range(args.seed, args.seed + count, BATCH):
                for seed, what in run(world, name, range(first, min(first + BATCH, args.seed + count))):
                    wrong += 1
                    if kinds[what[:60]] == 0:
                        print(f"{name} {seed}: {what}", file=sys.stderr, flush=True)
                    kinds[what[:60]] += 1
            print(f"| {name} | {count:,} | {sum(kinds.values())} | {time.perf_counter() - start:.0f} |", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
