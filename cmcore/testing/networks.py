"""Networks: their weights, what they compute of times and labels, and what they refuse."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from cmcore.backend import Array, Backend, Network, load
from cmcore.networks import extend_weights
from cmcore.testing._tools import (
    ARCHITECTURES,
    CONDITIONED,
    FLOW_MAP,
    MLP,
    OTHERS,
    close,
    end_input,
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
        c_end = end_input(architecture, c_noise)
        got = evaluate(backend, net, x, c_noise, label, dtype, c_end)
        reference = load("numpy")
        known = reference.network(architecture, weights, dtype="float64")
        expected = evaluate(reference, known, x, c_noise, label, "float64", c_end)
        close(backend, got, expected, dtype, f"The network {architecture}", scale=10.0)
        require(
            got.dtype == backend.asarray(x, dtype).dtype,
            f"The network {architecture} changed the dtype to {got.dtype}.",
        )


def check_network_layers(backend: Backend, dtype: str = "float32") -> None:
    """Attention, patches, positions, GELU, resampling, dropout and a weight by itself compute what the NumPy backend's do; dropout only with a key."""
    weights, (x, c_noise, _) = random_weights(OTHERS), network_input(OTHERS)

    def output(of: Backend, dtype: str, key: int | None) -> Array:
        cond = {} if key is None else {"dropout": of.asarray(np.array(key, np.int32))}
        return of.network(OTHERS, weights, dtype=dtype)(of.asarray(x, dtype), of.asarray(c_noise, dtype), **cond)

    expected = [output(load("numpy"), "float64", key) for key in (None, 7, 1_500_000_000)]
    require(not np.array_equal(expected[1], expected[2]), "Dropout ignores its key.")
    for key, value in zip((None, 7, 1_500_000_000), expected, strict=True):
        what = "without dropout" if key is None else f"with the dropout of key {key}"
        close(backend, output(backend, dtype, key), value, dtype, f"The network {OTHERS} {what}", scale=10.0)


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


def check_network_null_label(backend: Backend, dtype: str = "float32") -> None:
    """A negative label is no class: the label table contributes nothing to that sample."""
    weights, (x, c_noise, _) = random_weights(CONDITIONED), network_input(CONDITIONED)
    empty = weights | {"label.weight": np.zeros_like(weights["label.weight"])}
    net, bare = (backend.network(CONDITIONED, w, dtype=dtype) for w in (weights, empty))
    first = np.array([2, 0, 0, 0])
    expected = backend.to_numpy(evaluate(backend, bare, x, c_noise, first, dtype))
    expected[0] = backend.to_numpy(evaluate(backend, net, x, c_noise, first, dtype))[0]
    got = evaluate(backend, net, x, c_noise, np.array([2, -1, -1, -7]), dtype)
    close(backend, got, expected, dtype, "The network with labels 2, -1, -1 and -7", scale=10.0)


def check_network_two_times(backend: Backend, dtype: str = "float32") -> None:
    """An extended network computes at first what that of one time did, whatever the end; a wrong c_end is a `ValueError`."""
    weights, (x, c_noise, label) = random_weights(CONDITIONED), network_input(CONDITIONED)
    one = backend.network(CONDITIONED, weights, dtype=dtype)
    two = backend.network(FLOW_MAP, extend_weights(weights, FLOW_MAP, seed=3), dtype=dtype)
    expected = backend.to_numpy(evaluate(backend, one, x, c_noise, label, dtype))
    for c_end in (c_noise, -3.0 * c_noise):
        got = evaluate(backend, two, x, c_noise, label, dtype, c_end)
        close(backend, got, expected, dtype, "The network extended from one time to two", scale=10.0)
    cases: tuple[tuple[Network, np.ndarray | None, str], ...] = (
        (two, None, "a network of two times without c_end"),
        (two, c_noise[:1], "a network given c_end of another shape than c_noise"),
        (one, c_noise, "a network of one time with c_end"),
    )
    for net, wrong, what in cases:
        refuses(ValueError, partial(evaluate, backend, net, x, c_noise, label, dtype, wrong), what)


def check_network_log_weight(backend: Backend, dtype: str = "float32") -> None:
    """``net.log_weight`` is the NumPy backend's, 0 at first, and a sentence where the network has none."""
    _, c_noise, _ = network_input(FLOW_MAP)
    times = c_noise, end_input(FLOW_MAP, c_noise)

    def log_weight(of: Backend, weights: dict[str, np.ndarray] | None, dtype: str) -> np.ndarray:
        net: Any = of.network(FLOW_MAP, weights, dtype=dtype)
        return of.to_numpy(net.log_weight(*(of.asarray(c, dtype) for c in times)))

    expected = log_weight(load("numpy"), random_weights(FLOW_MAP), "float64")
    got = backend.asarray(log_weight(backend, random_weights(FLOW_MAP), dtype))
    close(backend, got, expected, dtype, "The log weight", scale=10.0)
    require(not log_weight(backend, None, dtype).any(), "The log weight of a new network must be 0.")
    c = backend.asarray(c_noise, dtype)
    two: Any = backend.network(FLOW_MAP, dtype=dtype)
    refuses(ValueError, lambda: two.log_weight(c), "log_weight of a network of two times without c_end")
    none: Any = backend.network(MLP, dtype=dtype)
    refuses(ValueError, lambda: none.log_weight(c), "log_weight of a network that has none")
