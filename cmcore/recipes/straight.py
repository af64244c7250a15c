"""What the flow maps on the straight path ``(1 - t) x_0 + t z`` share: the network is an average velocity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cmcore import sampling
from cmcore.backend import Array, Network, namespace
from cmcore.flow_maps import AverageVelocity
from cmcore.grids import TimePair
from cmcore.losses import ConsistencyFn
from cmcore.options import SHARE, option
from cmcore.paths import VE, Linear, rebased
from cmcore.recipes.part import Part, learned_weight
from cmcore.recipes.recipe import Recipe
from cmcore.sampling import Noise

PATH = Linear()


@dataclass(frozen=True)
class StraightFlowMap(Recipe):
    """The network is the average velocity between t and s.

    Times are the path's, from 1, noise, to 0, data. ``r`` of a pair is the time s that the map leads to.
    """

    learned_weight: bool = learned_weight()

    two_times = True

    @property
    def lowest_time(self) -> float:
        """Return 0, where the data are."""
        return 0.0

    @property
    def highest_time(self) -> float:
        """Return 1, where the noise is."""
        return PATH.end

    @property
    def path(self) -> Linear:
        """Return the straight path."""
        return PATH

    @property
    def network_kind(self) -> str:
        """Return that of average velocities."""
        return "velocity"

    @property
    def parametrization_data(self) -> dict[str, Any]:
        """Return that the network is an average velocity."""
        return {"kind": AverageVelocity.__name__}

    def function(self, net: Network) -> AverageVelocity:
        """Return the network as a flow map."""
        return AverageVelocity(net)

    def time_inputs(self, times: TimePair) -> tuple[Array, ...]:
        """Return t and the length of the interval."""
        return times.t, times.gap

    def times(self, steps: int) -> tuple[float, ...]:
        """Return ``steps + 1`` equally spaced times from 1 to 0."""
        if steps < 1:
            raise ValueError(f"Sampling needs at least one step, got {steps}.")
        return tuple(1.0 - i / steps for i in range(steps + 1))

    def sample(
        self, net: Network, z: Array, times: Sequence[float], noise: Noise, cond: Mapping[str, Array] | None = None
    ) -> Array:
        """Jump from time to time; no noise is added between."""
        if (times[0], times[-1]) != (1.0, 0.0):
            raise ValueError(f"On the straight path times go from 1, noise, to 0, data; got {list(times)}.")
        return sampling.flow_map(self.function(net), z, times, cond=cond)

    def consistency(self, net: Network) -> ConsistencyFn:
        """Return the flow map's jumps to 0 as a consistency function on `cmcore.paths.VE`."""
        jump = self.function(net)
        return rebased(lambda x, t, **cond: jump(x, t, 0.0, **cond), PATH, VE())

    @property
    def arrival(self) -> float:
        """Return 0."""
        return 0.0


@dataclass(frozen=True)
class SelfDistilled(Part):
    """Two uniform times; a share ``diagonal`` of the samples has s = t, where the target is the sample's velocity (flow matching)."""

    diagonal: float = option(0.75, "share of samples that are flow matching, s = t", SHARE)

    def uniform_times(self, draws: Mapping[str, Array]) -> TimePair:
        """Return two uniform times, the larger t, or the larger alone."""
        xp = namespace(draws["t"])
        t = xp.maximum(draws["t"], draws["s"])
        s = xp.where(draws["diagonal"] < self.diagonal, t, xp.minimum(draws["t"], draws["s"]))
        return TimePair(t, s, t - s)
