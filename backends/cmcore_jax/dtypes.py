"""Dtypes by name, refusing those that JAX would narrow without a word."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def available(name: str) -> jnp.dtype:
    """Return the dtype of that name; `ValueError` if JAX has none, or would give 32 bits instead of 64."""
    try:
        dtype = jnp.dtype(name)
    except TypeError:
        raise ValueError(f"JAX has no dtype named {name!r}; float32 is the usual one.") from None
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise ValueError(
            f"JAX was asked for {name}, but its 64-bit mode is off; "
            "run the code inside `with jax.enable_x64(True):` or ask for a 32-bit dtype."
        )
    return dtype
