"""Stopped gradients, gradients by weights, and derivatives along tangents."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from cmcore.backend import Array, Backend, Network, jvp, namespace
from cmcore.errors import Error
from cmcore.networks import Architecture
from cmcore.networks.embedding import frequencies
from cmcore.testing._tools import (
    ARCHITECTURES,
    FLOW_MAP,
    MLP,
    POINTS,
    POSITIVE,
    arguments,
    close,
    if_trainable,
    random_weights,
    refuses,
    require,
)
from cmcore.training import Trainer, TrainSpec


def check_refusals(backend: Backend, dtype: str = "float32") -> None:
    """A backend without gradients says so in a sentence, as `cmcore.Error`."""
    if backend.trainable:
        return
    x, net = backend.asarray(POINTS, dtype), backend.network(MLP)
    refuses(Error, lambda: backend.value_and_grad(lambda n: n)(net), "value_and_grad() of a backend without gradients")
    refuses(Error, lambda: backend.jvp(lambda y: y, (x,), (x,)), "jvp() of a backend without gradients")
    refuses(
        Error,
        lambda: Trainer(backend, net, TrainSpec(lambda nets, *args: args[0])),
        "a trainer of a backend without gradients",
    )


def check_stop_gradient_value(backend: Backend, dtype: str = "float32") -> None:
    """stop_gradient() does not change a value."""
    x = backend.asarray(POINTS, dtype)
    require(
        np.array_equal(backend.to_numpy(backend.stop_gradient(x)), backend.to_numpy(x)),
        "stop_gradient() changed a value.",
    )


@if_trainable
def check_stop_gradient(backend: Backend, dtype: str = "float32") -> None:
    """No gradient flows through stop_gradient(): that of f * stop(f) is half that of f * f."""
    net, args = backend.network(MLP, random_weights(MLP), dtype=dtype), arguments(backend, MLP, dtype)

    def whole(n: Network, *a: Array) -> Array:
        return namespace(a[0]).sum(n(*a) ** 2)

    def half(n: Network, *a: Array) -> Array:
        return namespace(a[0]).sum(n(*a) * backend.stop_gradient(n(*a)))

    full, stopped = (backend.value_and_grad(loss)(net, *args)[1] for loss in (whole, half))
    for name in full:
        close(
            backend,
            stopped[name],
            0.5 * backend.to_numpy(full[name]),
            dtype,
            f"The half-stopped gradient of {name}",
            10.0,
        )


@if_trainable
def check_value_and_grad(backend: Backend, dtype: str = "float32") -> None:
    """Gradients carry the architecture's names and shapes and agree with finite differences."""
    for architecture in ARCHITECTURES:
        weights, args = random_weights(architecture), arguments(backend, architecture, dtype)

        def loss(net: Network, *a: Array) -> Array:
            return namespace(a[0]).mean(net(*a) ** 2)

        def at(shifted: Mapping[str, np.ndarray], architecture: Architecture = architecture, a: Any = args) -> float:
            return float(backend.to_numpy(loss(backend.network(architecture, shifted, dtype=dtype), *a)))

        value, gradients = backend.value_and_grad(loss)(backend.network(architecture, weights, dtype=dtype), *args)
        close(backend, value, at(weights), dtype, "The value that value_and_grad() returns")
        shapes = {name: tuple(g.shape) for name, g in gradients.items()}
        require(
            shapes == architecture.layout(), f"The gradients' names or shapes are not the layout of {architecture}."
        )
        host = {name: backend.to_numpy(g).astype(np.float64) for name, g in gradients.items()}
        rng, h = np.random.default_rng(2), 3e-3
        along = {name: rng.standard_normal(g.shape) for name, g in host.items()}
        up, down = ({n: weights[n] + sign * h * along[n] for n in weights} for sign in (1, -1))
        slope = sum(float((host[n] * along[n]).sum()) for n in host)
        size = math.sqrt(sum(float((g**2).sum()) for g in host.values()))
        error = abs((at(up) - at(down)) / (2 * h) - slope)
        require(error < 2e-2 * size, f"A gradient of {architecture} differs from the finite difference by {error}.")


