"""The network of the classifier: three levels of convolutions, and a vector of each picture from which classes are told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from cmcore.backend import namespace
from cmcore.networks import Architecture, Part
from cmcore.networks.layers import Conv, GroupNorm, Linear, Resample, SiLU
from cmcore.types import Array

LEVELS = 3


@dataclass(frozen=True)
class ClassifierNetwork(Architecture):
    """Pictures (B, C, H, W) -> (B, width + classes): ``width`` features, then the logits, a linear function of them.

    H and W are divisible by four. Each level has two 3 x 3 convolutions, each after a norm and a SiLU but the first, and half
    the side of the one before; the features are the SiLU of a linear function of the last level's means.
    """

    shape: tuple[int, ...]
    classes: int = 10
    width: Annotated[int, "number of features"] = 64
    channels: Annotated[tuple[int, ...], "channels of each level"] = (24, 48, 96)

    kind: ClassVar[str] = "classifier"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.shape) != 3 or any(side % 2 ** (LEVELS - 1) for side in self.shape[1:]):
            raise ValueError(f"A classifier needs pictures (C, H, W) whose sides are divisible by 4, got {self.shape}.")
        if self.classes < 2 or self.width < 1 or len(self.channels) != LEVELS:
            raise ValueError(
                f"A classifier has at least two classes, a feature and {LEVELS} numbers of channels, got {self.classes}, "
                f"{self.width} and {self.channels}."
            )

    def part(self) -> Part:
        """Return the network."""
        return Levels(self)


class Levels(Part):
    """`ClassifierNetwork`."""

    def __init__(self, settings: ClassifierNetwork) -> None:
        c_in, self.convs, self.norms = settings.shape[0], [], []
        for c in settings.channels:
            self.convs += [Conv(c_in, c, gain=2**0.5), Conv(c, c, gain=2**0.5)]
            self.norms += [GroupNorm(c, 4), GroupNorm(c, 4)]
            c_in = c
        self.shrink, self.silu = Resample(up=False), SiLU()
        self.features, self.logits = Linear(c_in, settings.width), Linear(settings.width, settings.classes)

    def __call__(self, x: Array, c_noise: Array | None = None) -> Array:
        """Return features and logits, (B, width + classes); ``c_noise`` is not looked at."""
        h = self.enter(x)
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            h = self.silu(norm(conv(self.shrink(h) if i in (2, 4) else h)))
        tokens = self.tokens(h)
        features = self.silu(self.features(namespace(tokens).mean(tokens, axis=1)))
        return self.concat(features, self.logits(features))
