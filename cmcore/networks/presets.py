"""Networks by the names of their papers, and small ones that a CPU trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cmcore.networks.architecture import Architecture
from cmcore.networks.dit import DiT


@dataclass(frozen=True)
class Preset:
    """A kind of network with settings of its own; ``shape`` and ``classes`` are those of the data it was published for."""

    network: type[Architecture]
    shape: tuple[int, ...]
    classes: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, shape: tuple[int, ...], classes: int = 0, **settings: Any) -> Architecture:
        """Return the network for data of that shape, other settings in place of its own; what does not fit is a `ValueError`."""
        return self.network(shape=shape, classes=classes, **{**self.settings, **settings})


_SIZES = {"s": (384, 12, 6), "b": (768, 12, 12), "l": (1024, 24, 16), "xl": (1152, 28, 16)}
"""Width, blocks and heads (Peebles & Xie, 2023, table 1)."""

PRESETS: Mapping[str, Preset] = {
    **{
        f"dit-{size}/{patch}": Preset(
            DiT, (4, 32, 32), 1000, {"patch": patch, "width": width, "blocks": blocks, "heads": heads}
        )
        for size, (width, blocks, heads) in _SIZES.items()
        for patch in (2, 4, 8)
    },
    "dit-tiny": Preset(DiT, (1, 8, 8), settings={"width": 96, "blocks": 4, "heads": 4, "features": 64}),
}
"""``PRESETS[name](shape, classes=0, **settings)`` is the network."""
