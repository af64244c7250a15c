"""Zip and tar archives of images, read where they are: nothing is unpacked to the disk."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from cmcore.errors import Error
from cmcore.run.data.decoding import Pictures
from cmcore.run.data.unpacking import check_archive
from cmcore.run.data.walk import LABELS, NOT_CONTENT, Found

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
"""What the names of archives end with."""

MOST_BYTES = 2**28
"""No picture, and no dataset.json, of more is read from an archive."""


@dataclass(frozen=True)
class Member:
    """A file in an archive: its name, its size, what changes with its content, and how its bytes are read."""

    name: str
    size: int
    stamp: int
    read: Callable[[], bytes]


class Archive(Pictures):
    """All images in a zip or tar archive, sorted by their names; folders that all of them lie in are not part of these."""

    def __init__(self, path: Path) -> None:
        try:
            members = _of_zip(path) if path.name.lower().endswith(".zip") else _of_tar(path)
        except Error:
            raise
        # Damaged archives make zipfile, tarfile and zlib raise nearly anything.
        except Exception as error:
            raise Error(f"{path} cannot be read as an archive ({error}); it is truncated or damaged.") from error
        self.place, self._found = path, Found(path)
        stat = path.stat()
        shown = sorted((m for m in members if not _is_hidden(m.name)), key=lambda member: member.name)
        self._members = [
            member
            for member in shown
            if self._found.sort(member.name, (member.size, stat.st_mtime_ns, stat.st_ctime_ns, member.stamp))
        ]
        self._found.check("archive", len(shown))
        table = self._found.table()
        self.sizes, self.times = table[:, 0], table[:, 1:]
        root = _root(self._found.names)
        self.names = [name[len(root) :] for name in self._found.names]
        self._labels = next((member for member in shown if member.name == root + LABELS), None)

    def open(self, index: int) -> BinaryIO:
        """Read a member."""
        if self._members[index].size > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES:,} bytes")
        return io.BytesIO(self._members[index].read())

    def skipped(self) -> list[str]:
        """Return a sentence for each kind of thing that was passed over."""
        return self._found.skipped()

    def listed_labels(self) -> bytes | None:
        """Return the content of dataset.json, if it is there."""
        if self._labels is None or self._labels.size > MOST_BYTES:
            return None
        return self._labels.read()


def _of_zip(path: Path) -> list[Member]:
    check_archive(path)
    archive = zipfile.ZipFile(path)  # which threads may read from

    def reader(info: zipfile.ZipInfo) -> Callable[[], bytes]:
        return lambda: archive.read(info)

    members = []
    for info in archive.infolist():
        if info.flag_bits & 1:
            raise Error(f"{path} is encrypted; unpack it, and give the folder.")
        if not info.is_dir():
            members.append(Member(info.filename, info.file_size, info.CRC, reader(info)))
    return members


def _of_tar(path: Path) -> list[Member]:
    with path.open("rb") as file:
        start = file.read(6)
    if start[:2] == b"\x1f\x8b" or start[:3] == b"BZh" or start in (b"\xfd7zXZ\0",) or start[:4] == b"\x28\xb5\x2f\xfd":
        raise Error(
            f"{path} is packed as a whole, so that its pictures cannot be read one by one; unpack it, and give the folder "
            "or the .tar in it."
        )
    members = []
    with tarfile.open(path, "r:") as archive:
        for info in archive:
            # Links and devices are none of its content, and what lies in pieces is not read.
            if info.isreg() and not info.issparse():
                read = _slice(path, info.offset_data, info.size)
                members.append(Member(info.name.removeprefix("./"), info.size, int(info.mtime), read))
    return members


def _slice(path: Path, offset: int, size: int) -> Callable[[], bytes]:
    def read() -> bytes:
        with path.open("rb") as file:
            file.seek(offset)
            content = file.read(size)
        if len(content) < size:
            raise ValueError("the archive ends within it")
        return content

    return read


def _is_hidden(name: str) -> bool:
    parts = name.split("/")
    return any(part.startswith(".") for part in parts) or not NOT_CONTENT.isdisjoint(parts)


def _root(names: list[str]) -> str:
    """The folder that all files lie in, with its slash; empty where there is none."""
    folders = {name.rpartition("/")[0] for name in names}
    if "" in folders:
        return ""
    common = PurePosixPath(os.path.commonpath(folders)) if len({f.startswith("/") for f in folders}) == 1 else None
    return f"{common}/" if common and common.name else ""
