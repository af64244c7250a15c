"""What the methods share whose times are standard deviations of noise: they reach up to t_max, where sampling starts."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cmcore import grids, sampling
from cmcore.backend import Array, Network
from cmcore.grids import TimePair
from cmcore.losses import ConsistencyFn
from cmcore.options import option
from cmcore.parametrization import EDM, Boundary, ConsistencyFunction
from cmcore.paths import VE, Path
from cmcore.recipes.part import IdentityAtLeastTime, LeastTime, Part
from cmcore.recipes.recipe import WELL_BELOW, Recipe
from cmcore.sampling import Noise


@dataclass(frozen=True)
class GreatestTime(Part):
    """Times are standard deviations of noise up to ``t_max``, where sampling starts.

    Where sigma_data, or the root mean square of a trainer's first batch, is more than a tenth of t_max, or sigma_data less than
    ten times a t_min, a warning says so.
    """

    t_max: float = option(grids.T_MAX, "the time at which sampling starts")

    def check(self) -> None:
        """Raise `ValueError` for times that cannot be; warn of data on a scale that they are not made for."""
        grids.check_range(self.lowest_time, self.t_max)
        if self.sigma_data > self.largest:
            warnings.warn(
                f"sigma_data={self.sigma_data:g} is not well below t_max={self.t_max:g}: samples start from noise in which such "
                "data can still be seen. Scale the data to a standard deviation of about 0.5 (or raise t_max).",
                stacklevel=4,
            )
        if isinstance(self, LeastTime | IdentityAtLeastTime) and self.sigma_data < self.t_min * WELL_BELOW:
            warnings.warn(
                f"sigma_data={self.sigma_data:g} is not well above t_min={self.t_min:g}: the least noise hides what such data hold. "
                "Scale the data to a standard deviation of about 0.5 (or lower t_min).",
                stacklevel=4,
            )

    @property
    def highest_time(self) -> float:
        """Return t_max."""
        return self.t_max

    @property
    def largest(self) -> float:
        """Return a tenth of t_max."""
        return self.t_max / WELL_BELOW

    def times(self, steps: int) -> tuple[float, ...]:
        """Return the default times of a sampler with that many steps: down from t_max on a Karras grid.

        The last of several is sigma_data, where signal and noise are equally strong: below it there is little left to
        mend, and above it an evaluation undoes more than it mends.
        """
        return down_to(steps, self.sigma_data, self.t_max)


@dataclass(frozen=True)
class NoiseLevel(GreatestTime, Recipe):
    """A method on the path ``x_0 + t z``, whose network is a consistency function or EDM's denoiser."""

    def parametrization(self) -> EDM | Boundary:
        """Return the scalings under which the trained network is used."""
        return Boundary(self.sigma_data, self.identity_at) if self.identity_at else EDM(self.sigma_data)

    def function(self, net: Network) -> Any:
        """Return the network as the function this recipe trains: a consistency function, or EDM's denoiser."""
        return ConsistencyFunction(net, self.parametrization())

    @property
    def path(self) -> Path:
        """Return ``x_0 + t z``."""
        return VE()

    @property
    def network_kind(self) -> str:
        """Return that of EDM's networks."""
        return "edm"

    @property
    def parametrization_data(self) -> dict[str, Any]:
        """Return the scalings as plain data."""
        return {"kind": type(self.parametrization()).__name__, **asdict(self.parametrization())}

    def time_inputs(self, times: TimePair) -> tuple[Array, ...]:
        """Return c_noise."""
        return (self.parametrization().scalings(times.t).c_noise,)

    def sample(
        self, net: Network, z: Array, times: Sequence[float], noise: Noise, cond: Mapping[str, Array] | None = None
    ) -> Array:
        """Turn standard normal z into samples by multistep consistency sampling."""
        return sampling.multistep(self.function(net), z, times, noise, self.identity_at, cond=cond)

    def consistency(self, net: Network) -> ConsistencyFn:
        """Return the consistency function itself, or a flow map's jumps to `arrival`."""
        f = self.function(net)
        return (lambda x, t, **cond: f(x, t, self.arrival, **cond)) if self.two_times else f

    @property
    def arrival(self) -> float:
        """Return the time at which it is the identity; a flow map's lowest."""
        return self.lowest_time if self.two_times else self.identity_at


def down_to(steps: int, last: float, t_max: float) -> tuple[float, ...]:
    """Return the Karras grid of ``steps`` points from t_max down to ``last``; for one step, t_max alone."""
    if steps < 1:
        raise ValueError(f"Sampling needs at least one step, got {steps}.")
    if steps == 1:
        return (t_max,)
    if not last < t_max:
        raise ValueError(f"By default the last of several steps is at t = {last}, which is not below t_max = {t_max}.")
    return tuple(float(t) for t in grids.karras_host(steps, last, t_max)[::-1])
