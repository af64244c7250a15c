"""Flow maps ``X(x, t, s)``, which carry a point from time t to time s of the probability-flow ODE, and what makes them so.

A network becomes one by a parametrisation with ``X(x, t, t) = x`` for every network: `AverageVelocity`, whose network is the
average velocity over the interval from t to s (MeanFlow, shortcut models, AYF), or `TowardDenoiser` (CTM). Three identities, each of
which is zero everywhere if and only if X is the ODE's flow map, are functions of their own: `eulerian`, `lagrangian`,
`semigroup`. Times are numbers or arrays () or (B,), and reach a map and a velocity as (B,); x is (B, ...). What does not fit,
and what a map or a velocity returns in another shape than x's, is a `ValueError` or `TypeError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from cmcore._annotations import AboveZero
from cmcore._arrays import check_output, conditions, per_sample
from cmcore._door import check_arguments
from cmcore.backend import Array, Network, jvp, namespace
from cmcore.parametrization import EDM, ConsistencyFunction
from cmcore.types import FlowMap as FlowMap
from cmcore.types import OwnTime, Samples, Share, Time, TimePair
from cmcore.types import Velocity as Velocity


@dataclass(frozen=True, eq=False)  # torch.compile before 2.13 calls no object whose hash is of its fields
class AverageVelocity:
    """``X(x, t, s) = x - (t - s) u(x, t, s)`` with ``u = net(x, t, c_end=t - s)`` (Geng et al. 2025, section 4).

    At s = t, u is the velocity v(x, t). The network is told the length of the interval, t - s.
    """

    net: Network

    def velocity(self, x: Samples, t: Time, s: Time, **cond: Any) -> Samples:
        """Return u, the average velocity over the interval from t to s, shaped like x."""
        return self._velocity(x, t, s, **cond)

    def __call__(self, x: Samples, t: Time, s: Time, **cond: Any) -> Samples:
        """Return X(x, t, s), shaped like x."""
        return x - per_sample(t - s, x) * self._velocity(x, t, s, **cond)

    def _velocity(self, x: Array, t: Array, s: Array, **cond: Any) -> Array:
        return check_output(self.net(x, t, c_end=t - s, **cond), x)


@dataclass(frozen=True, eq=False)  # torch.compile before 2.13 calls no object whose hash is of its fields
class TowardDenoiser:
    """``G(x, t, s) = (s / t) x + (1 - s / t) g(x, t, s)`` on the path ``x_0 + t z`` (CTM; Kim et al. 2024, equation 9).

    g has EDM's scalings; at s = t it is the denoiser D(x, t). The network's second input is ``ln(s) / 4``.
    """

    net: Network
    sigma_data: float = 0.5

    def inner(self, x: Samples, t: Time, s: Time, **cond: Any) -> Samples:
        """Return g(x, t, s), shaped like x."""
        return self._inner(x, t, s, **cond)

    def __call__(
        self, x: Samples, t: Annotated[Time, AboveZero("A flow map toward the denoiser")], s: Time, **cond: Any
    ) -> Samples:
        """Return G(x, t, s), shaped like x; t must be positive."""
        ratio = per_sample(s / t, x)
        return ratio * x + (1.0 - ratio) * self._inner(x, t, s, **cond)

    def _inner(self, x: Array, t: Array, s: Array, **cond: Any) -> Array:
        scalings = EDM(self.sigma_data)
        return ConsistencyFunction(self.net, scalings)(x, t, c_end=scalings.scalings(s).c_noise, **cond)


def eulerian(flow_map: FlowMap, velocity: Velocity, x: Samples, t: OwnTime, s: Time) -> Samples:
    """Return ``d_t X(x, t, s) + (grad_x X) v(x, t)``: moving the start along the ODE must not move the end."""
    along = (velocity(x, t), namespace(t).ones_like(t))
    return jvp(lambda x, t: flow_map(x, t, s), (x, t), along)[1]


def lagrangian(flow_map: FlowMap, velocity: Velocity, x: Samples, t: Time, s: OwnTime) -> Samples:
    """Return ``d_s X(x, t, s) - v(X(x, t, s), s)``: the end must move along the ODE."""
    end, speed = jvp(lambda s: flow_map(x, t, s), (s,), (namespace(s).ones_like(s),))
    return speed - velocity(end, s)


def semigroup(flow_map: FlowMap, x: Samples, t: Time, u: Time, s: Time) -> Samples:
    """Return ``X(X(x, t, u), u, s) - X(x, t, s)``: a stop between must not change the end."""
    return flow_map(flow_map(x, t, u), u, s) - flow_map(x, t, s)


def average_velocity_by(
    flow_map: AverageVelocity, x: Samples, times: TimePair, split: Share, cond: Mapping[str, Array] | None = None
) -> Samples:
    """Return the average velocity from t to s by the point that divides the interval in the ratio ``split``, (B,).

    ``u(t, s) = split u(x_t, t, m) + (1 - split) u(x_m, m, s)`` with ``m = t - split (t - s)`` (Guo et al. 2025, eq. 8).
    """
    middle, cond = times.t - split * times.gap, conditions(cond)
    first = flow_map.velocity(x, times.t, middle, **cond)
    x_middle = x - per_sample(split * times.gap, x) * first
    second = flow_map.velocity(x_middle, middle, times.r, **cond)
    share = per_sample(split, x)
    return share * first + (1.0 - share) * second


check_arguments(__name__)
