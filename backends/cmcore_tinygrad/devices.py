"""Which devices tinygrad can use here, and a sentence instead of a traceback where its compiler is missing."""

from __future__ import annotations

import os
import shutil
from functools import cache

from tinygrad import Device
from tinygrad.renderer.cstyle import ClangRenderer

from cmcore._words import choice
from cmcore.errors import Error


def default() -> str:
    """Return the name of the device that tinygrad chooses; "CPU" where nothing works yet."""
    try:
        return Device.DEFAULT
    except RuntimeError:
        return "CPU"


def usable() -> tuple[str, ...]:
    """Return the names of the devices that can be opened, the default one first."""
    return tuple(dict.fromkeys([default(), *Device.get_available_devices()]))


def canonical(device: str) -> str:
    """Return tinygrad's name of a device; `ValueError` names those there are if it is none of them."""
    name = Device.canonicalize(device)
    # The CPU is always there; what it may lack is a compiler, and `require` says so.
    if name == "CPU" or name in usable() or (name.partition(":")[0] in usable() and _opens(name)):
        return name
    raise ValueError(f"There is no device {device!r} for tinygrad here; {choice(device, usable(), 'choose one of')}")


def several(device: str, count: int) -> tuple[str, ...]:
    """Return the names of so many devices of a device's kind, from the first one on; `Error` if there are fewer."""
    kind = device.partition(":")[0]
    names = tuple(kind if i == 0 else f"{kind}:{i}" for i in range(count))
    if missing := [name for name in names if not _opens(name)]:
        raise Error(f"tinygrad has no device {missing[0]!r} here, and --devices {count} asks for {', '.join(names)}.")
    return names


@cache
def require(device: str) -> None:
    """Raise `cmcore.Error`, which says what to install, if nothing can be computed on the device."""
    compiler = os.environ.get("CC", "clang")
    try:
        opened = Device[device]
        needs_clang = isinstance(opened.renderer, ClangRenderer)
    except Exception as failure:
        if device == "CPU" and shutil.which(compiler) is None:
            raise _missing(compiler) from failure
        raise Error(f"tinygrad cannot open the device {device!r}: {failure}.") from failure
    # Kernels compiled before are read from tinygrad's cache, so the device opens and fails at the first new kernel.
    if needs_clang and shutil.which(compiler) is None:
        raise _missing(compiler)


def _missing(compiler: str) -> Error:
    return Error(
        f"tinygrad compiles for the CPU with {compiler!r}, which is not installed or not on the PATH. Install clang "
        "(Debian and Ubuntu: apt install clang; macOS: xcode-select --install) or choose another backend."
    )


def _opens(name: str) -> bool:
    try:
        Device[name]
    except Exception:
        return False
    return True
