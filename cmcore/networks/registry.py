"""Networks by the kind that files and the command line name, those of other distributions included."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from cmcore._entry_points import loaded
from cmcore._words import choice
from cmcore.networks.adapted import Adapted
from cmcore.networks.architecture import Architecture
from cmcore.networks.dit import DiT
from cmcore.networks.mlp import ResidualMLP
from cmcore.networks.residual import ResidualConv
from cmcore.networks.unet import UNet

_OURS: dict[str, type[Architecture]] = {cls.kind: cls for cls in (ResidualMLP, ResidualConv, UNet, DiT)}


def names() -> tuple[str, ...]:
    """Return the kinds of network there are, those of other distributions last."""
    return (*_OURS, *sorted(_others()))


def get(kind: str) -> type[Architecture]:
    """Return the class of that kind of network; an unknown one is a `ValueError` that lists the known ones."""
    if kind in _OURS:
        return _OURS[kind]
    if kind == Adapted.kind:  # made by importing alone, so no name to choose
        return Adapted
    if kind not in _others():
        raise ValueError(f"Unknown network {kind!r}; {choice(kind, names())}")
    cls = loaded(_others()[kind])
    if not (isinstance(cls, type) and issubclass(cls, Architecture) and getattr(cls, "kind", None) == kind):
        raise TypeError(
            f"The entry point {_others()[kind].value!r} must be a class derived from cmcore.networks.Architecture "
            f"whose kind is {kind!r}, got {cls!r}."
        )
    return cls


def to_config(architecture: Architecture) -> dict[str, Any]:
    """Return an architecture as plain JSON data, without the options that are off; `from_config` is its inverse."""
    off = {f.name for f in fields(architecture) if f.default is getattr(architecture, f.name) is False}  # type: ignore[arg-type]
    settings = asdict(architecture)  # type: ignore[call-overload]
    inner = {n: to_config(v) for n, v in vars(architecture).items() if isinstance(v, Architecture)}
    return {"kind": architecture.kind, **{name: value for name, value in settings.items() if name not in off}, **inner}


def from_config(config: Mapping[str, Any]) -> Architecture:
    """Return the architecture that `to_config` described; what it does not know is a `ValueError`."""
    settings = dict(config)
    kind = settings.pop("kind", None)
    cls = get(kind)
    inner = {n: from_config(v) for n, v in settings.items() if isinstance(v, Mapping) and "kind" in v}
    try:
        return cls(**settings | inner)
    except TypeError as mismatch:
        raise ValueError(f"The settings of the network {kind!r} do not fit: {mismatch}.") from mismatch


@cache
def _others() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group="cmcore.networks") if point.name not in _OURS}
