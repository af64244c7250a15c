"""The averaged target network of the methods whose curriculum is nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from cmcore.options import BELOW_ONE, option
from cmcore.recipes.recipe import Recipe


@dataclass(frozen=True)
class AveragedTarget(Recipe):
    """The target is an average of the network with constant decay ``mu``."""

    mu: float = option(0.999, "decay of the target network", BELOW_ONE)

    @property
    def keep_target(self) -> bool:
        """Whether mu > 0."""
        return self.mu > 0

    def curriculum(self, step: int, total: int) -> dict[str, float]:
        """Return the constant decay."""
        return {"target_decay": self.mu}
