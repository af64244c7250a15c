"""What our networks share: how times and labels reach them, and the checks of what they are given."""

from __future__ import annotations

from typing import Any

import numpy as np

from cmcore._arrays import check_label
from cmcore.networks.layers import Embedding, Fourier, Linear, LogWeight, SiLU, check_end
from cmcore.networks.part import Part
from cmcore.types import Array

ADDED = ("end_in", "end_out", "log_weight")
"""The layers that the settings ``two_times`` and ``log_weight`` add."""


class Checked(Part):
    """A network with the attributes ``shape`` and ``classes``, which tells whether its inputs fit."""

    shape: tuple[int, ...]
    classes: int

    def check(self, x: Array, c_noise: Array, label: Array | None) -> None:
        """Raise `ValueError` unless x, c_noise and label have the shapes that the network was made for, and labels are its classes.

        Labels are integers, else it is a `TypeError`; their values are looked at in NumPy arrays only, as others may be traced.
        """
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"The network expects x of shape (B, {str(self.shape)[1:-1]}), got {tuple(x.shape)}.")
        if tuple(c_noise.shape) != tuple(x.shape[:1]):
            raise ValueError(
                f"The network expects c_noise of shape ({x.shape[0]},), one a sample, got {tuple(c_noise.shape)}."
            )
        if label is None and self.classes:
            raise ValueError(
                f"The network has {self.classes} classes and needs a label: give label, (B,) integers below that."
            )
        if label is not None and not self.classes:
            raise ValueError("The network has no classes, so it takes no label; build it with classes > 0.")
        if label is not None:
            check_label(label, x.shape[0], self.classes)


class Conditioned(Checked):
    """A network with the embedding ``e = silu(time_out(silu(time_in(phi(c_noise)))) + end + label)``, (B, width).

    ``phi(c) = [cos(w c), sin(w c)]`` with w a geometric ladder from 1 to max_frequency; ``label`` is the row of the label
    table, if any, and 0 for a negative label; ``end = end_out(silu(end_in(phi(c_end))))`` with two times, else nothing.
    ``log_weight`` reads ``phi(c_noise)`` or, with two times, ``[phi(c_noise), phi(c_end)]``.
    """

    def embed_with(self, settings: Any, width: int) -> None:
        """Make the embedding's layers: ``settings`` are `ResidualMLP`'s, all but width and blocks."""
        features, w = settings.features, frequencies(settings.max_frequency, settings.features)
        self.shape, self.classes, self.two_times = tuple(settings.shape), settings.classes, settings.two_times
        self.phi, self.silu = Fourier(w), SiLU()
        self.time_in, self.time_out = Linear(features, width), Linear(width, width)
        if settings.two_times:
            self.end_in, self.end_out = Linear(features, width), Linear(width, width, gain=0.0)
        self.label = Embedding(settings.classes, width) if settings.classes else None
        self.log_weight = LogWeight(w, times=2 if settings.two_times else 1, enabled=settings.log_weight)

    def embed(self, x: Array, c_noise: Array, label: Array | None, c_end: Array | None) -> Array:
        """Return the embedding e, (B, width); `ValueError` for inputs that do not fit the network."""
        self.check(x, c_noise, label)
        check_end(self.two_times, c_noise, c_end)
        e = self.time_out(self.silu(self.time_in(self.phi(c_noise))))
        if c_end is not None:
            e = e + self.end_out(self.silu(self.end_in(self.phi(c_end))))
        if self.label is not None:
            e = e + self.label(label)
        return self.silu(e)


def frequencies(highest: float, features: int) -> tuple[float, ...]:
    """Return a geometric ladder of ``features / 2`` frequencies from 1 to the highest."""
    return tuple(float(w) for w in np.geomspace(1.0, highest, features // 2))


def check_settings(settings: Any, *positive: str) -> None:
    """Raise `ValueError` unless the named settings are at least 1 and shape, classes and time features make sense."""
    for name in positive:
        if getattr(settings, name) < 1:
            raise ValueError(f"The network's {name} must be at least 1, got {getattr(settings, name)}.")
    if not settings.shape or any(n < 1 for n in settings.shape):
        raise ValueError(f"The data's shape must be positive in every dimension, got {settings.shape}.")
    if settings.classes < 0:
        raise ValueError(f"The number of classes cannot be negative, got {settings.classes}.")
    if settings.features < 2 or settings.features % 2:
        raise ValueError(f"The number of time features must be even and positive, got {settings.features}.")
    if not settings.max_frequency >= 1:
        raise ValueError(f"The highest time frequency must be at least 1, got {settings.max_frequency}.")
