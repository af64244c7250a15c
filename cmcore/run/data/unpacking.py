"""Bombs: small files that unpack to more than anybody meant."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

from cmcore.errors import Error

FACTOR = 20
"""How many times its own size a packed file may have unpacked, ..."""

SPARE = 300 * 2**20
"""... and so many bytes more: bytes of pictures and labels pack by less."""


def check_archive(path: Path) -> None:
    """Raise `Error` if the members of a zip archive, such as an .npz, are together too large; nothing is unpacked for it."""
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    check_size(path, unpacked)


def check_size(path: Path, unpacked: int) -> None:
    """Raise `Error` if a file says of itself that it is too large unpacked."""
    if unpacked > _limit(path):
        raise _bomb(path, f"{unpacked / 2**30:,.1f} GiB")


def gunzipped(path: Path) -> bytes:
    """Return the content of a gzip file; `Error` if it is too large, of which no more than the limit is unpacked."""
    limit = _limit(path)
    with gzip.open(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise _bomb(path, f"more than {limit / 2**30:,.1f} GiB")
    return content


def _limit(path: Path) -> int:
    return FACTOR * path.stat().st_size + SPARE


def _bomb(path: Path, size: str) -> Error:
    return Error(
        f"{path} unpacks to {size}, more than {FACTOR} times its own size; if that is meant, store it unpacked "
        "(numpy.savez, gunzip)."
    )
