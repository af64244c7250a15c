"""Sampling with a trained model: any number of images, in batches of one size, the same images whatever that size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from cmcore.backend import Array, Backend, default
from cmcore.model import Model
from cmcore.sampling import seeded_noise


def generate(
    model: Model,
    n: int,
    *,
    steps: int | None = None,
    times: Sequence[float] | None = None,
    seed: int = 0,
    backend: Backend | None = None,
    batch: int = 256,
    labels: Sequence[int] | np.ndarray | None = None,
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Return n samples, (n, *shape) float32 on the host, in the data's units and not clipped to its range.

    ``times`` are the sampler's, decreasing from t_max; by default the recipe's own for that many ``steps``. ``labels``
    are n class numbers; by default a class-conditional model cycles through its classes. ``progress`` is called with
    the number of samples that are ready. Sample i depends on the model, the seed and the times only.
    """
    return Sampler(model, backend, batch)(n, steps=steps, times=times, seed=seed, labels=labels, progress=progress)


def default_steps(model: Model) -> int:
    """Return how many steps to take where none are asked for: 18 of the ODE for a denoiser, otherwise one."""
    return model.recipe.default_steps


class Sampler:
    """A model in a backend's framework, ready to be called; it keeps its compiled network from call to call."""

    def __init__(self, model: Model, backend: Backend | None = None, batch: int = 256) -> None:
        if batch < 1:
            raise ValueError(f"The batch size must be at least 1, got {batch}.")
        self.model, self.batch = model, batch
        self._backend = backend or default()
        net = self._backend.network(model.architecture, model.weights)

        def network(x: Array, c_noise: Array, **cond: Array) -> Array:
            # Nothing is differentiated here; saying so keeps the frameworks from remembering activations.
            return self._backend.stop_gradient(net(x, c_noise, **cond))

        self._eager = network
        self._compiled: Callable[..., Array] | None = None

    def __call__(
        self,
        n: int,
        *,
        steps: int | None = None,
        times: Sequence[float] | None = None,
        seed: int = 0,
        labels: Sequence[int] | np.ndarray | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> np.ndarray:
        """Return n samples; see `generate`."""
        if n < 1:
            raise ValueError(f"The number of samples must be at least 1, got {n}.")
        if seed < 0:
            raise ValueError(f"The seed must be at least 0, got {seed}.")
        if steps is not None and times is not None:
            raise ValueError("Give the number of steps or the times, not both.")
        recipe, shape = self.model.recipe, self.model.data.shape
        times = recipe.times(default_steps(self.model) if steps is None else steps) if times is None else tuple(times)
        if any(a <= b for a, b in pairwise(times)):
            raise ValueError(f"The sampling times must decrease, got {list(times)}.")
        numbers = self._labels(n, labels)
        size = min(n, self.batch)
        net = self._network(math.ceil(n / size) * len(times))
        out = np.empty((n, *shape), np.float32)
        for start in range(0, n, size):
            # The last batch is filled up, so that the compiled shapes stay the same.
            images = range(start, start + size)

            def noise(draw: int, images: range = images) -> Array:
                return self._backend.asarray(seeded_noise(seed, images, shape, draw + 1))

            cond: dict[str, Any] = {}
            if numbers is not None:
                cond["label"] = self._backend.asarray(np.resize(numbers[start : start + size], size))
            x = self._backend.to_numpy(recipe.sample(net, noise(-1), times, noise, cond))
            out[start : start + size] = self.model.data.restored(x[: n - start])
            if progress is not None:
                progress(min(n, start + size))
        return out

    def warm_up(self, n: int, steps: int) -> None:
        """Compile what making n samples calls for and run it once, so that what follows can be timed."""
        size = min(n, self.batch)
        self._network(math.ceil(n / size) * len(self.model.recipe.times(steps)))
        self(size, steps=steps)

    def _network(self, evaluations: int) -> Callable[..., Array]:
        if self._compiled is None and evaluations >= self._backend.compile_from:
            self._compiled = self._backend.compile(self._eager)
        return self._compiled or self._eager

    def _labels(self, n: int, labels: Sequence[int] | np.ndarray | None) -> np.ndarray | None:
        classes = self.model.architecture.classes
        if not classes:
            if labels is not None:
                raise ValueError("The model was trained without classes, so it takes no labels.")
            return None
        chosen = np.arange(n) % classes if labels is None else np.asarray(labels)
        if chosen.shape != (n,) or chosen.dtype.kind not in "iu":
            raise ValueError(f"The labels must be {n} whole numbers, got {chosen.dtype} of shape {chosen.shape}.")
        if chosen.min() < 0 or chosen.max() >= classes:
            raise ValueError(f"The labels must be from 0 to {classes - 1}, got {chosen.min()} to {chosen.max()}.")
        return chosen.astype(np.int32)
