"""Networks by the names of their papers, and small ones that a CPU trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cmcore.networks.adapted import Adapted
from cmcore.networks.architecture import Architecture
from cmcore.networks.dit import DiT
from cmcore.networks.unet import UNet


@dataclass(frozen=True)
class Preset:
    """A kind of network with settings of its own; ``shape`` and ``classes`` are those of the data it was published for.

    With ``clock`` it is told the time t as ``clock ln t`` (`Adapted`), without it as EDM's networks are, ``ln(t) / 4``.
    """

    network: type[Architecture]
    shape: tuple[int, ...]
    classes: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    clock: float | None = None

    def __call__(self, shape: tuple[int, ...], classes: int = 0, **settings: Any) -> Architecture:
        """Return the network for data of that shape, other settings in place of its own; what does not fit is a `ValueError`."""
        network = self.network(shape=shape, classes=classes, **{**self.settings, **settings})
        return network if self.clock is None else Adapted(network, "free", "log", (self.clock, 0.0))


_SIZES = {"s": (384, 12, 6), "b": (768, 12, 12), "l": (1024, 24, 16), "xl": (1152, 28, 16)}
"""Width, blocks and heads (Peebles & Xie, 2023, table 1)."""

_ADM = {"attention": (2, 4, 8), "times": "sinusoidal", "group_channels": 1}
_SONG = {
    "width": 128, "multipliers": (2, 2, 2), "blocks": 4, "attention": (2,), "attend_last": True, "head_channels": 0,
    "label_early": True, "scale_shift": False, "skip_conv": True, "skip_scale": 0.5**0.5, "eps": 1e-6, "sine_first": True,
}  # fmt: skip
_LSUN = {"width": 256, "multipliers": (1, 1, 2, 2, 4, 4), "attention": (8, 16, 32), "scale_shift": False}
_TINY = {"width": 32, "multipliers": (1, 2), "blocks": 1, "attention": (2,)}
_PATCHES = {"patch": 2, "width": 64, "multipliers": (1, 2), "blocks": 1, "attention": (2,)}
_NCSN = {"times": "fourier", "features": 2, "taps": (1.0, 3.0, 3.0, 1.0), "residual": True}
"""ADM: Dhariwal & Nichol (2021, arXiv:2105.05233), Song et al. (2023, arXiv:2303.01469); DDPM++ and NCSN++: Song et al. (2021,
arXiv:2011.13456), Karras et al. (2022, arXiv:2206.00364)."""

PRESETS: Mapping[str, Preset] = {
    "adm-imagenet64": Preset(UNet, (3, 64, 64), 1000, _ADM | {"width": 192, "multipliers": (1, 2, 3, 4), "blocks": 3}),
    "adm-lsun256": Preset(UNet, (3, 256, 256), 0, _ADM | _LSUN),
    "ddpmpp-cifar10": Preset(UNet, (3, 32, 32), 0, _SONG | {"times": "sinusoidal-end"}),
    "ncsnpp-cifar10": Preset(UNet, (3, 32, 32), 0, _SONG | _NCSN),
    "unet-small": Preset(UNet, (3, 32, 32)),
    "adm-tiny": Preset(UNet, (3, 32, 32), 0, _ADM | _TINY | {"head_channels": 32}, clock=250.0),
    "unet-tiny": Preset(UNet, (3, 32, 32), 0, _TINY),
    "unet-patches": Preset(UNet, (3, 32, 32), 0, _PATCHES),
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
