"""Features of a classifier, as a file of weights that nothing is executed from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, final

import numpy as np

from cmcore import networks
from cmcore._files import check_finite, read_arrays, write_arrays
from cmcore._words import printable
from cmcore.backend import Backend, default, without_gradients
from cmcore.errors import Error
from cmcore.features.network import ClassifierNetwork

BATCH = 500
"""How many pictures the network is given at once; the last batch is filled up, so that one compilation serves for all."""


@final
@dataclass(frozen=True)
class Classifier:
    """A trained classifier: features of pictures, and their classes.

    ``trained_on`` is the name of its data, ``accuracy`` the share of ``tested`` held-out pictures that it gives their class.
    """

    architecture: ClassifierNetwork
    weights: Mapping[str, np.ndarray]
    names: tuple[str, ...]
    trained_on: str
    accuracy: float
    tested: int
    backend: Backend | None = None

    @property
    def name(self) -> str:
        """What it is, for tables."""
        return f"a classifier of {printable(self.trained_on)}, {self.accuracy:.1%} right"

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the features of pictures (N, C, H, W), (N, width) float32; another shape is a `ValueError`."""
        return self._both(x)[:, : self.architecture.width]

    def labels(self, x: np.ndarray) -> np.ndarray:
        """Return the most likely class of each picture, (N,) int64."""
        return self.both(x)[1]

    def both(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return features and classes of pictures, of one evaluation of the network."""
        found = self._both(x)
        return found[:, : self.architecture.width], found[:, self.architecture.width :].argmax(axis=1)

    @cached_property
    def _net(self) -> tuple[Backend, Any]:
        backend = self.backend or default()
        net = backend.network(self.architecture, self.weights)
        return backend, without_gradients(backend, lambda x: net(x, x[:, 0, 0, 0]))

    def _both(self, x: np.ndarray) -> np.ndarray:
        if tuple(x.shape[1:]) != self.architecture.shape:
            raise ValueError(
                f"The classifier of {printable(self.trained_on)} takes pictures of shape {self.architecture.shape}, got {tuple(x.shape[1:])}."
            )
        backend, net = self._net
        found = [backend.to_numpy(net(backend.asarray(part)))[:n] for part, n in _filled(x)]
        return np.concatenate(found) if found else np.zeros((0, self.architecture.width + self.architecture.classes))

    def save(self, path: str | PathLike[str]) -> None:
        """Write the classifier to a .safetensors file, atomically."""
        about = {"names": list(self.names), "data": self.trained_on, "accuracy": self.accuracy, "tested": self.tested}
        write_arrays(path, self.weights, {"classifier": {**_settings(self.architecture), **about}})


def _settings(network: ClassifierNetwork) -> dict[str, Any]:
    return {
        "shape": list(network.shape),
        "classes": network.classes,
        "width": network.width,
        "channels": list(network.channels),
    }


def _filled(x: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    for start in range(0, len(x), BATCH):
        part = np.clip(np.asarray(x[start : start + BATCH], np.float32), -1, 1)
        n = len(part)
        yield (part if n == BATCH else np.concatenate([part, np.zeros((BATCH - n, *part.shape[1:]), np.float32)])), n


def load_classifier(path: str | PathLike[str], backend: Backend | None = None) -> Classifier:
    """Read what `Classifier.save` wrote; what is no classifier is a `cmcore.Error`."""
    weights, manifest = read_arrays(Path(path))
    if "classifier" not in manifest:
        raise Error(f"{path} holds no classifier; make one with cmcore classifier --data DATA --out {Path(path).name}")
    try:
        about = manifest["classifier"]
        architecture = ClassifierNetwork(*(about[name] for name in ("shape", "classes", "width", "channels")))
        networks.check_weights(architecture, weights)
        check_finite(weights)
        names = tuple(map(str, about["names"]))
        found = Classifier(
            architecture, weights, names, str(about["data"]), float(about["accuracy"]), int(about["tested"]), backend
        )
        if len(names) != architecture.classes:
            raise ValueError(f"It names {len(names)} of {architecture.classes} classes.")
    except (KeyError, ValueError, TypeError, OverflowError) as broken:
        raise Error(f"The classifier {path} cannot be used: {broken}") from broken
    return found
