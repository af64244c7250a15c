"""What a loss is given by name, and a sentence where a name is missing."""

from __future__ import annotations

from collections.abc import Mapping

from cmcore.backend import Array, Network


def network(nets: Mapping[str, Network], name: str) -> Network:
    """Return the network of that name, or raise `ValueError`."""
    if name not in nets:
        how = "" if name in ("online", "target") else f' Give the trainer frozen={{"{name}": network}}.'
        raise ValueError(f"The loss needs the network {name!r}, got {', '.join(nets) or 'none'}.{how}")
    return nets[name]


def scalar(scalars: Mapping[str, Array], name: str) -> Array:
    """Return the scalar of that name, or raise `ValueError`."""
    if name not in scalars:
        raise ValueError(
            f"The loss needs the scalar {name!r}, got {', '.join(scalars) or 'none'}; recipe.scalars(step, total) has them all."
        )
    return scalars[name]
