"""Derivatives along a trajectory, and the losses that move a network along one: the continuous-time methods.

Where a discrete method compares a function at two neighbouring times, a continuous one takes the derivative of the function
along the probability-flow ODE, ``df/dt = d_t f + (grad_x f) dx/dt``, the *tangent*: it is zero everywhere if and only if f
is a consistency function.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated

from cmcore._annotations import Called, Function, Together
from cmcore._arrays import check_same, conditions, per_sample, sum_samples
from cmcore._door import check_arguments
from cmcore.backend import Array, Network, jvp, namespace, stop_gradient
from cmcore.distances import squared_l2
from cmcore.options import AT_LEAST_ZERO, DEVIATION, Limit
from cmcore.paths import Trigonometric
from cmcore.types import Derivative as Derivative
from cmcore.types import OwnTime, PerSample, Samples, Time

Tangents = Annotated[tuple[Array, ...], lambda primals, tangents: _check_tangents(primals, tangents)]
"""A direction for each primal, shaped like it."""


def exact(f: Callable[..., Array], primals: tuple[Array, ...], tangents: Tangents) -> tuple[Array, Array]:
    """Return f and its derivative along the tangents: the framework's Jacobian-vector product."""
    return jvp(f, primals, tangents)


def central_difference(h: Annotated[float, Called("The step of a central difference"), DEVIATION]) -> Derivative:
    """Return the derivative by ``(f(p + h v) - f(p - h v)) / (2 h)``: three evaluations, no automatic differentiation.

    Its error is of order h^2 plus rounding / h: in float32 about 3e-5 at h = 0.002, and larger on both sides of it.
    """

    def derivative(
        f: Callable[..., Array], primals: tuple[Array, ...], tangents: tuple[Array, ...]
    ) -> tuple[Array, Array]:
        _check_tangents(primals, tangents)

        def at(step: float) -> Array:
            return f(*(p + step * v for p, v in zip(primals, tangents, strict=True)))

        return f(*primals), (at(h) - at(-h)) / (2.0 * h)

    return derivative


def derivative(difference: float) -> Derivative:
    """Return `exact` for 0, else `central_difference` of that step."""
    return central_difference(difference) if difference else exact


def backward_difference(
    h: Annotated[
        float,
        Called("The step of sCM's difference"),
        Limit(lambda v: 0 < v < math.pi / 2, "above 0 and below pi / 2"),
    ],
) -> Derivative:
    """Return sCM's discrete derivative, for `trigflow_tangent` alone: two evaluations, of order h (Lu & Song 2024, algorithm 2).

    ``dF/dt = (cos h F(y_t, t) - F(y_s, s)) / sin h`` at s = t - h, where ``y_s = cos h y_t - sin h dy/dt`` is on the path Trigonometric where a
    datum and its noise lead, or one DDIM step of the ODE. h is half of t where it is more.
    """

    def derivative(
        f: Callable[..., Array], primals: tuple[Array, ...], tangents: tuple[Array, ...]
    ) -> tuple[Array, Array]:
        _check_tangents(primals, tangents)
        (y, t), (along, rate) = primals, tangents
        xp = namespace(t)
        step = xp.minimum(0.0 * t + h, 0.5 * t)
        cos, sin, scale = (per_sample(v, y) for v in (xp.cos(step), xp.sin(step), rate))
        out, earlier = f(y, t), f(cos * y - sin * along / scale, t - step)
        return out, scale * (cos * out - earlier) / sin

    return derivative


def trigflow_tangent(
    net: Annotated[Network, Function("The network", "The network")],
    x: Samples,
    t: Annotated[OwnTime, lambda sigma_data, t: Trigonometric(sigma_data).check(t)],
    velocity: Annotated[Samples, Together("x and the velocity")],
    sigma_data: float,
    warmup: Array | float = 1.0,
    differentiate: Derivative = exact,
    cond: Mapping[str, Array] | None = None,
) -> tuple[Samples, Samples]:
    """Return ``F(x / sd, t)`` and the tangent g of `cmcore.parametrization.TrigFlow`, each (B, ...) (Lu & Song 2024, alg. 1).

    ::

        g = -cos^2 t (sd F - dx/dt) - r cos t sin t (x + sd dF/dt),     r = warmup

    For r = 1 it is ``cos t df/dt``. The product ``cos t sin t dF/dt`` is one derivative, along scaled tangents, so that
    nothing overflows as t tends to 0 or pi / 2. x is a point at time t, (B,), on the path `cmcore.paths.Trigonometric` and
    ``velocity`` its dx/dt. Gradients flow through F, not through g.
    """
    xp = namespace(x)
    cos, sin = xp.cos(t), xp.sin(t)
    scale = per_sample(cos * sin, x)
    out, along = differentiate(
        lambda y, s: net(y, s, **conditions(cond)),
        (x / sigma_data, t),
        (scale * velocity / sigma_data, cos * sin),
    )
    steady = stop_gradient(out)
    rest = scale * x + sigma_data * along
    g = -per_sample(cos**2, x) * (sigma_data * steady - velocity) - warmup * rest
    return out, stop_gradient(g)


def rcm_warmup(
    g: Samples,
    out: Samples,
    t: Time,
    velocity: Annotated[Samples, Together("g and the velocity")],
    sigma_data: float,
    warmup: Array | float,
) -> Samples:
    """Return `trigflow_tangent`'s g as rCM warms it up, from F, ``out``, and dx/dt (Zheng et al. 2025, section 3)::

    g = -cos t sqrt(1 - r^2 sin^2 t) (sd F - dx/dt) - r cos t sin t (x + sd dF/dt),     r = warmup
    """
    xp = namespace(g)
    cos, sin = xp.cos(t), xp.sin(t)
    more = cos * (cos - xp.sqrt(1.0 - (warmup * sin) ** 2))
    return g + per_sample(more, g) * (sigma_data * stop_gradient(out) - velocity)


def normalized(g: Samples, c: Annotated[float, Called("The constant c of a normalisation"), AT_LEAST_ZERO]) -> Samples:
    """Return each sample's ``g / (|g| + c)`` with |g| the Euclidean norm of the whole sample; c = inf leaves g as it is."""
    if c == float("inf"):
        return g
    return g / per_sample(namespace(g).sqrt(sum_samples(g * g)) + c, g)


def loss_along(out: Samples, g: Samples) -> PerSample:
    """Return ``mean |out - stopgrad(out + g)|^2``, (B,), whose gradient step moves ``out`` along g.

    Its gradient is that of ``-2 / D <out, stopgrad(g)>``; its value says nothing of the quality (Lu & Song 2024, eq. 8).
    """
    return squared_l2(out, stop_gradient(out + g))


def _check_tangents(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> None:
    if len(primals) != len(tangents):
        raise ValueError(f"A derivative needs one tangent for each primal, got {len(tangents)} for {len(primals)}.")
    for primal, tangent in zip(primals, tangents, strict=True):
        check_same(primal, tangent, "A primal and its tangent")


check_arguments(__name__)
