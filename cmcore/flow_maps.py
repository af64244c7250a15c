"""Flow maps ``X(x, t, s)``, which carry a point from time t to time s of the probability-flow ODE, and what makes them so.

A network becomes one by way of a form with ``X(x, t, t) = x`` for every network: `AverageVelocity`, whose network is the
mean velocity of the way from t to s (MeanFlow, shortcut models, AYF), or `TowardDenoiser` (CTM). Three identities, each of
which is zero everywhere if and only if X is the ODE's flow map, are functions of their own: `eulerian`, `lagrangian`,
`semigroup`. Times are numbers or arrays () or (B,), and reach a map and a velocity as (B,); x is (B, ...). What does not fit,
and what a map or a velocity returns in another shape than x's, is a `ValueError` or `TypeError`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cmcore._arrays import (
    Time,
    as_own_times,
    as_times,
    check_above_zero,
    check_output,
    check_state,
    conditions,
    per_sample,
)
from cmcore.backend import Array, Network, jvp, namespace
from cmcore.grids import TimePair, check_pair
from cmcore.parametrization import EDM, ConsistencyFunction

FlowMap = Callable[..., Array]
"""``X(x, t, s, **cond)``, shaped like x."""
Velocity = Callable[[Array, Array], Array]
"""``v(x, t)``, the ODE's right-hand side, shaped like x."""


@dataclass(frozen=True, eq=False)  # torch.compile before 2.13 calls no object whose hash is of its fields
class AverageVelocity:
    """``X(x, t, s) = x - (t - s) u(x, t, s)`` with ``u = net(x, t, c_end=t - s)`` (Geng et al. 2025, section 4).

    At s = t, u is the velocity v(x, t). The network is told the length of the way, t - s.
    """

    net: Network

    def velocity(self, x: Array, t: Time, s: Time, **cond: Any) -> Array:
        """Return u, the mean velocity on the way from t to s, shaped like x."""
        check_state(x)
        t, s = as_times(t, x), as_times(s, x, "s")
        return check_output(self.net(x, t, c_end=t - s, **cond), x)

    def __call__(self, x: Array, t: Time, s: Time, **cond: Any) -> Array:
        """Return X(x, t, s), shaped like x."""
        check_state(x)
        t, s = as_times(t, x), as_times(s, x, "s")
        return x - per_sample(t - s, x) * self.velocity(x, t, s, **cond)


@dataclass(frozen=True, eq=False)  # torch.compile before 2.13 calls no object whose hash is of its fields
class TowardDenoiser:
    """``G(x, t, s) = (s / t) x + (1 - s / t) g(x, t, s)`` on the path ``x_0 + t z`` (CTM; Kim et al. 2024, equation 9).

    g has EDM's scalings; at s = t it is the denoiser D(x, t). The network's second input is ``ln(s) / 4``.
    """

    net: Network
    sigma_data: float = 0.5

    def inner(self, x: Array, t: Time, s: Time, **cond: Any) -> Array:
        """Return g(x, t, s), shaped like x."""
        check_state(x)
        scalings = EDM(self.sigma_data)
        c_end = scalings.scalings(as_times(s, x, "s")).c_noise
        return ConsistencyFunction(self.net, scalings)(x, t, c_end=c_end, **cond)

    def __call__(self, x: Array, t: Time, s: Time, **cond: Any) -> Array:
        """Return G(x, t, s), shaped like x; t must be positive."""
        check_state(x)
        check_above_zero(t, x, "A flow map toward the denoiser")
        ratio = per_sample(as_times(s, x, "s") / as_times(t, x), x)
        return ratio * x + (1.0 - ratio) * self.inner(x, t, s, **cond)


def eulerian(flow_map: FlowMap, velocity: Velocity, x: Array, t: Time, s: Time) -> Array:
    """Return ``d_t X(x, t, s) + (grad_x X) v(x, t)``: moving the start along the ODE must not move the end."""
    check_state(x)
    t, s = as_own_times(t, x), as_times(s, x, "s")
    along = (_velocity(velocity, x, t), namespace(t).ones_like(t))
    return jvp(lambda x, t: _end(flow_map, x, t, s), (x, t), along)[1]


def lagrangian(flow_map: FlowMap, velocity: Velocity, x: Array, t: Time, s: Time) -> Array:
    """Return ``d_s X(x, t, s) - v(X(x, t, s), s)``: the end must move along the ODE."""
    check_state(x)
    t, s = as_times(t, x), as_own_times(s, x, "s")
    end, speed = jvp(lambda s: _end(flow_map, x, t, s), (s,), (namespace(s).ones_like(s),))
    return speed - _velocity(velocity, end, s)


def semigroup(flow_map: FlowMap, x: Array, t: Time, u: Time, s: Time) -> Array:
    """Return ``X(X(x, t, u), u, s) - X(x, t, s)``: a stop on the way must not change the end."""
    check_state(x)
    t, u, s = as_times(t, x), as_times(u, x, "u"), as_times(s, x, "s")
    return _end(flow_map, _end(flow_map, x, t, u), u, s) - _end(flow_map, x, t, s)


def average_velocity_by(
    flow_map: AverageVelocity, x: Array, times: TimePair, split: Array, cond: Mapping[str, Array] | None = None
) -> Array:
    """Return the mean velocity of the way from t to s by the point that divides it in the ratio ``split``, (B,).

    ``u(t, s) = split u(x_t, t, m) + (1 - split) u(x_m, m, s)`` with ``m = t - split (t - s)`` (Guo et al. 2025, eq. 8).
    """
    check_pair(times, "times")
    split = as_times(split, x, "split")
    middle, cond = times.t - split * times.gap, conditions(cond)
    first = flow_map.velocity(x, times.t, middle, **cond)
    x_middle = x - per_sample(split * times.gap, x) * first
    second = flow_map.velocity(x_middle, middle, times.r, **cond)
    share = per_sample(split, x)
    return share * first + (1.0 - share) * second


def _end(flow_map: FlowMap, x: Array, t: Array, s: Array) -> Array:
    return check_output(flow_map(x, t, s), x, "The flow map")


def _velocity(velocity: Velocity, x: Array, t: Array) -> Array:
    return check_output(velocity(x, t), x, "The velocity")
