"""What features see in many pictures: vectors on disk and classes, of pictures that come batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from tempfile import TemporaryFile

import numpy as np

from cmcore.features import Classifier, Features


@dataclass(frozen=True)
class Seen:
    """Of N pictures the features, (N, d) float32, in a file that is mapped, and the classes, (N,), or None."""

    features: np.ndarray
    labels: np.ndarray | None


@contextmanager
def sight(features: Features) -> Iterator[Sight]:
    """Yield what looks at pictures; what it has seen is on disk until then, and not after."""
    with ExitStack() as files:
        yield Sight(features, files)


class Sight:
    """Looks at pictures with features; see `sight`."""

    def __init__(self, features: Features, files: ExitStack) -> None:
        self._features, self._files = features, files

    def of(self, n: int, batches: Iterable[np.ndarray]) -> Seen:
        """Return what is seen in n pictures, which come as batches (B, \\*shape) float32 and are not kept."""
        kept: np.ndarray | None = None
        labels: np.ndarray | None = None
        start = 0
        for x in batches:
            if isinstance(self._features, Classifier):
                found, classes = self._features.both(x)
                labels = np.zeros(n, np.int64) if labels is None else labels
                labels[start : start + len(x)] = classes
            else:
                found = self._features(x)
            if kept is None:
                kept = np.memmap(
                    self._files.enter_context(TemporaryFile()), np.float32, "w+", shape=(n, found.shape[1])
                )
            kept[start : start + len(x)] = found
            start += len(x)
        assert kept is not None
        return Seen(kept, labels)
