"""Files written whole or not at all, and among them arrays with a manifest, as safetensors: validated, never unpickled."""

from __future__ import annotations

import errno
import json
import os
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cmcore.errors import Error

FORMAT = 1
"""The version of the layout of model and state files; files of a higher one are refused."""

_KEY = "cmcore"

_UNSUPPORTED = frozenset(
    getattr(errno, name)
    for name in ("EINVAL", "ENOLCK", "ENOSYS", "ENOTSUP", "ENOTTY", "EOPNOTSUPP", "EPERM", "EACCES", "EBADF")
    if hasattr(errno, name)
)
"""How disks - network, FUSE, object stores - say that they do not do a thing."""

_left_out: set[str] = set()


@contextmanager
def courtesy(what: str, place: Path) -> Iterator[None]:
    """Leave out, with one warning a process, what a disk may not support and the result does not depend on."""
    try:
        yield
    except OSError as refused:
        if refused.errno not in _UNSUPPORTED:
            raise
        if what not in _left_out:
            _left_out.add(what)
            warnings.warn(
                f"The disk of {place} does not support {what} ({refused.strerror}); it is left out.", stacklevel=3
            )


@contextmanager
def placed(place: Path) -> Iterator[None]:
    """Name the file in the errors of a disk, which name none when a file is written, or a temporary one."""
    try:
        yield
    except OSError as failure:
        if failure.errno is None:
            raise
        raise OSError(failure.errno, os.strerror(failure.errno), str(place)) from failure


def atomic_write(
    path: str | os.PathLike[str], content: bytes | Callable[[BinaryIO], object], *, durable: bool = True
) -> None:
    """Write a file so that ``path`` holds either what it held before or all of the new content, whenever we are killed.

    ``content`` is bytes, or a function that writes to the open binary file it is given. The bytes go to a temporary
    file in the same folder, are flushed to the disk and take the file's name in one step. If anything is raised on the
    way the temporary file is removed; a kill can leave it behind, as a hidden file ending in ".tmp". The folder must
    exist (`FileNotFoundError`); a device or a pipe is an `Error` and stays what it is. An `OSError` names the file. What a disk does not support, of flushing and of permissions,
    is left out with a warning. Without ``durable`` nothing is waited for: a kill does no harm, a power cut may.
    """
    # Through a link, so that the file it points to is replaced and not the link.
    target = Path(path).resolve()
    if target.exists() and not (target.is_file() or target.is_dir()):
        raise Error(f"{path} is not a file that can be replaced but a device or a pipe; choose another place.")
    temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")
    with placed(target):
        try:
            with temporary.open("xb") as file:
                if callable(content):
                    content(file)
                else:
                    file.write(content)
                file.flush()
                if durable:
                    with courtesy("flushing files", target.parent):
                        os.fsync(file.fileno())
            if target.exists():
                with courtesy("setting permissions", target.parent):
                    temporary.chmod(target.stat().st_mode & 0o777)
            temporary.replace(target)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        if durable:
            _sync_folder(target.parent)


def leftovers(folder: Path) -> list[Path]:
    """Return the temporary files that killed writers left in a folder, and no others' files."""
    return list(folder.glob(f".*{'[0-9a-f]' * 32}.tmp"))


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], manifest: Mapping[str, Any]) -> None:
    """Write named arrays and a manifest of plain JSON data, atomically; `ValueError` if a number is not finite."""
    # Here, for the mathematics is imported without it.
    import safetensors.numpy

    check_finite(arrays)
    dense = {name: np.asarray(a, order="C") for name, a in arrays.items()}
    # JSON of floats is exact: Python writes the shortest text that reads back as the same number.
    described = json.dumps({"format": FORMAT, **manifest})
    atomic_write(path, safetensors.numpy.save(dense, {_KEY: described}))


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays and the manifest that `write_arrays` wrote; `Error` says what is wrong with the file."""
    import safetensors

    if not path.is_file():
        raise Error(f"There is no file {path}.")
    try:
        with placed(path), _opened(path) as file:
            manifest = json.loads((file.metadata() or {}).get(_KEY, "null"))
            ours = isinstance(manifest, dict) and isinstance(manifest.get("format"), int)
            if ours and manifest["format"] <= FORMAT:
                return {name: np.array(file.get_tensor(name)) for name in file.keys()}, manifest
    except (safetensors.SafetensorError, json.JSONDecodeError, RecursionError) as broken:
        raise Error(
            f"{path} cannot be read: it is truncated or damaged, or not a safetensors file ({str(broken).rstrip('.')})."
        ) from broken
    if not ours:
        raise Error(f"{path} is a safetensors file without cmcore's manifest; only what cmcore wrote can be used.")
    raise Error(
        f"{path} has format version {manifest['format']}, newer than {FORMAT}, which this cmcore reads; "
        "install a newer cmcore."
    )


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a safetensors file; the library says of every file that cannot be opened that there is none."""
    import safetensors

    try:
        file = safetensors.safe_open(path, framework="np")
    except FileNotFoundError as hidden:
        with path.open("rb"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path)) from hidden
    with file:
        yield file


def check_finite(arrays: Mapping[str, np.ndarray]) -> None:
    """Raise `ValueError` if an array of floats holds a number that is not finite."""
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"The array {name!r} holds numbers that are not finite.")


def _sync_folder(folder: Path) -> None:
    # The new name is on the disk only once the folder is; systems that cannot open folders (Windows) need no such step.
    if not hasattr(os, "O_DIRECTORY"):
        return
    with courtesy("flushing folders", folder):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
