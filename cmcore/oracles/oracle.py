"""What all oracles share."""

from __future__ import annotations

from collections.abc import Callable

from cmcore._arrays import Time
from cmcore.backend import Array
from cmcore.errors import Error


class Oracle:
    """A law of the data with a known score and denoiser and, unless `flow` says otherwise, a known flow map."""

    sample: Callable[..., Array]
    """``sample(...)`` returns data made of the random numbers that it is given."""

    def score(self, x: Array, t: Time) -> Array:
        """Return ``grad_x log p_t(x)``."""
        raise NotImplementedError

    def denoiser(self, x: Array, t: Time) -> Array:
        """Return ``E[x_0 | x_t = x]``."""
        raise NotImplementedError

    def flow(self, x: Array, t: Time, s: Time) -> Array:
        """Return the point at time s of the probability-flow ODE's trajectory through x at time t."""
        raise Error(
            f"The flow map of this {type(self).__name__} has no closed form; follow its denoiser with "
            "cmcore.solvers.solve, or build the law from one-dimensional ones with Product and Rotated."
        )

    def consistency(self, x: Array, t: Time, t_min: Time = 0.002) -> Array:
        """Return the exact consistency function at (x, t): the trajectory's point at time t_min."""
        return self.flow(x, t, t_min)
