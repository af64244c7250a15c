"""One batch of samples from noises that are given, and what lies between the noise and the samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cmcore import sampling
from cmcore.backend import Array, Backend
from cmcore.generate import Sampler
from cmcore.sampling import seeded_noise


@dataclass(frozen=True)
class Frame:
    """A step on the way, in words, and the pictures there, (n, \\*shape) float32 in the data's units."""

    said: str
    x: np.ndarray


def traced(
    sampler: Sampler, backend: Backend, z: np.ndarray, times: Sequence[float], seed: int, labels: np.ndarray | None
) -> tuple[np.ndarray, list[Frame]]:
    """Return the samples that a model makes of standard normal noises z, (n, \\*shape), and the frames on the way to them.

    Noise after the first is the seed's, as in `cmcore.generate`: for z of the seed's first images these are its samples. A
    consistency function's frames are its answers, one after each evaluation. Where a sampler follows a trajectory
    they are what the network is given: x scaled as it takes it, so that the data's share is seen beside any noise.
    """
    recipe, n = sampler.model.recipe, len(z)
    net = sampler.network(recipe.evaluations(len(times)))
    cond: dict[str, Any] = {} if labels is None else {"label": backend.asarray(labels)}
    seen: list[Array] = []

    def noise(draw: int) -> Array:
        return backend.asarray(seeded_noise(seed, range(n), sampler.model.data.shape, draw + 1))

    start = backend.asarray(np.ascontiguousarray(z, np.float32))
    # Times without an end are those of multistep consistency sampling.
    if len(recipe.times(2)) == 2:
        f = recipe.consistency(net)
        made = sampling.multistep(f, start, times, noise, recipe.arrival, lambda i, x: seen.append(x), cond=cond)
        said = [f"after evaluation {i + 1} of {len(seen)}, t = {t:.4g}" for i, t in enumerate(times)]
    else:
        made = recipe.sample(_watched(net, seen.append), start, times, noise, cond)
        said = [f"what evaluation {i + 1} of {len(seen)} is given" for i in range(len(seen))]
    restored = sampler.model.data.restored
    frames = [Frame(words, restored(backend.to_numpy(x))) for words, x in zip(said, seen, strict=True)]
    return restored(backend.to_numpy(made)), frames


def _watched(net: Callable[..., Array], told: Callable[[Array], object]) -> Callable[..., Array]:
    """The network, and whoever is told what it is given."""

    def network(x: Array, c_noise: Array, **cond: Mapping[str, Array]) -> Array:
        told(x)
        return net(x, c_noise, **cond)

    return network
