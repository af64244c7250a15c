"""What all oracles share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from cmcore.backend import Array
from cmcore.errors import Error
from cmcore.types import GivenTime, Samples


class Oracle(ABC):
    """A distribution of the data with a known score and denoiser and, unless `flow` says otherwise, a known flow map."""

    sample: Callable[..., Array]
    """``sample(...)`` returns data made of the random numbers that it is given."""

    @abstractmethod
    def score(self, x: Samples, t: GivenTime) -> Samples:
        """Return ``grad_x log p_t(x)``."""

    @abstractmethod
    def denoiser(self, x: Samples, t: GivenTime) -> Samples:
        """Return ``E[x_0 | x_t = x]``."""

    def flow(self, x: Samples, t: GivenTime, s: GivenTime) -> Samples:
        """Return the point at time s of the probability-flow ODE's trajectory through x at time t."""
        raise Error(
            f"The flow map of this {type(self).__name__} has no closed form; follow its denoiser with "
            "cmcore.solvers.solve, or build the distribution from one-dimensional ones with Product and Rotated."
        )

    def consistency(self, x: Samples, t: GivenTime, t_min: GivenTime = 0.002) -> Samples:
        """Return the exact consistency function at (x, t): the trajectory's point at time t_min."""
        return self.flow(x, t, t_min)
