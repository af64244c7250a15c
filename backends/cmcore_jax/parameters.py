"""A network as its parameters by name and a way back; what lets any pytree that can be called be trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax

Parameters = dict[str, jax.Array]


def split(net: Any) -> tuple[Parameters, Callable[[Mapping[str, jax.Array]], Any]]:
    """Return a network's inexact arrays, named by path ("blocks.0.norm.weight"), and what puts them back.

    Works for any callable pytree: equinox modules, flax.nnx modules, dataclasses registered with JAX.
    """
    arrays, rest = eqx.partition(net, eqx.is_inexact_array)
    leaves, structure = jax.tree.flatten_with_path(arrays)
    if not leaves or not callable(net):
        raise TypeError(
            f"Expected an equinox or flax.nnx module or another callable pytree with parameters, got "
            f"{type(net).__name__} with {len(leaves)} parameters; JAX cannot see those a plain function closes over."
        )
    parameters = {path_name(path, "."): leaf for path, leaf in leaves}

    def rebuild(values: Mapping[str, jax.Array]) -> Any:
        return eqx.combine(jax.tree.unflatten(structure, [values[name] for name in parameters]), rest)

    return parameters, rebuild


def path_name(path: tuple[Any, ...], separator: str) -> str:
    """Return a tree path as a name."""
    return jax.tree_util.keystr(path, simple=True, separator=separator)
