"""Runs of ``cmcore`` on a disk that fails, or that are killed, at a chosen system call that touches a folder (Linux, needs cc).

Processes are forked from a server that has imported the framework and nothing more: each goes the whole way of the program, in a
fraction of the seconds that a start costs. The disk's faults are those of ``faulty_disk.c``, preloaded into all of them.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_suffix(".c")

PRELOADED = ("cmcore.run.cli", "cmcore.run.train", "cmcore.generate", "safetensors.numpy", "PIL.PngImagePlugin")
PRELOADED_OF = {"torch": ("torch._dynamo",), "jax": ("optax", "equinox")}
"""What a program imports before it first touches a run; none of it starts a thread or JAX's devices."""


@dataclass(frozen=True)
class Fault:
    """What happens at the ``at``-th call (0: nothing) under a folder among ``calls`` (none named: among all)."""

    at: int = 0
    error: int = 0  # the errno; 0: SIGKILL
    lasting: bool = False  # at all later calls too
    half: bool = False  # a write has done half of its work
    calls: tuple[str, ...] = ()


@dataclass(frozen=True)
class Call:
    """A system call that touched the folder."""

    name: str
    path: Path


@dataclass(frozen=True)
class Outcome:
    """How a process ended: its exit status, -9 after SIGKILL, what it said on stderr, and the calls that counted."""

    status: int
    said: str
    calls: list[Call]


class Program:
    """A ``cmcore`` under way."""

    def __init__(self, process: Any, said: Path, told: Path) -> None:
        self._process, self._said, self._told = process, said, told

    def poll(self) -> int | None:
        """Its exit status, None while it runs."""
        status: int | None = self._process.exitcode
        return status

    def kill(self) -> None:
        """Send SIGKILL."""
        self._process.kill()

    def send(self, sign: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self._process.pid, sign)

    def wait(self) -> int:
        """Return its exit status when it has ended."""
        self._process.join()
        status: int = self._process.exitcode
        return status

    def outcome(self) -> Outcome:
        """Wait, and return how it ended."""
        status = self.wait()
        # The last line of a killed process may be half-written.
        calls = [line.partition(" ") for line in self._told.read_text(errors="replace").splitlines()]
        said = self._said.read_text(errors="replace")
        for file in (self._said, self._told):
            file.unlink()
        return Outcome(status, said, [Call(name, Path(path)) for name, _, path in calls])


class Machine:
    """Starts programs; made by `machine`."""

    def __init__(self, context: Any, library: Path, work: Path) -> None:
        self._context, self._library, self._work = context, library, work
        self._started = 0

    def start(self, arguments: Sequence[str], under: Path, fault: Fault = Fault()) -> Program:
        """Start ``cmcore`` with a fault; calls are counted under a folder, which must be real (no link) and absolute."""
        self._started += 1
        said, told = (self._work / f"{what} by {self._started}" for what in ("said", "told"))
        process = self._context.Process(target=_cmcore, args=(arguments, under, fault, self._library, said, told))
        for file in (said, told):
            file.write_text("")
        process.start()
        return Program(process, said, told)

    def run(self, arguments: Sequence[str], under: Path, fault: Fault = Fault()) -> Outcome:
        """Start ``cmcore`` and wait for its end."""
        return self.start(arguments, under, fault).outcome()


@contextmanager
def machine(backend: str, work: Path) -> Iterator[Machine]:
    """Build the shim in a folder and start the server of processes for a backend."""
    library = work / "faulty_disk.so"
    command = ["cc", "-O1", "-shared", "-fPIC", "-D_FORTIFY_SOURCE=0", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True)
    # One thread at most where a process is forked; what JAX has compiled once is read back by the others.
    settings = {"LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    settings |= {"JAX_COMPILATION_CACHE_DIR": str(work / "compiled"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    settings |= {"JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([*PRELOADED, *PRELOADED_OF.get(backend, ()), f"cmcore_{backend}.backend"])
        # The first process starts the server, which the others share.
        context.Process(target=int).start()
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    yield Machine(context, library, work)


def _cmcore(arguments: Sequence[str], under: Path, fault: Fault, library: Path, said: Path, told: Path) -> None:
    handle = os.open(said, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(handle, stream)
    journal = os.open(told, os.O_WRONLY | os.O_APPEND)
    calls = f",{','.join(fault.calls)}," if fault.calls else ""
    from cmcore.__main__ import main

    sys.argv = ["cmcore", *arguments]
    arm = ctypes.CDLL(str(library)).fault_arm
    arm.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_long, *[ctypes.c_int] * 4]
    arm(str(under).encode(), calls.encode(), fault.at, fault.error, fault.lasting, fault.half, journal)
    sys.exit(main())
