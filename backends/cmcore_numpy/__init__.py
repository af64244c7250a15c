"""The reference backend: arrays, random numbers and network evaluation in NumPy; no gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

import array_api_compat.numpy as xp
import numpy as np

from cmcore.backend import check_computes
from cmcore.errors import Error
from cmcore.networks import Architecture, Conv, generic
from cmcore.training import TrainSpec
from cmcore.types import Network


@dataclass
class NumpyStream:
    """A counter-based Philox stream."""

    generator: np.random.Generator

    def normal(self, shape: tuple[int, ...], dtype: Any = "float32") -> np.ndarray:
        """Draw standard normal numbers."""
        return self.generator.standard_normal(shape, dtype=dtype)

    def uniform(self, shape: tuple[int, ...], dtype: Any = "float32") -> np.ndarray:
        """Draw numbers uniform in [0, 1)."""
        return self.generator.random(shape, dtype=dtype)


@dataclass(frozen=True)
class NumpyBackend:
    """NumPy as a `cmcore.backend.Backend`: samples from weights trained elsewhere, and checks the others."""

    name: str = "numpy"
    device: str = "cpu"
    trainable: bool = False
    xp: Any = xp
    programs: ClassVar[Mapping[str, str]] = {}
    compile_from: ClassVar[int] = 1

    def version(self) -> str:
        """Return NumPy's version."""
        return np.__version__

    def devices(self) -> tuple[str, ...]:
        """Return the only device."""
        return ("cpu",)

    def on(self, device: str | None) -> NumpyBackend:
        """Return this backend; `ValueError` for any device but the CPU."""
        if device not in (None, "cpu"):
            raise ValueError(f"NumPy runs on the cpu only, not on {device!r}.")
        return self

    def float_types(self) -> tuple[str, ...]:
        """Return the two that NumPy draws random numbers in."""
        return ("float32", "float64")

    def owns(self, x: object) -> bool:
        """Tell whether x is a NumPy array or scalar."""
        return isinstance(x, (np.ndarray, np.generic))

    def asarray(self, host: Any, dtype: str | None = None) -> np.ndarray:
        """Return host data as a NumPy array."""
        return np.asarray(host, dtype=dtype)

    def to_numpy(self, x: np.ndarray) -> np.ndarray:
        """Return a copy of x."""
        return np.array(x)

    def stream(self, seed: int, index: int = 0) -> NumpyStream:
        """Return the random stream number ``index`` of ``seed``."""
        return NumpyStream(np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, index)))))

    def stop_gradient(self, x: np.ndarray) -> np.ndarray:
        """Return x: there are no gradients to stop."""
        return x

    def compile(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """Return f: NumPy has no compiler."""
        return f

    def network(
        self,
        architecture: Architecture,
        weights: Mapping[str, np.ndarray] | None = None,
        *,
        seed: int = 0,
        dtype: str = "float32",
        compute: str | None = None,
        recompute: bool = False,
    ) -> Network:
        """Return the architecture's forward evaluation, which nothing has to be kept for, with given or initial weights."""
        check_computes(self, compute)
        values = architecture.init(seed) if weights is None else weights
        net: Network = generic.build(architecture, values, lambda w: np.array(w, compute or dtype), _LAYERS)
        return net

    def weights(self, net: Network) -> dict[str, np.ndarray]:
        """Return a copy of a network's weights."""
        return {name: np.array(w) for name, w in generic.weights_of(net).items()}

    def value_and_grad(self, loss: Callable[..., Any]) -> NoReturn:
        """Raise `cmcore.Error`: NumPy has no gradients."""
        _no_gradients("compute gradients")

    def jvp(self, f: Callable[..., Any], primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> NoReturn:
        """Raise `cmcore.Error`: NumPy has no gradients."""
        _no_gradients("compute Jacobian-vector products")

    def train_step(self, net: Network, spec: TrainSpec, frozen: Mapping[str, Network]) -> NoReturn:
        """Raise `cmcore.Error`: NumPy has no gradients."""
        _no_gradients("train")


def _conv(self: Any, h: np.ndarray) -> np.ndarray:
    """One product for all of the kernel: many times as fast as a product for each of its places."""
    k, edge = self.layer.kernel, (self.layer.padding, self.layer.padding)
    padded = np.pad(h, ((0, 0), (0, 0), edge, edge))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (k, k), axis=(2, 3))
    out = np.tensordot(windows, self.weight, axes=((1, 4, 5), (1, 2, 3)))
    return np.moveaxis(out, -1, 1) + self.bias[:, None, None]


_LAYERS = {**generic.LAYERS, Conv: _conv}


def _no_gradients(what: str) -> NoReturn:
    raise Error(
        f"NumPy has no gradients, so it cannot {what}; it can sample what another backend trained. "
        'Choose torch, jax or tinygrad, for example pip install "cmcore[torch]".'
    )


BACKEND = NumpyBackend()
