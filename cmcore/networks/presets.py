"""Networks by name: the published ones with their programs' settings, and such as a CPU trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from cmcore.networks.architecture import Architecture
from cmcore.networks.unet import UNet

Preset = Callable[..., Architecture]
"""Makes a network for data of a shape: ``preset(shape, classes=0, **settings)``."""


def _unet(shape: tuple[int, ...], classes: int = 0, *, preset: Mapping[str, Any], **settings: Any) -> Architecture:
    return UNet(shape, **{**preset, "classes": classes, **settings})


_ADM = {"attention": (2, 4, 8), "times": "sinusoidal", "group_channels": 1}
_SONG = {
    "width": 128, "multipliers": (2, 2, 2), "blocks": 4, "attention": (2,), "attend_last": True, "head_channels": 0,
    "label_early": True, "scale_shift": False, "skip_conv": True, "skip_scale": 0.5**0.5, "eps": 1e-6, "sine_first": True,
}  # fmt: skip

PRESETS: dict[str, Preset] = {
    "adm-imagenet64": partial(_unet, preset=_ADM | {"width": 192, "multipliers": (1, 2, 3, 4), "blocks": 3}),
    "adm-lsun256": partial(
        _unet,
        preset=_ADM | {"width": 256, "multipliers": (1, 1, 2, 2, 4, 4), "attention": (8, 16, 32), "scale_shift": False},
    ),
    "ddpmpp-cifar10": partial(_unet, preset=_SONG | {"times": "sinusoidal-end"}),
    "ncsnpp-cifar10": partial(
        _unet,
        preset=_SONG | {"times": "fourier", "features": 2, "taps": (1.0, 3.0, 3.0, 1.0), "residual": True},
    ),
    "unet-tiny": partial(_unet, preset={"width": 32, "multipliers": (1, 2), "blocks": 1, "attention": (2,)}),
    "unet-small": partial(_unet, preset={"width": 64, "multipliers": (1, 2, 2), "blocks": 2, "attention": (4,)}),
}
"""Sources: Dhariwal & Nichol (2021, arXiv:2105.05233) and Song et al. (2023, arXiv:2303.01469, ADM); Song et al. (2021,
arXiv:2011.13456) and Karras et al. (2022, arXiv:2206.00364; DDPM++ and NCSN++)."""
