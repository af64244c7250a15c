"""The types that signatures share, each alias once, with the shapes of arrays.

B is the number of samples, D stands for the axes of one sample, and S for any axes at all. A function that is checked at the door
(`cmcore._door`) is called with anything that its annotations allow, and its formula sees a `Time` as an array (B,).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

from cmcore._annotations import EachSample, Function, Shape

Array = Any
"""An array of any framework: NumPy, PyTorch, JAX, tinygrad, array-api-strict, or a third party's."""

Samples = Annotated[Array, Shape("B *D")]
"""A batch of samples, (B, ...), of real floating-point numbers; all those of a call have one shape and dtype."""

PerSample = Annotated[Array, Shape("B")]
"""A number for each sample, (B,)."""

Elements = Annotated[Array, Shape("*S")]
"""Real floating-point numbers in an array of any shape."""

Number = Array | float
"""A number, which can be looked at, or an array, which may be traced."""

Time = Annotated[Array, EachSample()]
"""A time, for a batch x of shape (B, ...): one number for all samples, or an array of shape () or (B,); the formula has (B,)."""

GivenTime = Number
"""A `Time` that reaches the formula as it was given, since a number decides how to compute."""

OwnTime = Annotated[Array, EachSample(own=True)]
"""A `Time` to be differentiated along."""

Share = Annotated[Array, EachSample()]
"""A share, as a `Time` is given: one for all samples, or (B,)."""


class TimePair(NamedTuple):
    """The times of a batch, each (B,): t, the earlier r < t, and t - r computed without cancellation."""

    t: PerSample
    r: PerSample
    gap: PerSample


Network = Annotated[Callable[..., Array], Function("The network")]
"""Any callable ``net(x, c_noise, **cond) -> array shaped like x``."""

Denoiser = Annotated[Callable[..., Array], Function("The denoiser")]
"""``denoiser(x, t) -> E[x_0 | x_t = x]``, shaped like x; t is (B,)."""

ConsistencyFn = Annotated[Callable[..., Array], Function("The consistency function f")]
"""``f(x, t, **cond)``, shaped like x, with ``f(x, t_min) = x``: `cmcore.ConsistencyFunction` or any other callable."""

FlowMap = Annotated[Callable[..., Array], Function("The flow map", "The flow map")]
"""``X(x, t, s, **cond)``, shaped like x: where the probability-flow ODE takes x from time t to time s."""

Velocity = Annotated[Callable[[Array, Array], Array], Function("The velocity", "The velocity")]
"""``v(x, t)``, the ODE's right-hand side, shaped like x."""

Distance = Callable[[Array, Array], Array]
"""``distance(x, y) -> (B,)``."""

Weighting = Callable[[TimePair, float], Array]
"""``weighting(pair, sigma_data) -> (B,)``."""

Step = Callable[[Denoiser, Array, Time, Time], Array]
"""``step(denoiser, x, t, r)``: the state at time r that a step from (x, t) leads to."""

Noise = Annotated[Callable[[int], Array], Function("noise")]
"""``noise(i)``: fresh standard normal numbers, shaped like x; each i is asked for at most once."""

Memory = tuple[Array, ...]
"""What a solver carries from one step to the next; empty at the first."""

Derivative = Callable[[Callable[..., Array], tuple[Array, ...], tuple[Array, ...]], tuple[Array, Array]]
"""``derivative(f, primals, tangents) -> (f(*primals), its derivative along the tangents)``."""

Loss = Callable[..., Array]
"""``loss(nets, x0, z, tau, scalars, cond) -> (B,)``: what a train step minimises the mean of. See `cmcore.TrainSpec`."""
