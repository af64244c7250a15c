"""A data set, checked, and the batches of training steps drawn from it."""

from __future__ import annotations

import functools
import math
from typing import final

import numpy as np

from cmcore._words import counted
from cmcore.run.data.samples import Samples, as_samples
from cmcore.run.memory import of_machine


@final
class Dataset:
    """Samples to train on, (N, \\*shape), as bytes or float32; images are (N, C, H, W) in [-1, 1] with C = 1 or 3.

    ``labels`` are (N,) int64 in [0, len(classes)), or None; ``classes`` their names. ``held_out``, (M, \\*shape), is never trained
    on; None if the source has none. ``x`` and ``held_out`` may be given as arrays, float32 or uint8 for 0 ... 255, or as
    `Samples`. Data that cannot be trained on (fewer than 2 samples, NaN or infinite values, all values equal, wrong shapes or
    dtypes) is a `ValueError`.
    """

    def __init__(
        self,
        x: np.ndarray | Samples,
        labels: np.ndarray | None,
        classes: tuple[str, ...],
        held_out: np.ndarray | Samples | None,
        name: str,
        images: bool,
    ) -> None:
        self.samples = as_samples(x)
        self.kept_out = None if held_out is None else as_samples(held_out)
        self.labels, self.classes, self.name, self.images = labels, classes, name, images
        check_values(self.samples, images, name)
        if len(self.samples) < 2:
            raise ValueError(f"{name} holds {counted(len(self.samples), 'sample')}, and at least 2 are needed.")
        if self.samples.facts.low == self.samples.facts.high:
            raise ValueError(f"Every value in {name} is {self.samples.facts.low:g}; there is nothing to learn.")
        if self.kept_out is not None:
            check_values(self.kept_out, images, f"The held-out part of {name}")
            if self.kept_out.shape != self.shape:
                raise ValueError(
                    f"The held-out samples of {name} must have shape {self.shape} like those to train on, "
                    f"got {self.kept_out.shape}."
                )
        _check_labels(labels, len(self.samples), len(classes), name)

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def x(self) -> np.ndarray:
        """All samples at once, (N, \\*shape) float32; where they are stored as bytes that is made anew, and four times as large."""
        return self.samples.whole()

    @property
    def held_out(self) -> np.ndarray | None:
        """All that is held out, as ``x``."""
        return None if self.kept_out is None else self.kept_out.whole()

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return self.samples.shape

    @property
    def sigma_data(self) -> float:
        """The standard deviation of all values of x about their common mean, computed in float64."""
        return self.samples.facts.deviation

    def batch(
        self, seed: int, step: int, size: int, own: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the samples (size, \\*shape), and their labels (size,) or None, of training step ``step`` >= 0.

        Every epoch visits every sample once, in an order of its own; a batch may straddle epochs. The batch depends on
        the arguments only, so resuming a run needs no state of the data. With ``own``, whole numbers below ``size``, only the samples at
        these places of the batch are read and returned.
        """
        for argument, value, least in (("seed", seed, 0), ("step", step, 0), ("size", size, 1)):
            if value < least:
                raise ValueError(f"The {argument} of a batch must be at least {least}, got {value}.")
        _check_memory(size if own is None else len(own), 4 * math.prod(self.shape))
        rows = _rows(seed, step * size, (step + 1) * size, len(self.samples))
        rows = rows if own is None else rows[own]
        return self.samples.take(rows), None if self.labels is None else self.labels[rows]


def _check_memory(count: int, each: int) -> None:
    """Raise `MemoryError` if so many samples need more memory than there is, which some systems promise all the same."""
    there = of_machine()
    if there is not None and count * each > there:
        raise MemoryError(f"A batch of {count:,} samples needs {count * each / 2**30:,.0f} GiB.")


@functools.lru_cache(maxsize=2)
def permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    """Return a permutation of n rows, (n,) int64: the order of n Philox words, whose stream NumPy promises to keep."""
    words = np.random.Philox(np.random.SeedSequence((seed, epoch))).random_raw(n)
    order = np.argsort(words, kind="stable")
    order.flags.writeable = False
    return order


def split(n: int, held_out: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows to train on and the rows held out, each in increasing order: a fixed draw, seed 0 and epoch 0."""
    order = permutation(0, 0, n)
    return np.sort(order[held_out:]), np.sort(order[:held_out])


def _rows(seed: int, start: int, stop: int, n: int) -> np.ndarray:
    # The samples of all epochs lie end to end; [start, stop) is cut where an epoch ends.
    pieces = []
    while start < stop:
        epoch, first = divmod(start, n)
        last = min(n, first + stop - start)
        pieces.append(permutation(seed, epoch, n)[first:last])
        start += last - first
    return np.concatenate(pieces)


def check_values(samples: Samples, images: bool, name: str) -> None:
    """Raise a `ValueError` unless samples are bytes or finite float32, and images have 1 or 3 channels and lie in [-1, 1]."""
    stored = samples.stored
    if stored.dtype not in (np.float32, np.uint8):
        raise ValueError(f"{name} must be float32, got {stored.dtype}.")
    if images and (stored.ndim != 4 or stored.shape[1] not in (1, 3)):
        raise ValueError(
            f"{name} must hold images of shape (N, C, H, W) with 1 or 3 channels, got {stored.shape}; take others with --kind latents."
        )
    if stored.ndim < 2 or 0 in stored.shape or not len(samples):
        raise ValueError(f"{name} must hold samples of shape (N, ...), none of its axes empty, got {stored.shape}.")
    low, high = samples.facts.low, samples.facts.high
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"{name} holds NaN or infinite values; remove or replace those samples.")
    if images and not -1 <= low <= high <= 1:
        raise ValueError(
            f"The images of {name} must have values in [-1, 1], or be uint8; they range from {low:g} to {high:g}."
        )


def _check_labels(labels: np.ndarray | None, n: int, classes: int, name: str) -> None:
    if labels is None:
        return
    if labels.shape != (n,) or labels.dtype != np.int64:
        raise ValueError(f"The labels of {name} must be ({n},) int64, got {labels.shape} {labels.dtype}.")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"The labels of {name} must lie in [0, {classes}), its number of classes; "
            f"they range from {labels.min()} to {labels.max()}."
        )
