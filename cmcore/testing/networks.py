"""Networks: their weights, what they compute and what they refuse."""

from __future__ import annotations

import numpy as np

from cmcore.backend import Backend, load
from cmcore.testing._tools import (
    ARCHITECTURES,
    CONDITIONED,
    MLP,
    close,
    evaluate,
    network_input,
    random_weights,
    refuses,
    require,
    same_weights,
)


def check_networks(backend: Backend, dtype: str = "float32") -> None:
    """Networks have the architecture's weights, bit for bit, and compute what the NumPy backend's compute."""
    for architecture in ARCHITECTURES:
        weights = random_weights(architecture)
        net = backend.network(architecture, weights, dtype=dtype)
        same_weights(backend.weights(net), weights, f"The weights put into {architecture}")
        same_weights(
            backend.weights(backend.network(architecture, seed=5)),
            architecture.init(5),
            f"The initial weights of {architecture}",
        )
        x, c_noise, label = network_input(architecture)
        got = evaluate(backend, net, x, c_noise, label, dtype)
        reference = load("numpy")
        expected = evaluate(
            reference, reference.network(architecture, weights, dtype="float64"), x, c_noise, label, "float64"
        )
        close(backend, got, expected, dtype, f"The network {architecture}", scale=10.0)
        require(
            got.dtype == backend.asarray(x, dtype).dtype,
            f"The network {architecture} changed the dtype to {got.dtype}.",
        )


def check_network_errors(backend: Backend, dtype: str = "float32") -> None:
    """Weights that do not fit, and labels missing or too many, are a `ValueError` with a sentence."""
    lacking = dict(random_weights(MLP))
    del lacking["head.bias"]
    refuses(ValueError, lambda: backend.network(MLP, lacking), "network() with a weight missing")
    transposed = random_weights(MLP) | {"stem.weight": np.zeros((3, 8), np.float32)}
    refuses(ValueError, lambda: backend.network(MLP, transposed), "network() with a weight of the wrong shape")
    x, c_noise, label = network_input(CONDITIONED)
    conditioned, plain = backend.network(CONDITIONED, dtype=dtype), backend.network(MLP, dtype=dtype)
    refuses(
        ValueError,
        lambda: evaluate(backend, conditioned, x, c_noise, None, dtype),
        "a conditioned network without label",
    )
    refuses(
        ValueError, lambda: evaluate(backend, plain, x, c_noise, label, dtype), "an unconditioned network with label"
    )
