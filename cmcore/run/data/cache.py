"""Where decoded pictures, and what is known of large data, are kept for the next start.

A file is known by a digest of what it was made of - names, sizes and times of the pictures - and of what was done to them. It is
written whole or not at all, and nothing in it is needed: what is missing or damaged is made again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cmcore._files import atomic_write, leftovers
from cmcore.errors import Error, sentence
from cmcore.run.data.decoding import Fitting, Outcome, Pictures, decoded
from cmcore.run.data.mapped import mapping
from cmcore.run.data.numpy_files import mapped
from cmcore.run.data.samples import Facts, Samples

FORMAT = 1
"""Changed when what is done to pictures changes, so that what was kept before is not taken for it."""

ABANDONED = 3600.0
"""Seconds after which a temporary file that nobody writes to any more is one that a killed process left."""

LARGE = 2**24
"""Of fewer values the facts are found faster than kept."""

Note = Callable[[str], None]
Count = Callable[[int, int], None]


@dataclass(frozen=True)
class Cache:
    """A folder to keep things in, or None; ``asked`` if the user named it, who then is told if it is of no use."""

    folder: Path | None
    asked: bool = False


@dataclass(frozen=True)
class Kept:
    """Decoded pictures (N, C, H, W) uint8, C = 1 if all are grey, else 3; those with problems are black. ``key`` tells of what."""

    x: np.ndarray
    outcome: Outcome
    key: str = ""


def cache(setting: str | None) -> Cache:
    """Return the cache for a ``--cache``: a folder, "none", or None for the user's own."""
    if setting == "none":
        return Cache(None)
    if setting is not None:
        return Cache(Path(setting), asked=True)
    try:
        home = Path.home()
    except RuntimeError:  # a user without one
        return Cache(None)
    usual = {"darwin": home / "Library" / "Caches", "win32": Path(os.environ.get("LOCALAPPDATA", home))}
    # As the specification has it, a path that is not absolute is ignored.
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return Cache((named if named.is_absolute() else usual.get(sys.platform, home / ".cache")) / "cmcore")


def digest_of(*parts: Any) -> str:
    """Return a digest of plain JSON data."""
    return hashlib.sha256(json.dumps((FORMAT, *parts)).encode()).hexdigest()[:32]


def key_of(pictures: Pictures, fitting: Fitting) -> str:
    """Return a digest of pictures' names, sizes and times, and of what is done to them."""
    digest = hashlib.sha256(json.dumps((FORMAT, str(pictures.place.resolve()), asdict(fitting))).encode())
    for name in pictures.names:
        digest.update(os.fsencode(name) + b"\0")
    digest.update(np.ascontiguousarray(pictures.sizes, "<i8").tobytes())
    digest.update(np.ascontiguousarray(pictures.times, "<i8").tobytes())
    return digest.hexdigest()[:32]


def pictures_of(pictures: Pictures, fitting: Fitting, place: Cache, note: Note, progress: Count) -> Kept:
    """Return the decoded pictures: from the cache, or decoded now and kept there; where that cannot be, in memory."""
    if place.folder is None:
        return _in_memory(pictures, fitting, progress)
    key = key_of(pictures, fitting)
    file = place.folder / f"{key}.npy"
    if found := _found(place.folder, key, len(pictures.names), fitting):
        note(f"The pictures were decoded before; they are in {file} ({size_of(file)}).")
        return found
    try:
        _write(place.folder, key, pictures, fitting, progress)
    except OSError as refused:
        if place.asked:
            raise Error(
                f"Decoded pictures cannot be kept in {place.folder}: {sentence(refused)} "
                "Choose another --cache, or --cache none to decode them at each start."
            ) from refused
        note(
            f"Decoded pictures are not kept for the next start: {sentence(refused)} Another place is chosen with --cache."
        )
        return _in_memory(pictures, fitting, progress)
    note(f"The decoded pictures are kept in {file} ({size_of(file)}) for the next start.")
    found = _found(place.folder, key, len(pictures.names), fitting)
    if found is None:
        raise Error(f"{file} was removed or damaged while it was written; try again, or use --cache none.")
    return found


