"""What recipes are put together from: groups of options that belong together, each a frozen dataclass with what they mean."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from cmcore import distances, grids, weightings
from cmcore.backend import Array
from cmcore.grids import TimePair
from cmcore.options import BELOW_ONE, NOT_NEGATIVE, function_of, option

DISTANCES: dict[str, distances.Distance] = {
    "l1": distances.l1,
    "squared_l2": distances.squared_l2,
    "pseudo_huber": distances.PseudoHuber(),
    "norm": distances.PseudoHuber(1e-8),
    "elementwise_pseudo_huber": distances.ElementwisePseudoHuber(),
}
WEIGHTINGS: dict[str, weightings.Weighting] = {
    "uniform": weightings.uniform,
    "snr": weightings.snr,
    "snr_plus_one": weightings.snr_plus_one,
    "truncated_snr": weightings.truncated_snr,
    "karras": weightings.karras,
    "inverse_gap": weightings.inverse_gap,
    "inverse_root_gap": weightings.inverse_root_gap,
    "inverse_c_out": weightings.inverse_c_out,
}


class Part:
    """What a part may say of a method, and what holds where none does; so the order of a recipe's bases does not matter.

    A part's own ``check`` raises `ValueError` for options that do not go together; each class's is called.
    """

    name: ClassVar[str]
    sigma_data: float
    teachers: ClassVar[tuple[str, ...]] = ()
    """The recipes that a teacher may have been trained with; none: the method takes no teacher."""
    learned_weight: bool = False
    """Whether the network learns how much each time counts."""

    def check(self) -> None:
        """Raise `ValueError` for options that do not go together."""

    @property
    def keep_target(self) -> bool:
        """Whether the target is an averaged copy of the network rather than the network itself."""
        return False

    @property
    def identity_at(self) -> float:
        """The time at which the function is the identity: 0, as under EDM's scalings, or a t_min."""
        return 0.0

    @property
    def lowest_time(self) -> float:
        """Return the lowest time that the network is trained to start from."""
        return grids.T_MIN

    def curriculum(self, step: int, total: int) -> dict[str, float]:
        """Return the values that change during training (N, mu, stage) at a step of a run of ``total`` steps."""
        return {}

    def weight(self, times: TimePair) -> Array | float:
        """Return how much each pair of times counts, (B,) or one number for all."""
        return 1.0


def learned_weight(default: bool = False) -> Any:
    """Declare the option by which a network learns how much each time counts."""
    return option(default, "learn how much each time counts (Karras et al. 2024)")


@dataclass(frozen=True)
class LeastTime(Part):
    """The grid of times ends at ``t_min``; the function is the identity at 0."""

    t_min: float = option(grids.T_MIN, "the least time of the grid")

    @property
    def lowest_time(self) -> float:
        """Return t_min."""
        return self.t_min


@dataclass(frozen=True)
class IdentityAtLeastTime(Part):
    """The function is the identity at ``t_min`` (Song et al. 2023)."""

    t_min: float = option(grids.T_MIN, "the time at which the function is the identity")

    @property
    def lowest_time(self) -> float:
        """Return t_min."""
        return self.t_min

    @property
    def identity_at(self) -> float:
        """Return t_min."""
        return self.t_min


@dataclass(frozen=True)
class Compared(Part):
    """An output is compared with its target by a ``distance``, one of `DISTANCES` or a function ``distance(x, y) -> (B,)``."""

    distance: str | distances.Distance = option(
        "squared_l2", "the distance of an output to its target", DISTANCES, functions=True
    )
    huber_c: float = option(
        0.0, "c of the pseudo-Huber distances and of the norm; 0: 0.00054 sqrt(D), 0.03 by elements, 1e-8", NOT_NEGATIVE
    )

    def compare(self, x: Array, y: Array) -> Array:
        """Return the distance of each sample, (B,)."""
        distance = function_of(self.distance, DISTANCES)
        if self.huber_c and isinstance(distance, distances.PseudoHuber | distances.ElementwisePseudoHuber):
            distance = replace(distance, c=self.huber_c)
        return distance(x, y)


@dataclass(frozen=True)
class Weighted(Part):
    """Pairs of noise levels count by a ``weighting``, and by what the network may learn.

    It is one of `WEIGHTINGS` or a function ``weighting(times, sigma_data) -> (B,)`` of a `cmcore.grids.TimePair`.
    """

    weighting: str | weightings.Weighting = option(
        "uniform", "how much each pair of times counts", WEIGHTINGS, functions=True
    )
    learned_weight: bool = learned_weight()

    def weight(self, times: TimePair) -> Array:
        """Return the weighting of each pair, (B,)."""
        return function_of(self.weighting, WEIGHTINGS)(times, self.sigma_data)


@dataclass(frozen=True)
class AveragedTarget(Part):
    """The target is an average of the network with constant decay ``mu``."""

    mu: float = option(0.999, "decay of the target network", BELOW_ONE)

    @property
    def keep_target(self) -> bool:
        """Whether mu > 0."""
        return self.mu > 0

    def curriculum(self, step: int, total: int) -> dict[str, float]:
        """Return the constant decay."""
        return {"target_decay": self.mu}


def tangent_warmup(step: int, steps: int, most: float = 1.0) -> dict[str, float]:
    """Return the share of a tangent's unstable part, which rises to ``most`` in so many steps."""
    return {"tangent_warmup": min(most, (step + 1) / max(1, steps))}
