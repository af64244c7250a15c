"""What is asked of an array: its namespace, its backend, and what only that backend can do."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any

import array_api_compat

from cmcore.backend import registry
from cmcore.backend.protocol import Backend
from cmcore.errors import Error
from cmcore.types import Array


def of(x: Array) -> Backend:
    """Return the backend that owns an array, importing no framework that is not in use already."""
    known = _remembered(type(x))
    if known is None:
        known = _find_owner(x)
        registry.owners.remember(type(x), known)
    return known


def namespace(*arrays: Array) -> Any:
    """Return the Array API namespace shared by the arrays, tinygrad's included; Python numbers and None are ignored.

    Raises `TypeError` if there is no array among them, or if they come from different frameworks.
    """
    found = None
    for x in arrays:
        if x is None or isinstance(x, (bool, int, float)):
            continue
        xp = _namespace_of(x)
        if found is not None and xp is not found:
            raise TypeError(f"Expected arrays of one framework, got {_kinds(arrays)}.")
        found = xp
    if found is None:
        raise TypeError(f"Expected an array, got {_kinds(arrays) or 'none'}.")
    return found


def stop_gradient(x: Array) -> Array:
    """Return x, through which no gradient flows, whatever framework x belongs to."""
    # What a PyTorch or tinygrad array can do itself, torch.compile can trace; a search for backends it cannot.
    return x.detach() if hasattr(x, "detach") else of(x).stop_gradient(x)


def jvp(f: Callable[..., Array], primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    """Return ``f(*primals)`` and its derivative along the tangents, by the backend that owns the first primal.

    It can be part of what a trainer or a backend's `compile` compiles. Where you call torch.compile yourself, call
    `of` with an array once before: torch.compile cannot trace the search for an array's backend, only its result.
    Raises `cmcore.Error` if that backend has no gradients.
    """
    return of(primals[0]).jvp(f, tuple(primals), tuple(tangents))


def _remembered(kind: type) -> Backend | None:
    found: tuple[type, Backend] | None = getattr(registry.owners, registry.owners.key(kind), None)
    return found[1] if found is not None and found[0] is kind else None


def _namespace_of(x: Array) -> Any:
    """The owner's namespace first; then the array's own, which can be traced where the search for an owner cannot."""
    backend = _remembered(type(x))
    if backend is None:
        backend = next((b for b in registry.registered() if b.owns(x)), None)
    if backend is None and array_api_compat.is_array_api_obj(x):
        return array_api_compat.array_namespace(x)
    return (backend or of(x)).xp


def _kinds(arrays: tuple[Array, ...]) -> str:
    return ", ".join(sorted({f"{type(a).__module__}.{type(a).__name__}" for a in arrays}))


def _find_owner(x: Array) -> Backend:
    framework = type(x).__module__.partition(".")[0]
    # An array's framework is loaded already, so asking its backend imports nothing new; jaxlib's arrays belong to jax.
    in_use = (n for n in registry.names() if registry.is_registered(n) or n in sys.modules)
    for name in sorted(in_use, key=lambda n: not framework.startswith(n)):
        with contextlib.suppress(Error):
            backend = registry.load(name)
            if backend.owns(x):
                return backend
    raise TypeError(
        f"No backend owns arrays of type {type(x).__module__}.{type(x).__name__}; "
        f"expected an array of one of: {', '.join(registry.names())}."
    )
