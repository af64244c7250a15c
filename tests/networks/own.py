"""Networks of one's own to test with: the example's, and one that has every layer."""

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

from cmcore.networks import (
    Architecture,
    Attention,
    Conv,
    Dropout,
    Embedding,
    Fourier,
    GroupNorm,
    LayerNorm,
    Linear,
    LogWeight,
    Part,
    Resample,
    SiLU,
    Weight,
)

EXAMPLE = Path(__file__).parents[2] / "examples" / "new_network.py"


def _example():
    spec = importlib.util.spec_from_file_location("new_network_example", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


Patches = _example().Patches


@dataclass(frozen=True)
class EveryLayer(Architecture):
    shape: tuple[int, ...] = (2, 4, 4)
    classes: int = 3
    width: int = 4
    rate: float = 0.3

    kind = "every-layer"

    def part(self):
        return All(self)


class All(Part):
    def __init__(self, settings):
        width = settings.width
        self.phi, self.time, self.silu = Fourier((1.0, 2.5)), Linear(4, width, bias=False), SiLU()
        self.log_weight = LogWeight((1.0, 2.0))
        self.label = Embedding(settings.classes, width)
        self.stem, self.norm = Conv(settings.shape[0], width), GroupNorm(width, 2)
        self.drops = {
            "rows": Dropout(settings.rate),
            "images": Dropout(settings.rate),
            "before": Dropout(settings.rate),
        }
        self.down, self.up = Resample(up=False, taps=(1, 3, 3, 1)), Resample(up=True, taps=(1, 3, 3, 1))
        self.pool, self.enlarge = Resample(up=False), Resample(up=True)
        self.positions, self.plain = Weight((4, width), std=0.5), LayerNorm(width, affine=False)
        # Not in the order of the alphabet.
        self.qkv = {name: Linear(width, width) for name in ("q", "k", "v")}
        self.attention, self.affine = Attention(2), LayerNorm(width)
        self.modulation = (Linear(width, 2 * width),)
        self.head = Conv(2 * width, settings.shape[0], kernel=1, gain=0.5)

    def __call__(self, x, c_noise, label=None, dropout=None):
        e = self.drops["rows"](self.silu(self.time(self.phi(c_noise)) + self.label(label)), dropout)
        skip = self.stem(self.enter(x))
        h = self.drops["images"](self.silu(self.norm(skip)), dropout)
        h = self.down(h) + self.pool(h)
        tokens = self.tokens(h) + self.positions()
        normal = self.plain(tokens)
        mixed = self.attention(*(self.qkv[name](normal) for name in ("q", "k", "v")))
        scale, shift = self.halves(self.per_channel(self.modulation[0](e), tokens))
        tokens = self.affine(tokens + self.drops["before"](mixed, dropout)) * (1 + scale) + shift
        h = self.untokens(tokens, h)
        h = self.up(h) + self.enlarge(h * self.per_channel(e, h))
        return self.leave(self.head(self.concat(h, skip)))
