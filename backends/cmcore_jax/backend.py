"""The members of `cmcore.backend.Backend` in terms of JAX."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from cmcore.backend import Network, check_computes
from cmcore.networks import Architecture
from cmcore.training import TrainSpec
from cmcore_jax import devices, networks, parameters
from cmcore_jax.dtypes import available
from cmcore_jax.random import JaxStream, key
from cmcore_jax.train import TrainStep


@dataclass(frozen=True)
class JaxBackend:
    """JAX bound to a device, or to none: then arrays go, uncommitted, where JAX puts them by default."""

    bound: str | None = None

    name: ClassVar[str] = "jax"
    trainable: ClassVar[bool] = True
    xp: ClassVar[Any] = jnp
    programs: ClassVar[Mapping[str, str]] = {}
    compile_from: ClassVar[int] = 1

    @property
    def device(self) -> str:
        """Name of the device; reading it is what initialises JAX's devices."""
        return self.bound or self.devices()[0]

    def version(self) -> str:
        """Return JAX's version."""
        return jax.__version__

    def devices(self) -> tuple[str, ...]:
        """Return the names of this process's devices ("cpu", "cuda:0", ...), the default one first."""
        return tuple(devices.table())

    def on(self, device: str | None) -> JaxBackend:
        """Return this backend bound to a device; None means JAX's default one, "cuda" the first GPU."""
        return JaxBackend(None if device is None else devices.canonical(device))

    def memory(self) -> int | None:
        """Return the most bytes that arrays have taken at once on the device; None on the CPU, which does not tell."""
        told = devices.table()[self.device].memory_stats() or {}
        return told.get("peak_bytes_in_use", told.get("bytes_in_use"))

    def float_types(self) -> tuple[str, ...]:
        """Return the names of JAX's floating dtypes, float64 among them only where its 64-bit mode is on."""
        narrow = ("bfloat16", "float16", "float32")
        return (*narrow, "float64") if jax.config.jax_enable_x64 else narrow

    def owns(self, x: object) -> bool:
        """Tell whether x is a `jax.Array`, traced ones included."""
        return isinstance(x, jax.Array)

    def asarray(self, host: Any, dtype: str | None = None) -> jax.Array:
        """Copy data to the device as ``dtype``, or as the dtype it has (in 32 bits unless x64 is on)."""
        data = host if isinstance(host, jax.Array) else np.asarray(host)
        return self._place(jnp.array(data, None if dtype is None else available(dtype)))

    def to_numpy(self, x: jax.Array) -> np.ndarray:
        """Copy an array to the host."""
        return np.array(x)

    def stream(self, seed: int, index: int | jax.Array = 0) -> JaxStream:
        """Return the random stream number ``index``, which may be traced, of ``seed``."""
        return JaxStream(self._place(key(seed, index)))

    def stop_gradient(self, x: jax.Array) -> jax.Array:
        """Return x, through which no gradient flows."""
        return jax.lax.stop_gradient(x)

    def value_and_grad(self, loss: Callable[..., jax.Array]) -> Callable[..., tuple[jax.Array, dict[str, jax.Array]]]:
        """Return ``g(net, *args) -> (loss(net, *args), gradients by name)``; ``net`` is a callable pytree."""

        def evaluate(net: Any, *args: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
            weights, rebuild = parameters.split(net)
            return jax.value_and_grad(lambda w: loss(rebuild(w), *args))(weights)

        return evaluate

    def jvp(
        self, f: Callable[..., jax.Array], primals: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]
    ) -> tuple[jax.Array, jax.Array]:
        """Return ``f(*primals)`` and its derivative along the tangents (forward mode)."""
        return jax.jvp(f, tuple(primals), tuple(tangents))

    def compile(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """Return f under `jax.jit`."""
        # jax.jit hashes what it is given, which a module, or a dataclass that holds one, does not allow.
        return jax.jit(lambda *args, **kwargs: f(*args, **kwargs))

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
        """Build the architecture as an equinox module."""
        values = architecture.init(seed) if weights is None else weights
        check_computes(self, compute)
        inner = available(compute) if compute else None
        net: Network = networks.build(architecture, values, lambda w: self.asarray(w, dtype), inner, recompute)
        return net

    def weights(self, net: Network) -> dict[str, np.ndarray]:
        """Return a network's weights as host arrays by name."""
        return {name: np.array(w) for name, w in parameters.split(net)[0].items()}

    def train_step(self, net: Network, spec: TrainSpec, frozen: Mapping[str, Network]) -> TrainStep:
        """Return the train step of an equinox module or another callable pytree, which is left as it is."""
        return TrainStep(net, spec, frozen)

    def _place(self, x: jax.Array) -> jax.Array:
        if self.bound is None or isinstance(x, jax.core.Tracer):
            return x
        return jax.device_put(x, devices.table()[self.bound])


BACKEND = JaxBackend()
