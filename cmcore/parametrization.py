"""From a free-form network to a denoiser or a consistency function: what multiplies its input and output.

A parametrisation gives, for times t, the scalings of ``f(x, t) = c_skip x + c_out F(c_in x, c_noise)``, F the network.
`Boundary` and `TrigFlow` with its start at 0 make ``f(x, t_min) = x`` for every network, bit for bit, so that a
consistency function needs no loss for its boundary condition.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, Protocol

from cmcore._annotations import Condition
from cmcore._arrays import check_output, per_sample
from cmcore._door import check_arguments
from cmcore.backend import Array, Network, namespace
from cmcore.options import DEVIATION, Limit, SigmaData
from cmcore.paths import Path, check_end
from cmcore.types import Elements, Samples, Time


class Scalings(NamedTuple):
    """The four factors at times t, each shaped like t."""

    c_skip: Elements
    c_out: Elements
    c_in: Elements
    c_noise: Elements


class Parametrization(Protocol):
    """Anything with the scalings of ``f(x, t) = c_skip x + c_out F(c_in x, c_noise)``, and maybe an ``end``, the last time."""

    def scalings(self, t: Array) -> Scalings:
        """Return the factors at times t."""
        ...


AT_LEAST_ZERO_AND_FINITE = Limit(lambda v: 0 <= v < math.inf, "at least 0, and finite")


@dataclass(frozen=True)
class Boundary:
    """The consistency function's scalings (Song et al. 2023, appendix C; t is the noise's standard deviation)::

        c_skip = sd^2 / ((t - t_min)^2 + sd^2)      c_out = sd (t - t_min) / sqrt(t^2 + sd^2)
        c_in   = 1 / sqrt(t^2 + sd^2)               c_noise = ln(t) / 4

    with sd = sigma_data, the data's standard deviation. At t_min, c_skip is exactly 1 and c_out exactly 0.
    """

    sigma_data: SigmaData = 0.5
    t_min: Annotated[float, AT_LEAST_ZERO_AND_FINITE] = 0.002

    def scalings(self, t: Elements) -> Scalings:
        """Return the factors at times t, each shaped like t."""
        return _boundary(t, self.sigma_data, self.t_min)


@dataclass(frozen=True)
class EDM:
    """The denoiser's scalings (Karras et al. 2022, table 1): `Boundary` with t_min = 0.

    A network under these is a denoiser ``D(x, t)`` and, for ECT, a consistency function with ``f(x, 0) = x``.
    """

    sigma_data: SigmaData = 0.5

    def scalings(self, t: Elements) -> Scalings:
        """Return the factors at times t, each shaped like t."""
        return _boundary(t, self.sigma_data, 0.0)


@dataclass(frozen=True)
class TrigFlow:
    """``f(x, t) = cos(t) x - sin(t) sd F(x / sd, t)`` on the path `cmcore.paths.Trigonometric` (Lu & Song 2024, section 3).

    ``c_noise = t``. ``network="edm"`` is for a network that is used to `EDM`'s scalings, of which it changes nothing but
    the path: ``F(y, t) = -net(y, ln(sd tan t) / 4)``.
    """

    sigma_data: SigmaData = 0.5
    network: Literal["trigflow", "edm"] = "trigflow"

    end = math.pi / 2

    def scalings(self, t: Elements) -> Scalings:
        """Return the factors at times t in [0, pi/2], each shaped like t."""
        xp = namespace(t)
        sign, c_noise = (-1.0, t) if self.network == "trigflow" else (1.0, self._edm_time(t))
        return Scalings(xp.cos(t), sign * self.sigma_data * xp.sin(t), xp.ones_like(t) / self.sigma_data, c_noise)

    def free(self, net: Network) -> Network:
        """Return the network as ``F(y, t, **cond)``, whichever kind it is."""
        if self.network == "trigflow":
            return net
        return lambda y, t, **cond: -net(y, self._edm_time(t), **cond)

    def _edm_time(self, t: Array) -> Array:
        return _quarter_log(self.sigma_data * namespace(t).tan(t))


@dataclass(frozen=True)
class Prediction:
    """A network that predicts the noise, the velocity or the data themselves on a path, as the path's denoiser::

        noise     D = (x - b F(x, c_noise)) / a
        velocity  D = (b F(x, c_noise) - b' x) / (a' b - b' a)
        denoiser  D = F(x, c_noise)

    with ``c_noise = time_scale t``; these are the conversions of `cmcore.paths.Path`. DDPM's noise predictors are on
    `cmcore.paths.VP`, with a ``time_scale`` of 999 or 1000 where they count steps; flow matching's velocity predictors
    on `cmcore.paths.Linear`, where t = 1 is noise. a(t) must not be 0 for noise.
    """

    path: Path
    quantity: Literal["noise", "velocity", "denoiser"] = "noise"
    time_scale: Annotated[float, DEVIATION] = 1.0

    @property
    def end(self) -> float:
        """The path's last time."""
        return self.path.end

    def scalings(self, t: Elements) -> Scalings:
        """Return the factors at times t, each shaped like t."""
        one = namespace(t).ones_like(t)
        a, b = self.path.a(t), self.path.b(t)
        if self.quantity == "noise":
            c_skip, c_out = 1.0 / a, -b / a
        elif self.quantity == "velocity":
            c_skip, c_out = self.path.from_velocity(t)
        else:
            c_skip, c_out = 0.0 * one, one
        return Scalings(c_skip, c_out, one, self.time_scale * t)


Scaled = Annotated[
    Parametrization,
    Condition(
        lambda parametrization: hasattr(parametrization, "scalings") and not isinstance(parametrization, type),
        "A parametrisation is an object with scalings, such as cmcore.parametrization.EDM(), got {parametrization!r}.",
        TypeError,
    ),
]
"""A parametrisation, and not its class."""


@dataclass(frozen=True, eq=False)  # torch.compile before 2.13 calls no object whose hash is of its fields
class ConsistencyFunction:
    """A network under a parametrisation: ``f(x, t, **cond) = c_skip x + c_out F(c_in x, c_noise, **cond)``.

    ``net`` is any callable ``net(x, c_noise, **cond)`` that returns an array like x, c_noise being (B,). With `EDM`
    scalings the same object is a denoiser. Raises `TypeError` or `ValueError` for inputs or outputs that do not fit.
    """

    net: Network
    parametrization: Scaled

    def __call__(
        self, x: Samples, t: Annotated[Time, lambda self, t: check_end(t, *_last(self.parametrization))], **cond: Any
    ) -> Samples:
        """Return f at the points x, (B, ...), and times t, a number or an array () or (B,)."""
        c = self.parametrization.scalings(t)
        out = check_output(self.net(per_sample(c.c_in, x) * x, c.c_noise, **cond), x)
        return per_sample(c.c_skip, x) * x + per_sample(c.c_out, x) * out


def _quarter_log(t: Array) -> Array:
    xp = namespace(t)
    # At t = 0 the output does not depend on the network, whose time input must merely be finite.
    return 0.25 * xp.log(xp.maximum(t, xp.full_like(t, float(xp.finfo(t.dtype).smallest_normal))))


def _boundary(t: Array, sigma_data: float, t_min: float) -> Scalings:
    root = namespace(t).sqrt(t**2 + sigma_data**2)
    # 1 / (1 + u^2) rather than sd^2 / (sd^2 + ...): exactly 1 at u = 0 even where division multiplies by a reciprocal.
    c_skip = 1.0 / (1.0 + ((t - t_min) / sigma_data) ** 2)
    return Scalings(c_skip, sigma_data * (t - t_min) / root, 1.0 / root, _quarter_log(t))


def _last(parametrization: Parametrization) -> tuple[float, str]:
    """The last time of a parametrisation, and whose it is."""
    return getattr(parametrization, "end", math.inf), f"of {type(parametrization).__name__}"


check_arguments(__name__)
