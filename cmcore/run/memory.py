"""How much memory a run takes: the device's where the framework tells it, else the process's."""

from __future__ import annotations

import os
from pathlib import Path

from cmcore.backend import Backend


def used(backend: Backend) -> int | None:
    """Return the most bytes used on the backend's device, or the bytes that the process takes now; None where neither is told."""
    tell = getattr(backend, "memory", None)
    of_device = tell() if tell else None
    return of_process() if of_device is None else int(of_device)


def of_machine() -> int | None:
    """Return the bytes of memory that the machine has; None where it does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def of_process() -> int | None:
    """Return the bytes of memory that the process takes: now on Linux, elsewhere at most so far; None on Windows."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        pass
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
