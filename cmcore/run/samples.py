"""Samples on their way to disk: written batch by batch, and gone on with where they were broken off.

Beside what is unfinished lies a hidden record of the command that it is of; only the same command goes on with it.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from cmcore._files import atomic_write, placed
from cmcore._words import quoted
from cmcore.errors import Error
from cmcore.model import Model
from cmcore.run.lock import NAME as LOCK
from cmcore.run.lock import held, locked

PIECE = 2**21
"""How many bytes are copied at once."""

Record = Mapping[str, Any]


class Sink(ABC):
    """Where samples go, in order; ``done`` of them are there already."""

    done: int

    @abstractmethod
    def add(self, start: int, x: np.ndarray) -> None:
        """Write samples, as they are to be stored, of which the first has the number ``start`` <= done."""

    @abstractmethod
    def finish(self) -> None:
        """Make of it what was asked for; all samples are there."""


def fingerprint(model: Model) -> str:
    """Return a digest of a model's weights."""
    digest = hashlib.sha256()
    for name in sorted(model.weights):
        digest.update(name.encode() + np.ascontiguousarray(model.weights[name]).tobytes())
    return digest.hexdigest()[:16]


@contextmanager
def into_folder(folder: Path, n: int, record: Record) -> Iterator[Sink]:
    """Give a sink of uint8 images (N, H, W, C) that become 000000.png, 000001.png, ... of a folder, each written whole.

    A folder with the record of the same command is gone on with, also with more samples than at first.
    """
    with held(folder, "writing samples to"):
        told = _Record(folder / ".samples.json", record)
        visible = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
        if not visible:
            told.forget()
        if told.is_other():
            raise Error(f"{folder} holds samples of another command; choose another --out.")
        if not told.there() and visible:
            raise Error(f"{folder} exists and is not an empty folder ({visible[0]}); choose another --out.")
        told.write()
        pictures = _Pictures(folder, n)
        if pictures.done >= n:
            raise Error(f"{folder} holds these {n:,} samples already; ask for more with --n, or choose another --out.")
        yield pictures
    with suppress(OSError):
        (folder / LOCK).unlink()


@contextmanager
def into_file(
    path: Path, n: int, event: tuple[int, ...], dtype: str, record: Record, finish: Callable[[Stored], None]
) -> Iterator[Sink]:
    """Give a sink that gathers samples (N, \\*event) in a hidden file beside ``path``; ``finish`` makes that file of them.

    ``finish`` is given them as they lie on the disk.
    """
    part = path.with_name(f".{path.name}.part")
    told = _Record(path.with_name(f".{path.name}.json"), {**record, "n": n})
    with locked(path.with_name(f".{path.name}.lock"), f"writing samples to {path}"):
        if not part.exists() or not part.stat().st_size:
            # That command made nothing.
            told.forget()
        if told.is_other():
            raise Error(
                f"There are unfinished samples of another command for {path}: repeat that command, or remove "
                f"{quoted(part)} and {quoted(told.path)}, or choose another --out."
            )
        if not told.there():
            part.unlink(missing_ok=True)
        told.write()
        yield _Gathered(part, n, event, np.dtype(dtype), finish)
        for leftover in (part, told.path):
            leftover.unlink(missing_ok=True)
    path.with_name(f".{path.name}.lock").unlink(missing_ok=True)


class _Record:
    """What a file of samples is of."""

    def __init__(self, path: Path, record: Record) -> None:
        # As it is read back.
        self.path, self._record = path, json.loads(json.dumps(record))

    def there(self) -> bool:
        return self.path.exists()

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)

    def is_other(self) -> bool:
        try:
            return self.there() and json.loads(self.path.read_bytes()) != self._record
        except (ValueError, RecursionError):
            return True

    def write(self) -> None:
        if not self.there():
            atomic_write(self.path, json.dumps(self._record).encode())


class _Pictures(Sink):
    def __init__(self, folder: Path, n: int) -> None:
        self._folder, self._digits = folder, max(6, len(str(n - 1)))
        self.done = 0
        while self._path(self.done).exists():
            self.done += 1

    def add(self, start: int, x: np.ndarray) -> None:
        for index, image in enumerate(x, start):
            if index >= self.done:
                atomic_write(self._path(index), as_png(image), durable=False)
                self.done = index + 1

    def finish(self) -> None:
        pass

    def _path(self, index: int) -> Path:
        return self._folder / f"{index:0{self._digits}d}.png"


class _Gathered(Sink):
    def __init__(
        self, part: Path, n: int, event: tuple[int, ...], dtype: np.dtype, finish: Callable[[Stored], None]
    ) -> None:
        self._part, self._shape, self._dtype, self._finish = part, (n, *event), dtype, finish
        self._bytes = dtype.itemsize * int(np.prod(event))
        self.done = part.stat().st_size // self._bytes if part.exists() else 0

    def add(self, start: int, x: np.ndarray) -> None:
        with placed(self._part), self._part.open("r+b" if self._part.exists() else "wb") as file:
            file.seek(start * self._bytes)
            file.write(np.ascontiguousarray(x, self._dtype).data)
            file.truncate()
        self.done = start + len(x)

    def finish(self) -> None:
        self._finish(Stored(self._part, self._shape, self._dtype))


@dataclass(frozen=True)
class Stored:
    """Samples that lie on the disk as raw numbers, for they may be larger than the memory."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype

    def pieces(self) -> Iterator[np.ndarray]:
        """Return them in order, some at a time, each (n, \\*event)."""
        each = math.prod(self.shape[1:])
        count = max(1, PIECE // (each * self.dtype.itemsize))
        # Read rather than mapped: what is mapped stays in memory as long as there is room.
        with self.path.open("rb") as file:
            for start in range(0, self.shape[0], count):
                rows = min(count, self.shape[0] - start)
                yield np.fromfile(file, self.dtype, rows * each).reshape(rows, *self.shape[1:])


def write_npz(path: Path, samples: Stored, name: str, others: Mapping[str, np.ndarray]) -> None:
    """Write an .npz with samples, which may be larger than the memory, and other arrays; whole or not at all."""

    def write(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                layout = {"descr": samples.dtype.str, "fortran_order": False, "shape": samples.shape}
                np.lib.format.write_array_header_1_0(member, layout)
                for piece in samples.pieces():
                    member.write(piece.data)
            for other, array in others.items():
                with archive.open(f"{other}.npy", "w") as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)

    atomic_write(path, write)


def as_png(image: np.ndarray) -> bytes:
    """Return a uint8 image (H, W, C) as a PNG."""
    out = io.BytesIO()
    Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image).save(out, "PNG")
    return out.getvalue()
