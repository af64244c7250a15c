"""Whether all files of a run can be read, and whether two runs have the same ones."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from cmcore._files import read_arrays
from cmcore.errors import Error


def unreadable(run: Path) -> list[str]:
    """Return what cannot be read of a run that may have been killed: a sentence for each file, hidden ones left out."""
    problems = []
    for path in _files(run):
        try:
            _content(path)
        # Whatever a reader raises is the finding.
        except Exception as problem:
            problems.append(f"{path}: {problem!r}")
    return problems


def differences(run: Path, other: Path) -> list[str]:
    """Return the names of the files in which two finished runs differ: bits of arrays and pictures, steps and losses."""
    ours, theirs = ({str(p.relative_to(r)): p for p in _files(r, hidden=True)} for r in (run, other))
    only_one = set(ours) ^ set(theirs)
    both = set(ours) & set(theirs)
    return sorted([*only_one, *(name for name in both if _content(ours[name]) != _content(theirs[name]))])


def _files(run: Path, hidden: bool = False) -> list[Path]:
    found = (p for p in run.rglob("*") if p.is_file() and p.name != ".lock") if run.is_dir() else iter(())
    return [p for p in found if hidden or not p.name.startswith(".")]


def _content(path: Path) -> Any:
    for pattern, read in _READERS.items():
        if re.fullmatch(pattern, path.name):
            return read(path)
    raise ValueError("a run has no such file")


def _arrays(path: Path) -> Any:
    arrays, manifest = read_arrays(path)
    # How long it took is another matter.
    return {name: (a.dtype, a.shape, a.tobytes()) for name, a in arrays.items()}, manifest.get("step")


def _log(path: Path) -> Any:
    """The rows' steps and losses."""
    return [(row["step"], row["loss"]) for row in _rows(path)]


def _rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table; a run that was killed may have half of a last one, which resuming drops."""
    lines = path.read_text().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    rows = list(csv.DictReader(whole))
    if any(None in row.values() or None in row for row in rows):
        raise Error("a row of the table has too few or too many numbers")
    return rows


def _picture(path: Path) -> Any:
    with Image.open(path) as image:
        return image.size, image.tobytes()


_READERS: dict[str, Callable[[Path], Any]] = {
    r"config\.json": lambda path: json.loads(path.read_bytes()),
    r".*\.safetensors": _arrays,
    r"log\.csv": _log,
    r"loss_by_time\.csv": _rows,
    r"step-\d{8}\.png": _picture,
}
