"""How a network is optimised: settings and host-side schedules; each backend applies them with its framework's optimisers."""

from __future__ import annotations

import math
from dataclasses import dataclass

ALGORITHMS = ("radam", "adam", "adamw")


@dataclass(frozen=True)
class Optimizer:
    """Settings of the optimiser and of the average that is kept for evaluation.

    The learning rate rises linearly over ``warmup`` steps and, where ``decay`` is True, falls to zero along a half cosine
    over the rest of the run. ``clip`` bounds the global gradient norm (0: no clipping). ``ema`` is the decay of the
    exponential moving average; early in a run it is shortened to ``(1 + k) / (10 + k)`` at step k so that the average
    forgets the random initial weights.
    """

    algorithm: str = "radam"
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    warmup: int = 0
    decay: bool = False
    clip: float = 0.0
    ema: float = 0.999

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise ValueError(f"Unknown optimiser {self.algorithm!r}; choose one of {', '.join(ALGORITHMS)}.")
        if not self.lr > 0:
            raise ValueError(f"The learning rate must be positive, got {self.lr}.")
        if not 0 <= self.ema < 1:
            raise ValueError(f"The decay of the moving average must be in [0, 1), got {self.ema}.")
        if self.weight_decay and self.algorithm != "adamw":
            raise ValueError(f"Weight decay belongs to adamw, not to {self.algorithm}.")

    def scalars(self, step: int, total: int) -> dict[str, float]:
        """Return the learning rate and the average's decay at a step (counted from 0) of a run of ``total`` steps."""
        rate = self.lr * min(1.0, (step + 1) / self.warmup) if self.warmup else self.lr
        if self.decay:
            done = max(0, step - self.warmup) / max(1, total - self.warmup)
            rate *= 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        return {"lr": rate, "ema_decay": min(self.ema, (1 + step) / (10 + step))}
