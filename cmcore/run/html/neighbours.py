"""The training pictures that samples are nearest to: whether a model invents, or repeats what it has seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cmcore.run.data import Dataset
from cmcore.run.html.film import inline_png
from cmcore.run.pictures import as_pixels

SHOWN = 16
"""How many samples are shown: the first of the last grid, so that nobody has chosen them."""

PIECE = 1024
"""How many training pictures are compared at once."""


@dataclass(frozen=True)
class Neighbours:
    """For each of some samples the nearest training picture, ``index``, and root mean square distances of grey values, 0 to 255.

    ``distance`` is the sample's to it, ``own`` that picture's to the training picture nearest to it; all (N,).
    """

    index: np.ndarray
    distance: np.ndarray
    own: np.ndarray

    @property
    def nearer(self) -> int:
        """How many samples are nearer to a training picture than any other training picture is."""
        return int((self.distance < self.own).sum())


def nearest(samples: np.ndarray, data: Dataset) -> Neighbours:
    """Return the training pictures nearest to samples, (N, H, W, C) uint8, by the distance of their pixels."""
    wanted = 2 * (np.moveaxis(samples, 3, 1).reshape(len(samples), -1).astype(np.float64) / 255) - 1
    index, distance = _search(wanted, data, np.full(len(wanted), -1))
    own = _search(_flat(data.samples.take(index)), data, index)[1]
    return Neighbours(index, 127.5 * distance, 127.5 * own)


def _search(wanted: np.ndarray, data: Dataset, but: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index and root mean square distance of the sample nearest to each row wanted, the samples numbered ``but`` left out."""
    best, index = np.full(len(wanted), np.inf), np.zeros(len(wanted), np.int64)
    start = 0
    for piece in map(_flat, data.samples.floats(PIECE)):
        square = (wanted**2).sum(1)[:, None] - 2 * wanted @ piece.T + (piece**2).sum(1)
        square[but[:, None] == start + np.arange(len(piece))] = np.inf
        found = square.argmin(1)
        value = square[np.arange(len(wanted)), found]
        nearer = value < best
        best, index = np.where(nearer, value, best), np.where(nearer, start + found, index)
        start += len(piece)
    return index, np.sqrt(np.maximum(best, 0) / wanted.shape[1])


def _flat(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1).astype(np.float64)


def section(samples: np.ndarray, data: Dataset) -> str:
    """Return samples above their neighbours, with distances, as HTML."""
    found = nearest(samples, data)
    neighbours = as_pixels(data.samples.take(found.index))
    pairs = "".join(
        f'<li><img alt="Sample {i + 1}" src="{inline_png(sample)}">'
        f'<img alt="The training picture nearest to sample {i + 1}" src="{inline_png(real)}">'
        f'<span class="{"near" if d < own else "far"}">{d:.1f}</span> / {own:.1f}</li>'
        for i, (sample, real, d, own) in enumerate(zip(samples, neighbours, found.distance, found.own, strict=True))
    )
    return (
        f"<p>The first {len(samples)} samples of the last grid, and below each the training picture nearest to it, of "
        f"{len(data):,}. The numbers are distances in grey values of 0 to 255 (root mean square over pixels): from the sample "
        "to that picture / from that picture to the training picture nearest to it. "
        f"{found.nearer} of {len(samples)} samples are nearer to a training picture than that picture is to any other.</p>"
        f'<ul class="pairs">{pairs}</ul>'
    )
