"""Where ``cmcore sample --out`` points to, and what is stored there."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from cmcore.data_facts import DataFacts
from cmcore.errors import Error
from cmcore.run import pictures
from cmcore.run.data.labels import named
from cmcore.run.samples import Record, Sink, Stored, into_file, into_folder, write_npz

GRID_PIXELS = 100_000_000
"""A grid of more pixels than this is too large to be looked at, or to be opened by most programs."""

_OTHERS = frozenset(
    ".bmp .gif .gz .h5 .jpeg .jpg .json .mp4 .npy .pdf .pkl .pt .pth .safetensors .svg .tar .tif .tiff .txt .webp .zip".split()
)


class Output:
    """A grid .png, an .npz or a folder of PNGs; `Error`, before anything is computed, if it cannot be.

    ``data`` are the facts of the samples as they are shown, which for decoded latents are those of images.
    ``dtype`` is of the numbers in an .npz: "float32" as "x", (N, C, H, W) in [-1, 1] for images, with "labels"; or "uint8" as
    "arr_0", (N, H, W, C), with "arr_1", as the field's evaluators read it. Images are clipped to their range in either.
    """

    def __init__(self, out: str, n: int, data: DataFacts, dtype: str, labels: np.ndarray | None) -> None:
        if n < 1:
            raise ValueError(f"The number of samples must be at least 1, got {n}.")
        self.path, self._n, self._data, self._labels = Path(out), n, data, labels
        self._folder = is_folder(out)
        self._npz = not self._folder and self.path.suffix.lower() == ".npz"
        self._bytes = not self._npz or dtype == "uint8"
        if self._bytes and not data.images:
            latents = ", or --decoder if they are latents" if len(data.shape) == 3 else ""
            raise Error(
                f"The model's samples, of shape {data.shape}, are not images: give --out NAME.npz, with --dtype float32{latents}."
            )
        if self.path.exists() and not (self._folder and self.path.is_dir()):
            raise Error(f"{self.path} exists already and is not overwritten; choose another --out.")
        if not self._npz and not self._folder and (pixels := _grid_pixels(n, data)) > GRID_PIXELS:
            raise Error(
                f"A grid of {n:,} images would have {pixels:,} pixels, too many to be looked at; "
                "give --out a folder or NAME.npz."
            )

    def sink(self, about: Record) -> AbstractContextManager[Sink]:
        """Return what takes the samples of a command of which ``about`` tells all that they depend on."""
        if self._folder:
            return into_folder(self.path, self._n, about)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        shape = self._data.shape
        event = (*shape[1:], shape[0]) if self._bytes else shape
        kind = "uint8" if self._bytes else "float32"
        return into_file(self.path, self._n, event, kind, about, self._write_npz if self._npz else self._write_grid)

    def stored(self, x: np.ndarray) -> np.ndarray:
        """Return samples (N, \\*shape) as they are stored."""
        if self._bytes:
            return pictures.as_pixels(x)
        return x.clip(-1, 1) if self._data.images else x

    def _write_npz(self, samples: Stored) -> None:
        labels = None if self._labels is None else named(self._labels, self._data.classes)
        names = ("arr_0", "arr_1") if self._bytes else ("x", "labels")
        write_npz(self.path, samples, names[0], {} if labels is None else {names[1]: labels})

    def _write_grid(self, samples: Stored) -> None:
        x = np.concatenate(list(samples.pieces()))
        pictures.save_png(pictures.grid(np.moveaxis(x, 3, 1) / np.float32(127.5) - 1), self.path)


def is_folder(out: str) -> bool:
    """Tell whether samples that go to this place go to a folder: one that is there, ends like one, or has no file's ending.

    A dot in a name does not make an ending, but that of another kind of file is an `Error`.
    """
    ending = Path(out).suffix.lower()
    if out.endswith(("/", os.sep)) or Path(out).is_dir():
        return True
    if ending in _OTHERS:
        raise Error(f"Samples are written to a .png, an .npz or a folder, not to {Path(out).name}.")
    return ending not in (".png", ".npz")


def _grid_pixels(n: int, data: DataFacts) -> int:
    height, width = data.shape[1:]
    enlarged = max(1, round(pictures.TILE / max(height, width))) ** 2
    return n * height * width * enlarged
