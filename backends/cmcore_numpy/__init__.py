"""The reference backend: arrays, random numbers and network evaluation in NumPy; no gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

import array_api_compat.numpy as xp
import numpy as np

from cmcore.architectures import Architecture
from cmcore.errors import Error
from cmcore_numpy.networks import NumpyNetwork


@dataclass
class NumpyStream:
    """A counter-based Philox stream."""

    generator: np.random.Generator

    def normal(self, shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
        """Draw standard normal numbers."""
        return self.generator.standard_normal(shape, dtype=dtype)

    def uniform(self, shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
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
    ) -> NumpyNetwork:
        """Return the architecture's forward evaluation with the given or initial weights."""
        return NumpyNetwork.create(architecture, architecture.init(seed) if weights is None else weights, dtype)

    def weights(self, net: NumpyNetwork) -> dict[str, np.ndarray]:
        """Return a copy of a network's weights."""
        return {name: np.array(value) for name, value in net.weights.items()}

    def value_and_grad(self, loss: Callable[..., Any]) -> NoReturn:
        """Raise `cmcore.Error`: NumPy has no gradients."""
        _no_gradients("compute gradients")

    def jvp(self, f: Callable[..., Any], primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> NoReturn:
        """Raise `cmcore.Error`: NumPy has no gradients."""
        _no_gradients("compute Jacobian-vector products")

    def trainer(self, net: NumpyNetwork, loss: Callable[..., Any], **settings: Any) -> NoReturn:
        """Raise `cmcore.Error`: NumPy has no gradients."""
        _no_gradients("train")


def _no_gradients(what: str) -> NoReturn:
    raise Error(
        f"NumPy has no gradients, so it cannot {what}; it can sample what another backend trained. "
        'Choose torch, jax or tinygrad, for example pip install "cmcore[torch]".'
    )


BACKEND = NumpyBackend()
