"""What the checks share: small networks, their inputs, and requirements told in sentences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any

import numpy as np

from cmcore.backend import Array, Backend, Network
from cmcore.networks import (
    GELU,
    Architecture,
    Attention,
    Dropout,
    Linear,
    Part,
    PatchEmbedding,
    Resample,
    ResidualConv,
    ResidualMLP,
    SineCosine,
    Weight,
)

Check = Callable[..., None]
"""``check(backend, dtype="float32")``; raises `AssertionError`."""

MLP = ResidualMLP(shape=(3,), width=8, blocks=2, features=8)
CONDITIONED = ResidualMLP(shape=(3,), width=8, blocks=1, features=8, classes=4)
CONV = ResidualConv(shape=(2, 4, 4), width=4, multipliers=(1, 2), blocks=1, groups=2, features=8)
FLOW_MAP = ResidualMLP(shape=(3,), width=8, blocks=1, features=8, classes=4, two_times=True, log_weight=True)
ARCHITECTURES: tuple[Architecture, ...] = (MLP, CONDITIONED, CONV, FLOW_MAP)


@dataclass(frozen=True)
class Others(Architecture):
    """A network of the layers that `ARCHITECTURES` do without."""

    kind = "others"
    shape: tuple[int, ...] = (4, 4, 4)

    def part(self) -> Part:
        """Return the network."""
        return OtherLayers()


class OtherLayers(Part):
    """`Others`."""

    def __init__(self) -> None:
        self.scale, self.attention, self.dropout = Weight((4,), std=1.0), Attention(heads=2), Dropout(0.5)
        self.down, self.up = Resample(up=False), Resample(up=True, taps=(1.0, 3.0, 3.0, 1.0))
        self.patches, self.positions, self.gelu = PatchEmbedding(4, 4, patch=2), SineCosine(2, 2, 4), GELU()

    def __call__(self, x: Array, c_noise: Array, dropout: Array | None = None) -> Array:
        """Return F(x, c_noise, dropout), shaped like x."""
        h = self.enter(x)
        h = h + self.per_channel(self.scale()[None, :] * c_noise[:, None], h)
        rows = self.tokens(self.down(self.dropout(h, dropout)))
        rows = rows + self.gelu(self.tokens(self.patches(h)) + self.positions(rows))
        return self.leave(h + self.up(self.untokens(self.attention(rows, 0.5 * rows, rows), self.down(h))))


@dataclass(frozen=True)
class Dropping(Architecture):
    """A linear network with dropout."""

    kind = "dropping"
    shape: tuple[int, ...] = (3,)

    def part(self) -> Part:
        """Return the network."""
        return DroppingLinear()


class DroppingLinear(Part):
    """`Dropping`."""

    def __init__(self) -> None:
        self.linear, self.dropout = Linear(3, 3), Dropout(0.5)

    def __call__(self, x: Array, c_noise: Array, dropout: Array | None = None) -> Array:
        """Return F(x, dropout), shaped like x."""
        return self.linear(self.dropout(x, dropout))


OTHERS, DROPPING = Others(), Dropping()
POINTS = np.array([[0.3, -1.7, 2.2], [0.9, 0.0, -0.4]])
POSITIVE = np.array([[0.3, 1.7, 2.2], [0.9, 1.0, 0.4]])

_ROUNDING = {"float32": 2e-5, "float64": 1e-11}


def require(condition: bool, sentence: str) -> None:
    """Raise `AssertionError` with the sentence unless the condition holds."""
    if not condition:
        raise AssertionError(sentence)


def refuses(kind: type[Exception], call: Callable[[], Any], what: str) -> None:
    """Require that the call raises an error of the kind, with a sentence."""
    try:
        call()
    except kind as error:
        sentence = str(error)
        require(
            sentence.endswith(".") and " " in sentence, f"{what} must explain itself in a sentence, got: {sentence!r}"
        )
    else:
        raise AssertionError(f"{what} must raise {kind.__name__}, but raised nothing.")


def close(backend: Backend, got: Array, expected: Any, dtype: str, what: str, scale: float = 1.0) -> None:
    """Require that an array has the values that are expected, up to rounding relative to ``scale`` or the largest."""
    host, expected = backend.to_numpy(got), np.asarray(expected, np.float64)
    require(host.shape == expected.shape, f"{what} has shape {host.shape}, expected {expected.shape}.")
    error = float(np.abs(host - expected).max(initial=0.0))
    limit = _ROUNDING[dtype] * max(scale, float(np.abs(expected).max(initial=0.0)))
    require(error <= limit, f"{what} is off by {error}, which rounding does not explain.")


def same_weights(got: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], what: str) -> None:
    """Require that weights have the names and exactly the values that are expected."""
    require(got.keys() == expected.keys(), f"{what}: the names differ by {sorted(got.keys() ^ expected.keys())}.")
    for name, value in expected.items():
        require(np.array_equal(got[name], value), f"{what}: {name} has changed.")


def random_weights(architecture: Architecture, seed: int = 0) -> dict[str, np.ndarray]:
    """Return weights, float32, none of which is zero, so that every layer shows in the network's output."""
    rng = np.random.default_rng(seed)
    return {
        name: (rng.normal(1.0 if _is_scale(name) else 0.0, 0.3, shape)).astype(np.float32)
        for name, shape in architecture.layout().items()
    }


def _is_scale(name: str) -> bool:
    layer, _, kind = name.rpartition(".")
    return kind == "weight" and layer.rpartition(".")[2].startswith("norm")


def network_input(architecture: Architecture, batch: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return x, c_noise and labels, where there are classes, in float64 on the host."""
    rng = np.random.default_rng(1)
    label = np.arange(batch) % architecture.classes if architecture.classes else None
    return rng.standard_normal((batch, *architecture.shape)), np.linspace(-1.5, 1.0, batch), label


def end_input(architecture: Architecture, c_noise: np.ndarray) -> np.ndarray | None:
    """Return c_end for a network of two times, None for one of one."""
    return 0.5 * c_noise - 0.4 if architecture.two_times else None


def evaluate(
    backend: Backend,
    net: Network,
    x: np.ndarray,
    c_noise: np.ndarray,
    label: np.ndarray | None,
    dtype: str,
    c_end: np.ndarray | None = None,
) -> Array:
    """Return the network's output for host data placed on the backend."""
    cond = {} if label is None else {"label": backend.asarray(label, "int32")}
    cond |= {} if c_end is None else {"c_end": backend.asarray(c_end, dtype)}
    return net(backend.asarray(x, dtype), backend.asarray(c_noise, dtype), **cond)


def arguments(backend: Backend, architecture: Architecture, dtype: str) -> tuple[Array, ...]:
    """Return `network_input` and c_end placed on the backend, in the order in which the network takes them."""
    x, c_noise, label = network_input(architecture)
    args = (backend.asarray(x, dtype), backend.asarray(c_noise, dtype))
    args += () if label is None else (backend.asarray(label, "int32"),)
    c_end = end_input(architecture, c_noise)
    return args if c_end is None else (*args, backend.asarray(c_end, dtype))


def if_trainable(check: Check) -> Check:
    """Return the check, passed at once by a backend without gradients."""

    @wraps(check)
    def run(backend: Backend, dtype: str = "float32") -> None:
        if backend.trainable:
            check(backend, dtype)

    return run
