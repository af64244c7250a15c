"""What other programs and people tell a run: stop, or save and go on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

STOP = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Ctrl-C; the end of a job's time, or of a container; the end of a terminal."""

SAVE = getattr(signal, "SIGUSR1", None)


class Stopped(KeyboardInterrupt):
    """A signal that stops a program, as Ctrl-C does."""

    def __init__(self, signum: int) -> None:
        super().__init__()
        self.signum = signum


class Requests:
    """What has been asked for since it was last looked at."""

    def __init__(self) -> None:
        self.stop: int | None = None
        self._save = False
        self.raises = False

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let a signal to stop raise `Stopped` at once: in what can be left at any point."""
        self.raises = True
        try:
            yield
        finally:
            self.raises = False

    def ask_to_save(self, *_: Any) -> None:
        """Ask for a save at the next step."""
        self._save = True

    def save(self) -> bool:
        """Tell whether a save has been asked for since the last time."""
        asked, self._save = self._save, False
        return asked


@contextmanager
def heard(note: Callable[[str], None]) -> Iterator[Requests]:
    """Make the first signal to stop, and each to save, a request that a loop can look at; a second stops at once.

    A signal that is ignored, such as the end of the terminal under nohup, stays so.
    """
    requests = Requests()
    if threading.current_thread() is not threading.main_thread():
        yield requests
        return
    before: dict[int, Any] = {}

    def ask(signum: int, frame: FrameType | None) -> None:
        ignored = before[signum] is signal.SIG_IGN
        signal.signal(signum, signal.default_int_handler if ignored else before[signum])
        requests.stop = signum
        if requests.raises:
            raise Stopped(signum)
        # A terminal that is being written to just now refuses.
        with suppress(RuntimeError):
            again = "press Ctrl-C again to stop at once" if signum == signal.SIGINT else "a second signal stops at once"
            note(f"Finishing this step and saving; {again}.")

    for signum in STOP:
        current = signal.getsignal(signum)
        # Shells have what they start in the background ignore Ctrl-C, and whoever sends it all the same means it.
        if current is not None and (current is not signal.SIG_IGN or signum == signal.SIGINT):
            before[signum] = signal.signal(signum, ask)
    if SAVE is not None and signal.getsignal(SAVE) not in (signal.SIG_IGN, None):
        before[SAVE] = signal.signal(SAVE, requests.ask_to_save)
    try:
        yield requests
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def raised() -> None:
    """Make the signals to stop a program raise `Stopped` in it, where they would kill it without a word.

    A request to save does nothing where there is nothing to save yet.
    """

    def stop(signum: int, frame: FrameType | None) -> None:
        raise Stopped(signum)

    for signum in STOP:
        if signum != signal.SIGINT and signal.getsignal(signum) is signal.SIG_DFL:
            signal.signal(signum, stop)
    if SAVE is not None and signal.getsignal(SAVE) is signal.SIG_DFL:
        signal.signal(SAVE, lambda *_: None)
