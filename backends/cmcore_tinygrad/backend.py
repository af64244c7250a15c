"""What `cmcore.backend.Backend` asks for, in terms of tinygrad."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, ClassVar

import numpy as np
from tinygrad import Device, GlobalCounters, Tensor, dtypes
from tinygrad.dtype import DType
from tinygrad.nn.state import get_state_dict

from cmcore.backend import Network, check_computes
from cmcore.errors import Error
from cmcore.networks import Architecture
from cmcore.training import TrainSpec
from cmcore.workers import ALONE, Workers
from cmcore_tinygrad import autodiff, namespace, networks
from cmcore_tinygrad import devices as devices_of
from cmcore_tinygrad.compiling import Compiled
from cmcore_tinygrad.streams import HostStream
from cmcore_tinygrad.train import TrainStep


@dataclass(frozen=True)
class TinygradBackend:
    """Tinygrad bound to a device, or to none: then to the one that tinygrad chooses when it is first used."""

    bound: str | None = None
    workers: Workers = ALONE

    name: ClassVar[str] = "tinygrad"
    trainable: ClassVar[bool] = True
    xp: ClassVar[Any] = namespace
    programs: ClassVar[Mapping[str, str]] = {"clang": "to run on the CPU"}
    compile_from: ClassVar[int] = 1

    @property
    def device(self) -> str:
        """Name of the device; reading it is what makes tinygrad look for devices."""
        return self.bound or devices_of.default()

    def version(self) -> str:
        """Return tinygrad's version."""
        return version("tinygrad")

    def devices(self) -> tuple[str, ...]:
        """Return tinygrad's names of the devices that work here ("CPU", "CUDA", ...), the default one first."""
        return devices_of.usable()

    def on(self, device: str | None) -> TinygradBackend:
        """Return this backend bound to a device, in capitals or not; None keeps the binding."""
        return self if device is None else TinygradBackend(devices_of.canonical(device))

    def across(self, device: str | None, devices: int | None, shard: bool) -> TinygradBackend:
        """Return this backend on so many devices of a kind, CPU, CPU:1, ...; each of them has all weights."""
        one = self.on(device)
        if shard:
            raise Error("With tinygrad each device has all weights; leave out --shard.")
        if devices is None or devices == 1:
            return one
        devices_of.several(one.device, devices)
        return replace(one, workers=Workers(devices=devices))

    def memory(self) -> int | None:
        """Return the bytes that buffers take now, on all of tinygrad's devices; None on the CPU."""
        return None if self.device.startswith("CPU") else int(GlobalCounters.mem_used)

    def float_types(self) -> tuple[str, ...]:
        """Return those that the namespace claims and the device has; Metal, for one, has no float64."""
        there = Device[self._ready()].renderer.supported_dtypes()
        return tuple(name for name in ("float32", "float64") if _dtype(name) in there)

    def owns(self, x: object) -> bool:
        """Tell whether x is a `tinygrad.Tensor`."""
        return isinstance(x, Tensor)

    def asarray(self, host: Any, dtype: str | None = None) -> Tensor:
        """Copy data to the device as ``dtype``, or as the dtype it has."""
        device = self._ready()
        return namespace.asarray(host, dtype=None if dtype is None else _dtype(dtype), device=device).realize()

    def to_numpy(self, x: Tensor) -> np.ndarray:
        """Compute a tensor, if that has not been done yet, and copy it to the host."""
        # On its own device first: a constant would be made on the CPU, for which a compiler may be missing.
        return np.array(x.contiguous().realize().numpy())

    def stream(self, seed: int, index: int = 0) -> HostStream:
        """Return the random stream number ``index`` of ``seed``; its numbers are the same on every device."""
        return HostStream(seed, index, self._ready())

    def stop_gradient(self, x: Tensor) -> Tensor:
        """Return x detached."""
        return x.detach()

    def value_and_grad(self, loss: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, dict[str, Tensor]]]:
        """Return ``g(net, *args) -> (loss, gradients by name)`` for any tinygrad class; unused parameters get zeros."""
        return autodiff.value_and_grad(loss)

    def jvp(
        self, f: Callable[..., Tensor], primals: tuple[Tensor, ...], tangents: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor]:
        """Return ``f(*primals)`` and its derivative along the tangents; tinygrad has reverse mode only, so this is two."""
        return autodiff.jvp(f, tuple(primals), tuple(tangents))

    def compile(self, f: Callable[..., Any]) -> Compiled:
        """Return f under TinyJit, one compilation per combination of shapes; see `Compiled` for what f may do."""
        return Compiled(f, self._ready())

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
        """Build the architecture as a tinygrad class whose state dict has the architecture's names and shapes."""
        values = architecture.init(seed) if weights is None else weights
        check_computes(self, compute)
        inner = _dtype(compute) if compute else None
        net: Network = networks.build(architecture, values, self._ready(), _dtype(dtype), inner, recompute)
        return net

    def weights(self, net: Network) -> dict[str, np.ndarray]:
        """Return a network's state dict as host arrays."""
        return {name: np.array(t.numpy()) for name, t in get_state_dict(net).items()}

    def train_step(self, net: Network, spec: TrainSpec, frozen: Mapping[str, Network]) -> TrainStep:
        """Return the train step of a copy of the network; the networks given stay as they are."""
        devices = self.workers.devices
        return TrainStep(
            net, spec, frozen, devices_of.several(self._ready(), devices) if devices > 1 else self._ready()
        )

    def _ready(self) -> str:
        """Return the device's name once it is known to work; `cmcore.Error` says what it lacks."""
        devices_of.require(self.device)
        return self.device


def _dtype(name: str) -> DType:
    found = getattr(dtypes, name, None)
    if not isinstance(found, DType):
        raise ValueError(
            f"tinygrad has no data type {name!r}; use float32, float64, int32, int64 or bool, for example."
        )
    return found


BACKEND = TinygradBackend()
