"""One voice where a launcher has started the same command several times: RANK and WORLD_SIZE in the environment tell."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path


def rank() -> int:
    """Return this process's number among those that were launched together; 0 where it is alone."""
    number, count = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
    return int(number) if number.isdecimal() and count.isdecimal() and int(count) > 1 else 0


@contextmanager
def one_voice() -> Iterator[None]:
    """Let the first process alone print; an exception that leaves the block is still told by whoever raised it."""
    if rank() == 0:
        yield
        return
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def signed(said: str) -> str:
    """Return a sentence with the number of the process that says it, where that is not the first."""
    return f"worker {rank()}: {said}" if rank() else said
