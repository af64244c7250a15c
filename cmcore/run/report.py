"""What the terminal shows: progress of a training run, notes, tables."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TextIO

from cmcore._words import printable

SIGN = 9.0
"""Seconds after which something is said, where nothing else was."""

Counted = Callable[[int, int], None]
"""Is told how many of how many are done."""


class Progress:
    """What a run tells of itself; this one is silent, and any object with these methods will do."""

    def begin(self, done: int, total: int, batch: int) -> None:
        """Training starts after ``done`` of ``total`` steps, with ``batch`` samples a step."""

    def advance(self, done: int) -> None:
        """``done`` steps have been taken."""

    def measure(self, row: Mapping[str, Any]) -> None:
        """A row was added to the log: step, loss, lr, curriculum, images_per_second, seconds; beside them memory, bytes, or None."""

    def note(self, message: str) -> None:
        """Something happened that a user should know."""

    @contextmanager
    def phase(self, what: str, quiet: bool = False) -> Iterator[Counted]:
        """Something that may take long begins, such as "Reading photos"; ``quiet`` if it is said only where it does take long."""
        yield lambda done, total: None

    def end(self) -> None:
        """Training is over, by whatever cause."""


class Spoken(Progress):
    """Lines of text in which something is said at least every few seconds, by a thread where the program is busy."""

    def __init__(
        self, file: TextIO | None = None, every: float = SIGN, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._file, self._every, self._clock = file or sys.stderr, every, clock
        self._last, self._phases = clock(), list[_Phase]()
        # A signal's handler speaks while the main thread does.
        self._lock = threading.RLock()

    def note(self, message: str) -> None:
        """Write the message."""
        with self._lock:
            self._last = self._clock()
            # A terminal that was closed must not end a run.
            with suppress(OSError, ValueError):
                self._write(printable(message))

    @contextmanager
    def phase(self, what: str, quiet: bool = False) -> Iterator[Counted]:
        """Write what begins, and that it goes on."""
        if not quiet:
            self.note(f"{what} ...")
        phase = _Phase(what, self._clock())
        self._phases.append(phase)
        try:
            with self._beating():
                yield phase.count
        finally:
            self._phases.remove(phase)

    def tick(self) -> None:
        """Say how things stand, if nothing has been said for long."""
        if self._clock() - self._last >= self._every and (standing := self._standing()):
            self.note(standing)

    def _standing(self) -> str:
        return self._phases[-1].standing(self._clock()) if self._phases else ""

    def _write(self, message: str) -> None:
        print(message, file=self._file, flush=True)

    @contextmanager
    def _beating(self) -> Iterator[None]:
        over = threading.Event()

        def beat() -> None:
            while not over.wait(0.5):
                self.tick()

        threading.Thread(target=beat, daemon=True).start()
        try:
            yield
        finally:
            over.set()


class _Phase:
    """Something that takes long, and how far it is."""

    def __init__(self, what: str, start: float) -> None:
        self._what, self._start, self._done = what, start, ""

    def count(self, done: int, total: int) -> None:
        self._done = f"{done:,} of {total:,}, "

    def standing(self, now: float) -> str:
        return f"{self._what}: {self._done}{now - self._start:.0f} s so far"


class Lines(Spoken):
    """A line now and then, for output that is not a terminal."""

    _over: ExitStack | None = None
    _row: Mapping[str, Any] | None = None

    def begin(self, done: int, total: int, batch: int) -> None:
        """Start counting the seconds between lines."""
        self._done, self._total, self._row = done, total, None
        self._first = done, self._clock()
        self._over = ExitStack()
        self._over.enter_context(self._beating())

    def advance(self, done: int) -> None:
        """Remember it for the next line."""
        self._done = done

    def measure(self, row: Mapping[str, Any]) -> None:
        """Write the row if the last line is old enough."""
        self._row = dict(row)
        self.tick()

    def end(self) -> None:
        """Write the last row, unless it is written."""
        if self._over is None:
            return
        self._over.close()
        if self._row:
            self.note(self._standing())
        self._over = None

    def _standing(self) -> str:
        if self._phases:
            return super()._standing()
        if self._over is None:
            return ""
        if not self._row:
            return f"step {self._done:,} of {self._total:,}"
        row, self._row = self._row, None
        return f"step {int(row['step']):,} of {self._total:,}: {_measured(row)}{self._left()}"

    def _left(self) -> str:
        """The time left, as the steps so far went."""
        done, since = self._done - self._first[0], self._clock() - self._first[1]
        return (
            f", {duration(since / done * (self._total - self._done))} left"
            if 0 < done and self._done < self._total
            else ""
        )


class Bar(Spoken):
    """A bar with loss, images a second, memory and the time left, for a terminal."""

    _bar: Any = None

    def begin(self, done: int, total: int, batch: int) -> None:
        """Show the bar."""
        from tqdm import tqdm

        shape = "{percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} steps, {remaining} left{postfix}"
        self._bar = tqdm(total=total, initial=done, file=self._file, bar_format=shape, dynamic_ncols=True)

    def advance(self, done: int) -> None:
        """Move the bar."""
        with suppress(OSError, ValueError):
            self._bar.update(done - self._bar.n)

    def measure(self, row: Mapping[str, Any]) -> None:
        """Show the loss, the speed and the memory."""
        self._bar.set_postfix_str(_measured(row), refresh=False)

    def end(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            with suppress(OSError, ValueError):
                self._bar.close()
            self._bar = None

    def _write(self, message: str) -> None:
        if self._bar is None:
            super()._write(message)
        else:
            self._bar.write(message, file=self._file)


def terminal_progress(file: TextIO | None = None) -> Progress:
    """Return a bar where the file, by default stderr, is a terminal, and lines elsewhere."""
    file = file or sys.stderr
    return Bar(file) if file.isatty() else Lines(file)


def duration(seconds: float) -> str:
    """Return a time in the one or two units that matter: "40 s", "12 min", "3 h 5 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def size(count: float) -> str:
    """Return a number of bytes in words: "3.1 MiB", "12 GiB"."""
    unit, by = ("GiB", 2**30) if count >= 2**30 else ("MiB", 2**20) if count >= 2**20 else ("KiB", 2**10)
    return f"{count / by:,.0f} {unit}" if count >= 10 * by else f"{count / by:.2g} {unit}"


def facts(pairs: Mapping[str, str]) -> str:
    """Return what is said of several things, each after its name, aligned."""
    width = max(map(len, pairs)) + 2
    return "\n".join(f"{name:{width}}{printable(said)}" for name, said in pairs.items() if said)


def _measured(row: Mapping[str, Any]) -> str:
    memory = f", {row['memory'] / 2**30:.2g} GiB" if row.get("memory") else ""
    return f"loss {row['loss']:.4g}, {row['images_per_second']:,.0f} images/s{memory}"


def say(message: str) -> None:
    """Write a line to stderr, if there is anybody to read it: a terminal that was closed must not end anything."""
    with suppress(OSError, ValueError):
        print("\n".join(map(printable, message.split("\n"))), file=sys.stderr, flush=True)


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
    return cell in ("", "-") or re.fullmatch(r"-?[\d,]*\.?\d+(e[+-]?\d+)?", cell) is not None