@if_trainable
def check_jvp(backend: Backend, dtype: str = "float32") -> None:
    """Derivatives along tangents agree with the analytic ones, for several arguments, and can be taken twice."""
    xp, p = backend.xp, POSITIVE

    def f(x: Array, t: Array) -> Array:
        return xp.sin(x) * t**2

    x, t, dx, dt = (backend.asarray(v, dtype) for v in (p, p + 1.0, p - 2.0, 0.5 * p))
    value, slope = backend.jvp(f, (x, t), (dx, dt))
    close(backend, value, np.sin(p) * (p + 1) ** 2, dtype, "The value that jvp() returns")
    expected = np.cos(p) * (p - 2) * (p + 1) ** 2 + np.sin(p) * 2 * (p + 1) * 0.5 * p
    close(backend, slope, expected, dtype, "The derivative that jvp() returns", scale=10.0)

    one = backend.asarray(np.ones_like(p), dtype)
    second = backend.jvp(lambda y: backend.jvp(xp.sin, (y,), (one,))[1], (x,), (one,))[1]
    close(backend, second, -np.sin(p), dtype, "The derivative of a derivative by jvp()")
    stopped = backend.jvp(lambda y: y * backend.stop_gradient(y), (x,), (one,))[1]
    close(backend, stopped, p, dtype, "The derivative through stop_gradient()")


@if_trainable
def check_gradient_of_jvp(backend: Backend, dtype: str = "float32") -> None:
    """The gradient of a derivative with respect to the weights agrees with that of its finite difference."""
    net, (x, c_noise) = backend.network(MLP, random_weights(MLP), dtype=dtype), arguments(backend, MLP, dtype)
    tangent, h = namespace(x).ones_like(x), 1e-2

    def exact(n: Network) -> Array:
        return namespace(x).mean(backend.jvp(lambda y: n(y, c_noise), (x,), (tangent,))[1] ** 2)

    def difference(n: Network) -> Array:
        return namespace(x).mean(((n(x + h, c_noise) - n(x - h, c_noise)) / (2 * h)) ** 2)

    one, two = (backend.value_and_grad(loss)(net)[1] for loss in (exact, difference))
    for name in ("stem.weight", "blocks.0.first.weight", "head.weight"):
        a, b = backend.to_numpy(one[name]), backend.to_numpy(two[name])
        error = float(np.abs(a - b).max() / np.abs(b).max())
        require(error < 2e-2, f"The gradient of a jvp() is off by a relative {error} for {name}.")


@if_trainable
def check_gradient_beside_jvp(backend: Backend, dtype: str = "float32") -> None:
    """A stopped derivative is a constant to the gradient of a loss: F moves towards F minus the derivative."""
    net, args = backend.network(FLOW_MAP, random_weights(FLOW_MAP), dtype=dtype), arguments(backend, FLOW_MAP, dtype)
    x, c_noise, label, c_end = args
    xp, along = namespace(x), (x, namespace(x).ones_like(c_noise))

    def both(n: Network) -> tuple[Array, Array]:
        return jvp(lambda y, c: n(y, c, label, c_end), (x, c_noise), along)

    _, derivative = both(net)
    target = backend.asarray(backend.to_numpy(net(*args)) - backend.to_numpy(derivative), dtype)

    def moving(n: Network) -> Array:
        out, tangent = both(n)
        return xp.mean((out - backend.stop_gradient(out - tangent)) ** 2)

    one, two = (backend.value_and_grad(f)(net) for f in (moving, lambda n: xp.mean((n(*args) - target) ** 2)))
    close(backend, one[0], backend.to_numpy(two[0]), dtype, "A loss with a stopped derivative", scale=10.0)
    for name, expected in two[1].items():
        what = f"The gradient of {name} beside a stopped derivative"
        close(backend, one[1][name], backend.to_numpy(expected), dtype, what, scale=10.0)


@if_trainable
def check_gradient_of_log_weight(backend: Backend, dtype: str = "float32") -> None:
    """The gradient of the log weight's sum, weighted by the times, is these times' product with the features."""
    net = backend.network(FLOW_MAP, random_weights(FLOW_MAP), dtype=dtype)
    _, c_noise, _, c_end = arguments(backend, FLOW_MAP, dtype)
    _, found = backend.value_and_grad(lambda n: namespace(c_noise).sum(c_noise * n.log_weight(c_noise, c_end)))(net)
    start, end = backend.to_numpy(c_noise).astype(np.float64), backend.to_numpy(c_end).astype(np.float64)
    angles = [c[:, None] * np.asarray(frequencies(FLOW_MAP.max_frequency, FLOW_MAP.features)) for c in (start, end)]
    phi = np.concatenate([part for a in angles for part in (np.cos(a), np.sin(a))], axis=1)
    close(
        backend, found["log_weight.weight"], start[None] @ phi, dtype, "The gradient of log_weight.weight", scale=10.0
    )
    close(backend, found["log_weight.bias"], start.sum()[None], dtype, "The gradient of log_weight.bias", scale=10.0)
    require(not backend.to_numpy(found["head.bias"]).any(), "The log weight must not depend on the network's output.")