def known(samples: Samples, place: Cache, key: str, progress: Count) -> Samples:
    """Return samples whose facts are known: from the cache if what they are stored in has a ``key``, else by looking through."""
    if samples.stored.size < LARGE or not key or mapping(samples.stored) is None:
        return samples
    rows = "" if samples.rows is None else hashlib.sha256(samples.rows.tobytes()).hexdigest()
    table = "" if samples.table is None else samples.table.tobytes().hex()
    if place.folder is None:
        return replace(samples, known=samples.look(progress))
    file = place.folder / f"{digest_of(key, samples.stored.shape, samples.stored.strides, rows, table)}.facts.json"
    try:
        return replace(samples, known=Facts(**_facts(json.loads(file.read_bytes()))))
    except (OSError, ValueError, TypeError, RecursionError):
        facts = samples.look(progress)
    with suppress(OSError):  # it costs no more than looking again
        _made(place.folder)
        atomic_write(file, json.dumps(asdict(facts)).encode())
    return replace(samples, known=facts)


def key_of_file(path: Path, part: str = "") -> str:
    """Return a digest of a file's place, size and times, by which what is known of it is found again."""
    stat = path.stat()
    return digest_of(str(path.resolve()), part, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def size_of(file: Path) -> str:
    """Return the size of a file in words."""
    size = file.stat().st_size
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{max(1, round(size / 2**20)):,} MiB"


def _facts(record: Any) -> dict[str, Any]:
    """A record of facts, whose numbers are such; else `TypeError`."""
    if not isinstance(record, dict) or not isinstance(record.get("digest"), str):
        raise TypeError
    return {name: value if name == "digest" else float(value) for name, value in record.items()}


def _found(folder: Path, key: str, count: int, fitting: Fitting) -> Kept | None:
    try:
        record = json.loads((folder / f"{key}.json").read_bytes())
        problems = {int(index): (bool(own), str(said)) for index, own, said in record["problems"]}
        done = Counter({str(way): int(count) for way, count in record["done"].items()})
        file = folder / f"{key}.npy"
        x = mapped(file, 0, file.stat().st_size)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    fits = x.dtype == np.uint8 and x.shape[:1] + x.shape[2:] == (count, *fitting.size) and x.shape[1] in (1, 3)
    return Kept(x, Outcome(problems, done), key) if fits and x.flags.c_contiguous else None


def _write(folder: Path, key: str, pictures: Pictures, fitting: Fitting, progress: Count) -> None:
    _made(folder)
    shape = (len(pictures.names), 3, *fitting.size)
    needed = int(np.prod(shape))
    if shutil.disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
    outcome, grey = Outcome(), True

    def write(file: BinaryIO) -> None:
        nonlocal grey
        _header(file, shape)
        for chunk in decoded(pictures, fitting, outcome, progress):
            grey = grey and _is_grey(chunk)
            file.write(chunk.data)

    file = folder / f"{key}.npy"
    atomic_write(file, write)
    if grey:
        atomic_write(file, lambda out: _one_channel(file, out))
    problems = [[index, *said] for index, said in outcome.problems.items()]
    record = {"of": str(pictures.place.resolve()), "problems": problems, "done": outcome.done}
    # Last: without it there is nothing in the cache.
    atomic_write(folder / f"{key}.json", json.dumps(record).encode())


def _one_channel(file: Path, out: BinaryIO) -> None:
    x = Samples(mapped(file, 0, file.stat().st_size))
    _header(out, (len(x), 1, *x.shape[1:]))
    for piece in x.pieces():
        out.write(np.ascontiguousarray(piece[:, :1]).data)


def _header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _is_grey(pixels: np.ndarray) -> bool:
    return bool((pixels == pixels[:, :1]).all())


def _in_memory(pictures: Pictures, fitting: Fitting, progress: Count) -> Kept:
    outcome = Outcome()
    pixels = np.empty((len(pictures.names), 3, *fitting.size), np.uint8)
    start, grey = 0, True
    for chunk in decoded(pictures, fitting, outcome, progress):
        pixels[start : start + len(chunk)] = chunk
        grey = grey and _is_grey(chunk)
        start += len(chunk)
    return Kept(np.ascontiguousarray(pixels[:, :1]) if grey else pixels, outcome)


def _made(folder: Path) -> None:
    """Make the folder, and remove what writers that were killed left in it."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in _abandoned(folder):
        with suppress(OSError):
            file.unlink()


def _abandoned(folder: Path) -> Iterator[Path]:
    for file in leftovers(folder):
        with suppress(OSError):
            if time.time() - file.stat().st_mtime > ABANDONED:
                yield file
