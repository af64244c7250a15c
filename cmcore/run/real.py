"""The real pictures of an evaluation: what samples are compared with, and how near other real pictures come."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from cmcore import metrics
from cmcore.run.data import Dataset
from cmcore.run.data.dataset import permutation
from cmcore.run.figures import Row
from cmcore.run.seen import Seen, Sight

FRECHET_UP_TO = 4096
"""For more numbers than this in a vector there is a sliced distance alone: covariances and neighbours would take too long."""

NEIGHBOURS = 5
"""Whose distance is the radius of a ball (density and coverage); 3 for precision and recall; both as published."""

MOST_PRODUCTS = 10**13
"""Memorisation is left out where its distances would take more multiplications than this."""


class Real:
    """Held-out pictures, or all of the data where none are held out, and those that were trained on."""

    def __init__(self, look: Sight, data: Dataset, n: int) -> None:
        self._look, self._data, self._n = look, data, n
        kept = data.samples if data.kept_out is None else data.kept_out
        self._seen = look.of(len(kept), kept.floats(_PIECE))

    @cached_property
    def _training(self) -> Seen:
        if self._data.kept_out is None:
            return self._seen
        return self._look.of(len(self._data), self._data.samples.floats(_PIECE))

    @cached_property
    def _statistics(self) -> metrics.Statistics:
        return metrics.statistics(self._seen.features)

    def row(self, name: str, made: Seen, *, nfe: int | None = None, ms: float | None = None) -> Row:
        """Return the figures of samples."""
        return self._row(name, made, self._seen, memorized=self._memorized(made), nfe=nfe, ms=ms)

    def floor(self) -> Row | None:
        """Return the figures of as many real pictures that were trained on, or of half of all beside the other half, if there are so many."""
        if self._data.kept_out is None:
            half = len(self._seen.features) // 2
            order = permutation(0, 0, len(self._seen.features))
            one, other = (_part(self._seen, np.sort(rows[: self._n])) for rows in (order[:half], order[half:]))
            return self._row("real data", one, other) if half > 1 else None
        rows = np.sort(permutation(0, 0, len(self._data))[: self._n])
        training = (
            _part(self._training, rows) if self._compared else self._look.of(len(rows), [self._data.samples.take(rows)])
        )
        return self._row("real data", training, self._seen, memorized=self._memorized(self._seen))

    @property
    def _compared(self) -> bool:
        return bool(self._seen.features.shape[1] <= FRECHET_UP_TO)

    def _memorized(self, made: Seen) -> float | None:
        products = len(made.features) * len(self._data) * made.features.shape[1]
        if not self._compared or products > MOST_PRODUCTS:
            return None
        return metrics.memorization(made.features, self._training.features)

    def _row(self, name: str, made: Seen, real: Seen, memorized: float | None = None, **timing: Any) -> Row:
        sliced = metrics.sliced_wasserstein(made.features, real.features)
        if not self._compared:
            return Row(name, timing.get("nfe"), None, sliced, timing.get("ms"))
        known = self._statistics if real is self._seen else metrics.statistics(real.features)
        frechet = metrics.frechet_distance_from_statistics(metrics.statistics(made.features), known)
        kid = metrics.kid_of_subsets(made.features, real.features)
        figures: dict[str, Any] = {"kid": kid.mean, "kid_deviation": kid.deviation, "memorized": memorized}
        count = min(len(made.features), len(real.features))
        if count > NEIGHBOURS:
            one, other = real.features[:count], made.features[:count]
            figures |= metrics.precision_recall(one, other)._asdict()
            figures |= metrics.density_coverage(one, other, NEIGHBOURS)._asdict()
        if made.labels is not None and real.labels is not None:
            classes = 1 + int(max(made.labels.max(), real.labels.max()))
            shares = np.bincount(made.labels, minlength=classes) / len(made.labels)
            figures["classes"] = metrics.class_deviation(made.labels, real.labels, classes)
            figures["shares"] = tuple(shares.tolist())
        return Row(name, timing.get("nfe"), frechet, sliced, timing.get("ms"), **figures)


_PIECE = 1000
"""How many pictures are looked at at once."""


def _part(seen: Seen, rows: np.ndarray) -> Seen:
    return Seen(seen.features[rows], None if seen.labels is None else seen.labels[rows])
