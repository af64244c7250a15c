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
def held(folder: Path) -> Iterator[None]:
    """Keep other processes from training in the folder meanwhile; `Error` if one does. A killed holder lets go.

    The folder is made where it is missing, and removed again if nothing has been put into it.

    Where the disk has no locks, the file tells the process that holds it, and only one of this machine that is still alive
    is respected: a lock that outlives its holder would cost more than the rare start of two at once.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _opened(folder / NAME) as file:
            _take(file, folder)
            # Only for the case above: a full disk must not keep a run from going on.
            with suppress(OSError):
                _write(file, f"{socket.gethostname()} {os.getpid()}\n")
            try:
                yield
            finally:
                with suppress(OSError):
                    _write(file, "")
    finally:
        with suppress(OSError):
            if made and [path.name for path in folder.iterdir()] in ([], [NAME]):
                (folder / NAME).unlink(missing_ok=True)
                folder.rmdir()


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    # Unbuffered, or closing would try again, and raise, what a full disk refused; nothing in the file is worth an error.
    file = path.open("a+b", buffering=0)
    try:
        yield file
    finally:
        with suppress(OSError):
            file.close()


def _take(file: BinaryIO, folder: Path) -> None:
    locked = False
    try:
        if fcntl:  # Windows has none
            with placed(folder / NAME), courtesy("locks", folder):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                locked = True
    except BlockingIOError:
        raise _taken(folder) from None
    if not locked and _alive(_read(file)):
        raise _taken(folder)


def _taken(folder: Path) -> Error:
    return Error(f"Another process is training in {folder}; wait until it ends, or stop it.")


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
