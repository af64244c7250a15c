"""Sampling with a trained model: any number of images, in batches of one size, the same images whatever that size."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from cmcore._options import check_kind
from cmcore.backend import Array, Backend, default, without_gradients
from cmcore.data_facts import DataFacts
from cmcore.networks import Architecture
from cmcore.recipes import Recipe
from cmcore.sampling import seeded_noise

ROUNDING = 1e-6
"""How far times may be beyond those that the network was trained for, as a share, for having been rounded or printed."""


class Trained(Protocol):
    """What sampling needs of a model, `cmcore.model.Model`."""

    @property
    def recipe(self) -> Recipe:
        """The recipe it was trained by."""

    @property
    def architecture(self) -> Architecture:
        """Its network's settings."""

    @property
    def weights(self) -> Mapping[str, np.ndarray]:
        """Its weights."""

    @property
    def data(self) -> DataFacts:
        """What it knows of its data."""


BATCH = 256
"""How many samples are made at once, if they are small."""


MOST_STEPS = 10_000
"""More than any sampler gains by."""


def fitting_batch(shape: Sequence[int]) -> int:
    """Return how many samples of a shape to make at once: fewer of large ones, whose activations fill the memory."""
    return max(1, min(BATCH, 2**20 // math.prod(shape)))


def generate(
    model: Trained,
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


def default_steps(model: Trained) -> int:
    """Return how many steps to take where none are asked for: 18 of the ODE for a denoiser, otherwise one."""
    return model.recipe.default_steps


class Sampler:
    """A model in a backend's framework, ready to be called; it keeps its compiled network from call to call.

    ``compute`` is what the network's layers compute in, such as "bfloat16", by default the weights' own.
    """

    def __init__(
        self, model: Trained, backend: Backend | None = None, batch: int = 256, compute: str | None = None
    ) -> None:
        check_kind("The batch size", batch, int)
        if batch < 1:
            raise ValueError(f"The batch size must be at least 1, got {batch}.")
        self.model, self.batch = model, batch
        self._backend = backend or default()
        net = self._backend.network(model.architecture, model.weights, compute=compute)
        self._eager = without_gradients(self._backend, net)
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
        batches = self.batches(n, steps=steps, times=times, seed=seed, labels=labels)
        out = np.empty((n, *self.model.data.shape), np.float32)
        for start, x in batches:
            out[start : start + len(x)] = x
            if progress is not None:
                progress(start + len(x))
        return out

    def batches(
        self,
        n: int,
        *,
        first: int = 0,
        steps: int | None = None,
        times: Sequence[float] | None = None,
        seed: int = 0,
        labels: Sequence[int] | np.ndarray | None = None,
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Return an iterator of n samples, a batch at a time: the number of its first sample, and the samples.

        What cannot be asked for is a `ValueError` at once. ``first`` begins with the batch that has the sample of that number.
        """
        check_kind("The number of samples", n, int)
        check_kind("The seed", seed, int)
        if n < 1:
            raise ValueError(f"The number of samples must be at least 1, got {n}.")
        if seed < 0:
            raise ValueError(f"The seed must be at least 0, got {seed}.")
        if steps is not None and times is not None:
            raise ValueError("Give the number of steps or the times, not both.")
        chosen = self.times(steps, times)
        return self._batches(n, first, chosen, seed, self.labels(n, labels))

    def times(self, steps: int | None = None, times: Sequence[float] | None = None) -> tuple[float, ...]:
        """Return the sampler's times: those given, checked, or the recipe's for so many steps."""
        recipe = self.model.recipe
        if steps is not None and times is not None:
            raise ValueError("Give the number of steps or the times, not both.")
        if steps is not None:
            check_kind("The number of steps", steps, int)
        if steps is not None and steps > MOST_STEPS:
            raise ValueError(f"A sampler takes at most {MOST_STEPS:,} steps, got {steps:,}.")
        if times is None:
            return recipe.times(default_steps(self.model) if steps is None else steps)
        chosen = tuple(map(float, times))
        if any(not a > b for a, b in pairwise(chosen)):
            raise ValueError(f"The sampling times must decrease, got {list(chosen)}.")
        # The times of some samplers have an end, from which no evaluation starts.
        ends = len(recipe.times(2)) - 2
        starts = chosen[: len(chosen) - ends]
        if not starts:
            raise ValueError(f"The sampler of {recipe.name!r} needs at least {1 + ends} times, got {list(chosen)}.")
        lowest, highest = recipe.lowest_time, recipe.highest_time
        if (
            not all(lowest <= t * (1 + ROUNDING) and t <= highest * (1 + ROUNDING) for t in starts)
            or not chosen[-1] >= 0
        ):
            raise ValueError(
                f"The network was trained for times from {lowest:g} to {highest:g}; the sampling times are {list(chosen)}."
            )
        return chosen

    def _batches(
        self, n: int, first: int, times: tuple[float, ...], seed: int, numbers: np.ndarray | None
    ) -> Iterator[tuple[int, np.ndarray]]:
        recipe, shape = self.model.recipe, self.model.data.shape
        size = min(n, self.batch)
        net = self.network(math.ceil((n - first) / size) * len(times))
        for start in range(first - first % size, n, size):
            # The last batch is filled up, so that the compiled shapes stay the same.
            images = range(start, start + size)

            def noise(draw: int, images: range = images) -> Array:
                return self._backend.asarray(seeded_noise(seed, images, shape, draw + 1))

            cond: dict[str, Any] = {}
            if numbers is not None:
                cond["label"] = self._backend.asarray(np.resize(numbers[start : start + size], size))
            x = self._backend.to_numpy(recipe.sample(net, noise(-1), times, noise, cond))
            yield start, self.model.data.restored(x[: n - start])

    def warm_up(self, n: int, steps: int) -> None:
        """Compile what making n samples calls for and run it once, so that what follows can be timed."""
        size = min(n, self.batch)
        self.network(math.ceil(n / size) * len(self.model.recipe.times(steps)))
        self(size, steps=steps)

    def network(self, evaluations: int) -> Callable[..., Array]:
        """Return the network, compiled if so many evaluations are worth it, or if it was before."""
        if self._compiled is None and evaluations >= self._backend.compile_from:
            self._compiled = self._backend.compile(self._eager)
        return self._compiled or self._eager

    def labels(self, n: int, labels: Sequence[int] | np.ndarray | None) -> np.ndarray | None:
        """Return n class numbers, those given, checked, or all in turn; None for a model without classes."""
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
