"""How a network is optimised: settings and host-side schedules; each backend applies them with its framework's optimisers."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from cmcore._options import check_kind
from cmcore._words import choice
from cmcore.options import AT_LEAST_ZERO, POSITIVE, option, options_of

ALGORITHMS = ("radam", "adam", "adamw")


@dataclass(frozen=True)
class Optimizer:
    """Settings of the optimiser.

    The learning rate rises linearly over ``warmup`` steps and, where ``decay`` is True, falls to zero along a half cosine
    over the rest of the run. ``clip`` bounds the global gradient norm (0: no clipping).
    """

    algorithm: str = option("radam", "the optimiser", ALGORITHMS)
    lr: float = option(1e-3, "the learning rate", POSITIVE)
    betas: tuple[float, float] = option((0.9, 0.999), "the moments' decays, each in [0, 1)")
    eps: float = option(1e-8, "the optimiser's eps", POSITIVE)
    weight_decay: float = option(0.0, "the weight decay", AT_LEAST_ZERO)
    warmup: int = option(0, "the number of warm-up steps", AT_LEAST_ZERO)
    decay: bool = option(False, "whether the learning rate falls to 0 along a half cosine")
    clip: float = option(0.0, "the bound of the gradient norm", AT_LEAST_ZERO)

    def __post_init__(self) -> None:
        for setting in fields(self):
            check_kind(f"The optimiser's {setting.name}", getattr(self, setting.name), type(setting.default))
        if self.algorithm not in ALGORITHMS:
            raise ValueError(
                f"Unknown optimiser {self.algorithm!r}; {choice(self.algorithm, ALGORITHMS, 'choose one of')}"
            )
        for name, declared in options_of(self).items():
            if declared.limit and not declared.limit.holds(_number(self, name)):
                what = declared.help[0].upper() + declared.help[1:]
                raise ValueError(f"{what} must be {declared.limit.words}, got {getattr(self, name)}.")
        if not (isinstance(self.betas, (tuple, list)) and len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas)):
            raise ValueError(f"The betas must be two numbers in [0, 1), such as (0.9, 0.999), got {self.betas!r}.")
        if self.weight_decay and self.algorithm != "adamw":
            raise ValueError(f"Weight decay belongs to adamw, not to {self.algorithm}.")

    def scalars(self, step: int, total: int) -> dict[str, float]:
        """Return the learning rate at a step (counted from 0) of a run of ``total`` steps, as a train step reads it."""
        rate = self.lr * min(1.0, (step + 1) / self.warmup) if self.warmup else self.lr
        if self.decay:
            done = max(0, step - self.warmup) / max(1, total - self.warmup)
            rate *= 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        return {"lr": rate}


def radam_factors(step: int, betas: tuple[float, float]) -> tuple[float, float]:
    """Return what rectified Adam multiplies at step t, counted from 1: ``1 / (1 - b1^t)`` and the rectified ``1 / (sqrt(v) + eps)``.

    The second is 0 while the variance is not tractable: then the step is the first times the moment, without adaptation (Liu et
    al., ICLR 2020, algorithm 2, as PyTorch computes it). For a framework without RAdam; in float32 the formula loses all digits.
    """
    b1, b2 = betas
    limit = 2 / (1 - b2) - 1
    length = limit - 2 * step * b2**step / (1 - b2**step)
    if length <= 5:
        return 1 / (1 - b1**step), 0.0
    rectified = (length - 4) * (length - 2) * limit / ((limit - 4) * (limit - 2) * length)
    return 1 / (1 - b1**step), math.sqrt(rectified * (1 - b2**step))


def _number(optimizer: Optimizer, name: str) -> float:
    value = getattr(optimizer, name)
    if math.isinf(value):
        raise ValueError(f"The optimiser's {name} must be finite, got {value}.")
    return float(value)
