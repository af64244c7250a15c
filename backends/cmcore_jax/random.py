"""Random streams: a key per (seed, index), and a fresh key folded from it at every draw."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np

from cmcore_jax.dtypes import available


def key(seed: int, index: int | jax.Array = 0) -> jax.Array:
    """Return a stream's key; the seed may have any number of bits, the index, which may be traced, has 32."""
    if seed < 0:
        raise ValueError(f"A seed must not be negative, got {seed}.")
    # JAX keeps only 32 bits of a Python seed, so mix all of them into two words first.
    first, second = np.random.SeedSequence(seed).generate_state(2)
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(first), second), index)


@dataclass
class JaxStream:
    """An explicit stream of random numbers, on the device of its key."""

    key: jax.Array
    drawn: int = 0

    def normal(self, shape: tuple[int, ...], dtype: str = "float32") -> jax.Array:
        """Draw standard normal numbers of the given shape."""
        return jax.random.normal(self._next(), tuple(shape), available(dtype))

    def uniform(self, shape: tuple[int, ...], dtype: str = "float32") -> jax.Array:
        """Draw numbers uniform in [0, 1) of the given shape."""
        return jax.random.uniform(self._next(), tuple(shape), available(dtype))

    def _next(self) -> jax.Array:
        self.drawn += 1
        return jax.random.fold_in(self.key, self.drawn)
