"""How long a user waits for something to be said: first line, first step, longest silence of ``cmcore train --data FOLDER``.

    python benchmarks/signs_of_life.py --backend torch [--seconds 120] [--data FOLDER]

Without ``--data``, 200 photographs of 320 x 240 are made. The output is read from a pipe, as a log file or a cluster gets it;
the imports of the interpreter and of the framework are part of the time. The run is killed at the end.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image


def photographs(folder: Path, count: int = 200) -> None:
    """Write smooth random pictures as JPEG files."""
    rng = np.random.default_rng(0)
    for index in range(count):
        small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        small.resize((320, 240), Image.Resampling.BICUBIC).save(folder / f"{index:03d}.jpg")


def listen(command: list[str], seconds: float) -> list[tuple[float, str]]:
    """Run a command for so long; return its lines, each with the seconds after the start."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    threading.Timer(seconds, process.kill).start()
    assert process.stdout
    return [(time.monotonic() - start, line.rstrip()) for line in process.stdout]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--show", action="store_true", help="print the lines")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        data = args.data or Path(name)
        if not args.data:
            photographs(data)
        command = [sys.executable, "-m", "cmcore", "train", "--data", str(data), "--backend", args.backend]
        with tempfile.TemporaryDirectory() as out:
            said = listen([*command, "--out", f"{out}/run"], args.seconds)
    if args.show:
        print(*(f"{when:7.2f}  {line}" for when, line in said), sep="\n")
    times = [when for when, _ in said]
    silence = max(later - sooner for sooner, later in pairwise(times))
    first = next((when for when, line in said if re.match(r"(?i)step [1-9]", line)), None)
    step = "never" if first is None else f"{first:.1f} s"
    print(f"{args.backend}: first line after {times[0]:.1f} s, first step by {step}, longest silence {silence:.1f} s")


if __name__ == "__main__":
    main()
