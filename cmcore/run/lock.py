"""One process at a time in a run's folder."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from cmcore._files import courtesy, placed
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
    with locked(folder / NAME, f"{doing} {folder}"):
        try:
            yield
        finally:
            # By who holds it alone: another that was refused would take it from under the holder's feet.
            with suppress(OSError):
                if made and [path.name for path in folder.iterdir()] in ([], [NAME]):
                    (folder / NAME).unlink(missing_ok=True)
                    folder.rmdir()


@contextmanager
def locked(path: Path, doing: str) -> Iterator[None]:
    """Hold the lock of a file, which is made for it; see `held`."""
    with _opened(path) as file:
        # A file that was removed by its holder between its opening and its locking locks nothing.
        if not _taken(file, path) or not _is_there(file, path):
            raise Error(f"Another process is {doing}; wait until it ends, or stop it.")
        # Only for a disk without locks: a full one must not keep a run from going on.
        with suppress(OSError):
            _write(file, f"{socket.gethostname()} {os.getpid()}\n")
        try:
            yield
        finally:
            with suppress(OSError):
                _write(file, "")


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    # Unbuffered, or closing would try again, and raise, what a full disk refused; nothing in the file is worth an error.
    file = path.open("a+b", buffering=0)
    try:
        yield file
    finally:
        with suppress(OSError):
            file.close()


def _taken(file: BinaryIO, path: Path) -> bool:
    """Take the lock, and tell whether that was possible."""
    try:
        if fcntl:  # Windows has none
            with placed(path), courtesy("locks", path.parent):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
    except BlockingIOError:
        return False
    return not _alive(_read(file))


def _is_there(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
    except OSError:
        return True


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


def _read(file: BinaryIO) -> str:
    file.seek(0)
    return file.read(200).decode(errors="replace")


def _write(file: BinaryIO, text: str) -> None:
    file.seek(0)
    file.truncate()
    file.write(text.encode())
