"""Files written whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def atomic_write(path: str | os.PathLike[str], content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file so that ``path`` holds either what it held before or all of the new content, whenever we are killed.

    ``content`` is bytes, or a function that writes to the open binary file it is given. The bytes go to a temporary
    file in the same folder, are flushed to the disk and take the file's name in one step. If anything is raised on the
    way the temporary file is removed; a kill can leave it behind, as a hidden file ending in ".tmp". The folder must
    exist (`FileNotFoundError`).
    """
    # Through a link, so that the file it points to is replaced and not the link.
    target = Path(path).resolve()
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            temporary.chmod(target.stat().st_mode & 0o777)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    # The new name is on the disk only once the folder is; systems that cannot open folders (Windows) need no such step.
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
