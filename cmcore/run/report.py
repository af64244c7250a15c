"""What the terminal shows: progress of a training run, notes, tables."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, TextIO


class Progress:
    """What a training run tells of itself; this one is silent, and any object with these methods will do."""

    def begin(self, done: int, total: int, batch: int) -> None:
        """Training starts after ``done`` of ``total`` steps, with ``batch`` samples a step."""

    def advance(self, done: int) -> None:
        """``done`` steps have been taken."""

    def measure(self, row: Mapping[str, float]) -> None:
        """A row was added to the log: step, loss, lr, curriculum, images_per_second, seconds."""

    def note(self, message: str) -> None:
        """Something happened that a user should know."""

    def end(self) -> None:
        """Training is over, by whatever cause."""


class Lines(Progress):
    """A line now and then, for output that is not a terminal."""

    def __init__(self, file: TextIO | None = None, every: float = 30.0) -> None:
        self._file, self._every = file or sys.stderr, every
        self._last, self._total = 0.0, 0
        self._row: dict[str, float] = {}

    def begin(self, done: int, total: int, batch: int) -> None:
        """Start counting the seconds between lines."""
        self._last, self._total, self._row = time.monotonic(), total, {}

    def measure(self, row: Mapping[str, float]) -> None:
        """Write the row if the last line is old enough."""
        self._row = dict(row)
        if time.monotonic() - self._last >= self._every:
            self._write()

    def note(self, message: str) -> None:
        """Write the message."""
        print(message, file=self._file, flush=True)

    def end(self) -> None:
        """Write the last row."""
        if self._row:
            self._write()

    def _write(self) -> None:
        self._last = time.monotonic()
        rate, step = self._row["images_per_second"], int(self._row["step"])
        line = f"step {step} of {self._total}: loss {self._row['loss']:.4g}, {rate:,.0f} images/s"
        print(line, file=self._file, flush=True)


class Bar(Progress):
    """A bar with loss, images a second and the time left, for a terminal."""

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = file or sys.stderr
        self._bar: Any = None

    def begin(self, done: int, total: int, batch: int) -> None:
        """Show the bar."""
        from tqdm import tqdm

        shape = "{percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} steps, {remaining} left{postfix}"
        self._bar = tqdm(total=total, initial=done, file=self._file, bar_format=shape, dynamic_ncols=True)

    def advance(self, done: int) -> None:
        """Move the bar."""
        self._bar.update(done - self._bar.n)

    def measure(self, row: Mapping[str, float]) -> None:
        """Show the loss and the speed."""
        self._bar.set_postfix_str(f"loss {row['loss']:.4g}, {row['images_per_second']:,.0f} images/s", refresh=False)

    def note(self, message: str) -> None:
        """Write the message above the bar."""
        if self._bar is None:
            print(message, file=self._file, flush=True)
        else:
            self._bar.write(message, file=self._file)

    def end(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def terminal_progress(file: TextIO | None = None) -> Progress:
    """Return a bar where the file, by default stderr, is a terminal, and lines elsewhere."""
    file = file or sys.stderr
    return Bar(file) if file.isatty() else Lines(file)


def either(names: Sequence[str]) -> str:
    """Return names as a choice: "a, b or c"."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows of text in aligned columns under their heads; columns of numbers are aligned at the right."""
    columns = list(zip(head, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [all(_numeric(cell) for cell in column[1:]) for column in columns]

    def line(cells: Sequence[str]) -> str:
        return "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True)).rstrip()

    return "\n".join([line(head), line(["-" * w for w in widths]), *map(line, rows)])


def _numeric(cell: str) -> bool:
    return cell in ("", "-") or cell.replace(",", "").replace(".", "").isdigit()
