"""One process at a time in a run's folder."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from cmcore._files import courtesy
from cmcore.errors import Error

try:
    import fcntl
except ModuleNotFoundError:
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"


@contextmanager
def held(folder: Path, doing: str = "training in") -> Iterator[None]:
    """Keep other processes from working in the folder meanwhile; `Error` if one does. A killed holder lets go.

    The folder is made where it is missing, and removed again if nothing has been put into it.

    Where the disk has no locks, the file tells the process that holds it, and only one of this machine that is still alive
    is respected: a lock that outlives its holder would cost more than the rare start of two at once.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder / NAME, f"{doing} {folder}"):
            yield
    finally:
        if made and [path.name for path in folder.iterdir()] in ([], [NAME]):
            with suppress(OSError):
                (folder / NAME).unlink(missing_ok=True)
                folder.rmdir()


@contextmanager
def locked(path: Path, doing: str) -> Iterator[None]:
    """Hold the lock of a file, which is made for it; see `held`."""
    with path.open("a+", encoding="utf-8", errors="replace") as file:
        if not _taken(file, path.parent):
            raise Error(f"Another process is {doing}; wait until it ends, or stop it.")
        # Only for a disk without locks: a full one must not keep a run from going on.
        with suppress(OSError):
            _write(file, f"{socket.gethostname()} {os.getpid()}\n")
        try:
            yield
        finally:
            with suppress(OSError):
                _write(file, "")


def _taken(file: TextIO, folder: Path) -> bool:
    """Take the lock, and tell whether that was possible."""
    try:
        if fcntl:  # Windows has none
            with courtesy("locks", folder):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
    except BlockingIOError:
        return False
    return not _alive(_read(file))


def _alive(holder: str) -> bool:
    """Whether the process that a lock file tells is another one of this machine, and still there."""
    # Without fcntl this is Windows, where a signal of 0 would end the process.
    host, _, process = holder.strip().partition(" ")
    if fcntl is None or host != socket.gethostname() or not process.isdecimal() or int(process) == os.getpid():
        return False
    try:
        os.kill(int(process), 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def _read(file: TextIO) -> str:
    file.seek(0)
    return file.read(200)


def _write(file: TextIO, text: str) -> None:
    file.seek(0)
    file.truncate()
    file.write(text)
    file.flush()
