"""What other distributions bring, found through entry points."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

from cmcore.errors import Error


def loaded(point: EntryPoint) -> Any:
    """Return what an entry point names; `cmcore.Error` says which distribution is broken if it cannot be imported."""
    try:
        return point.load()
    except (ImportError, AttributeError) as broken:
        whose = f"of the distribution {point.dist.name!r} " if point.dist else ""
        raise Error(f"The entry point {point.value!r} {whose}cannot be loaded: {broken}.") from broken
