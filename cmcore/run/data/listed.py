"""A table of paths of images, and of their labels if it has any: .csv, .tsv."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO

import numpy as np

from cmcore.errors import Error
from cmcore.run.data.decoding import Pictures

PATHS = ("path", "file", "filename", "file_name", "filepath", "image", "image_path", "img")
LABELS = ("label", "class", "labels", "class_name", "category", "target", "y")
"""What the columns may be called, in any case."""

ENDINGS = (".csv", ".tsv")


class Listed(Pictures):
    """Images that a table names, in its order; paths are the table's own folder's, or absolute."""

    def __init__(self, path: Path) -> None:
        rows = _rows(path)
        head = [cell.strip().lower() for cell in rows[0]] if rows else []
        column = next((head.index(name) for name in PATHS if name in head), None)
        if column is None:
            raise Error(
                f"The first line of {path} must name its columns, one of them {', '.join(PATHS[:-1])} or {PATHS[-1]}; "
                f"it is {', '.join(rows[0]) if rows else 'empty'!r}."
            )
        self.place, body = path.parent, rows[1:]
        for number, row in enumerate(body, 2):
            if len(row) != len(head):
                raise Error(f"Line {number} of {path} has {len(row)} columns, and its first line {len(head)}.")
        if not body:
            raise Error(f"{path} names no images: it has a line of columns only.")
        self._table = path
        self.names = [row[column].strip() for row in body]
        label = next((head.index(name) for name in LABELS if name in head), None)
        self._labels = None if label is None else [row[label].strip() for row in body]
        numbers = np.array([_numbers(self.place / name) for name in self.names], np.int64)
        self.sizes, self.times = numbers[:, 0], numbers[:, 1:]

    def open(self, index: int) -> BinaryIO:
        """Open a file."""
        path = self.place / self.names[index]
        if path.exists() and not path.is_file():
            raise ValueError("it is no file")
        return path.open("rb")

    def own_labels(self) -> tuple[np.ndarray, tuple[str, ...]] | None:
        """Return the labels, whole numbers if all of them are such; None if the table has none."""
        if self._labels is None:
            return None
        if lacking := sum(not label for label in self._labels):
            raise Error(
                f"{lacking:,} of the {len(self._labels):,} pictures of {self._table} have no label; "
                "give them one or remove their lines, or leave out --classes."
            )
        try:
            return np.array([int(label) for label in self._labels], np.int64), ()
        except (ValueError, OverflowError):
            return np.array(self._labels), ()


def _rows(path: Path) -> list[list[str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return [row for row in csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",") if row]
    except (UnicodeDecodeError, csv.Error) as broken:
        raise Error(f"{path} cannot be read as a table of paths ({broken}); it must be text in UTF-8.") from broken


def _numbers(path: Path) -> tuple[int, int, int]:
    """A file's size and times; what is missing is told when it is read."""
    try:
        stat = os.stat(path)  # noqa: PTH116 - of very many
    except (OSError, ValueError):
        return 0, 0, 0
    return (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) if S_ISREG(stat.st_mode) else (0, 0, 0)
