"""The members of `cmcore.backend.Backend` in terms of JAX."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cmcore._words import counted
from cmcore.backend import Network, check_computes
from cmcore.errors import Error
from cmcore.networks import Architecture
from cmcore.training import TrainSpec
from cmcore.workers import ALONE, Workers
from cmcore_jax import devices as devices_of
from cmcore_jax import networks, parameters
from cmcore_jax.dtypes import available
from cmcore_jax.many import AXIS, JaxWorkers, Spread, join
from cmcore_jax.random import JaxStream, key
from cmcore_jax.train import TrainStep


@dataclass(frozen=True)
class JaxBackend:
    """JAX bound to a device, or to none: then arrays go, uncommitted, where JAX puts them by default."""

    bound: str | None = None
    workers: Workers = ALONE
    spread: Spread | None = None

    name: ClassVar[str] = "jax"
    trainable: ClassVar[bool] = True
    xp: ClassVar[Any] = jnp
    programs: ClassVar[Mapping[str, str]] = {}
    compile_from: ClassVar[int] = 1

    @property
    def device(self) -> str:
        """Name of the device; reading it is what initialises JAX's devices."""
        return self.bound or self.devices()[0]

    def computes_natively(self, dtype: str) -> bool:
        """Tell whether the device has instructions for a type: for bfloat16, accelerators are taken to have them and CPUs not."""
        return dtype == "float32" or (dtype == "bfloat16" and not self.device.startswith("cpu"))

    def version(self) -> str:
        """Return JAX's version."""
        return jax.__version__

    def devices(self) -> tuple[str, ...]:
        """Return the names of this process's devices ("cpu", "cuda:0", ...), the default one first."""
        return tuple(devices_of.table())

    def on(self, device: str | None) -> JaxBackend:
        """Return this backend bound to a device; None means JAX's default one, "cuda" the first GPU."""
        return JaxBackend(None if device is None else devices_of.canonical(device))

    def across(self, device: str | None, devices: int | None, shard: bool) -> JaxBackend:
        """Return this backend on a mesh of devices: so many of the first ones, by default all accelerators, of every process.

        Where a device is named, and no number, it is that one alone.
        """
        join()
        one = self.on(device)
        alike, processes = devices_of.alike(one.device), jax.process_count()
        if devices is None or processes > 1:
            alone = processes == 1 and (device is not None or alike[0].platform == "cpu")
            wanted = 1 if alone else len(alike)
            if devices not in (None, wanted):
                raise Error(
                    f"The {processes} processes have {wanted} devices, all of which take part; leave out --devices."
                )
            devices = wanted
        if devices > len(alike):
            raise Error(
                f"There {'are' if len(alike) > 1 else 'is'} {counted(len(alike), 'device')} like {one.device!r} here, and --devices {devices} "
                "asks for more."
            )
        if shard and devices == 1:
            raise Error("On one device nothing can be spread; leave out --shard, or give --devices.")
        if devices == 1:
            return one
        mesh = Mesh(np.array(alike[:devices]), (AXIS,))
        workers = JaxWorkers(jax.process_index(), processes, devices, shard and processes > 1)
        return replace(one, workers=workers, spread=Spread(mesh, shard))

    def memory(self) -> int | None:
        """Return the most bytes that arrays have taken at once on the device; None on the CPU, which does not tell."""
        told = devices_of.table()[self.device].memory_stats() or {}
        return told.get("peak_bytes_in_use", told.get("bytes_in_use"))

    def float_types(self) -> tuple[str, ...]:
        """Return the names of JAX's floating dtypes, float64 among them only where its 64-bit mode is on."""
        narrow = ("bfloat16", "float16", "float32")
        return (*narrow, "float64") if jax.config.jax_enable_x64 else narrow  # type: ignore[attr-defined]

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
        net: Any = networks.build(architecture, values, lambda w: self.asarray(w, dtype), inner, recompute)
        return net

    def weights(self, net: Network) -> dict[str, np.ndarray]:
        """Return a network's weights as host arrays by name."""
        return {name: np.array(w) for name, w in parameters.split(net)[0].items()}

    def train_step(self, net: Network, spec: TrainSpec, frozen: Mapping[str, Network]) -> TrainStep:
        """Return the train step of an equinox module or another callable pytree, which is left as it is."""
        return TrainStep(net, spec, frozen, self.spread)

    def _place(self, x: jax.Array) -> jax.Array:
        if self.bound is None or isinstance(x, jax.core.Tracer):
            return x
        return jax.device_put(x, devices_of.table()[self.bound])


BACKEND = JaxBackend()
