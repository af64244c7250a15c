"""Tables that a run adds rows to, and that are cut back to the step at which it is resumed."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path

from cmcore._files import atomic_write, placed


class CsvFile:
    """A file of rows of numbers, the first of which is the step, under the names of the first row."""

    def __init__(self, path: Path, step: int) -> None:
        """Open the table, cut back to the rows up to a step."""
        self._path, self.names = path, _cut_back(path, step)

    def add(self, row: Mapping[str, float | None]) -> None:
        """Append a row."""
        text = StringIO()
        writer = csv.DictWriter(text, self.names or list(row), lineterminator="\n")
        if not self.names:
            writer.writeheader()
            self.names = list(row)
        writer.writerow(row)
        with placed(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(text.getvalue())


def read_columns(path: Path) -> dict[str, list[float]]:
    """Return a table's columns by name, whole rows of numbers only; NaN for an empty cell, no columns without the file."""
    if not path.is_file():
        return {}
    with placed(path):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    names, *rows = list(csv.reader(line for line in lines if line.endswith("\n"))) or [[]]
    numbers = [numbered for row in rows if len(row) == len(names) and (numbered := _numbers(row))]
    return dict(zip(names, map(list, zip(*numbers, strict=True)), strict=True)) if numbers else {}


def _numbers(row: Sequence[str]) -> list[float]:
    try:
        return [float(cell) if cell else float("nan") for cell in row]
    except ValueError:
        return []


def _cut_back(path: Path, step: int) -> list[str]:
    """Drop the rows past a step and a half-written last line; return the names of the columns, empty without any."""
    if not path.is_file():
        return []
    with placed(path):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    names = lines[0].strip().split(",") if lines and lines[0].endswith("\n") else []
    kept = [line for line in lines[1:] if line.endswith("\n") and _step_of(line) <= step] if names else []
    atomic_write(path, "".join(lines[: bool(names)] + kept).encode())
    return names


def _step_of(line: str) -> int | float:
    text = line.partition(",")[0]
    return int(text) if text.isdecimal() else float("inf")
