"""What `cmcore.backend.Backend` asks for, in terms of PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import array_api_compat.torch
import numpy as np
import torch

from cmcore._words import choice
from cmcore.backend import check_computes, of
from cmcore.errors import Error
from cmcore.networks import Architecture
from cmcore.training import TrainSpec
from cmcore.workers import ALONE, Workers
from cmcore_torch import devices as devices_of
from cmcore_torch import networks
from cmcore_torch.arrays import dtype_of, to_numpy, to_tensor
from cmcore_torch.compiling import compiled_or_eager
from cmcore_torch.streams import Stream
from cmcore_torch.train import TrainStep


@dataclass(frozen=True)
class TorchBackend:
    """PyTorch on one device; see `cmcore.backend.Backend` for what each member promises."""

    device: str = "cpu"
    workers: Workers = ALONE
    name: ClassVar[str] = "torch"
    trainable: ClassVar[bool] = True
    xp: ClassVar[Any] = array_api_compat.torch
    programs: ClassVar[Mapping[str, str]] = {"g++": "to compile the train step"}
    compile_from: ClassVar[int] = 200

    def pays_to_compile(self, steps: int, jvp: bool) -> bool:
        """Tell whether compiling the train step is worth its time in a run of so many steps; measured, see BENCHMARKS.md.

        On a CPU it takes up to a minute, for steps that are a fifth faster, with a Jacobian-vector product twice.
        """
        return self.device != "cpu" or steps >= (1_000 if jvp else 8_000)

    def computes_natively(self, dtype: str) -> bool:
        """Tell whether the device has instructions for a type; see `cmcore_torch.devices.computes_natively`."""
        return devices_of.computes_natively(self.device, dtype)

    def write_onnx(
        self,
        function: Callable[..., Any],
        inputs: Mapping[str, Any],
        output: str,
        path: Path,
        about: Mapping[str, str],
        parts: Sequence[Any],
    ) -> None:
        """Write a function as an ONNX file; see `cmcore_torch.onnx`."""
        from cmcore_torch import onnx

        onnx.write(function, inputs, output, path, about, parts)

    def image_decoder(self, folder: Path) -> Callable[[np.ndarray], np.ndarray]:
        """Return the decoder of an autoencoder's folder; see `cmcore_torch.autoencoder`."""
        from cmcore_torch import autoencoder

        return autoencoder.decoder(folder, self.device)

    def version(self) -> str:
        """Return PyTorch's version."""
        return str(torch.__version__)

    def devices(self) -> tuple[str, ...]:
        """Return "cpu" and the accelerators there are, such as "cuda:0" and "cuda:1", or "mps:0"."""
        return devices_of.names()

    def on(self, device: str | None) -> TorchBackend:
        """Return this backend bound to a device; a device without a number is the first of its kind."""
        if device is None:
            return self
        for known in self.devices():
            if device in (known, known.removesuffix(":0")):
                return replace(self, device=known)
        raise ValueError(
            f"There is no device {device!r} for torch here; {choice(device, self.devices(), 'choose one of')}"
        )

    def across(self, device: str | None, devices: int | None, shard: bool) -> TorchBackend:
        """Return this backend as one of the processes that torchrun has started, each with a device of its own."""
        if devices_of.launched() == 1:
            if shard or (devices or 1) > 1:
                raise Error(
                    f"torch trains with one process for each device: torchrun --nproc-per-node {devices or 'N'} -m cmcore train ..., "
                    "without --devices."
                )
            return self.on(device)
        from cmcore_torch import distributed  # takes a while, and is for those alone who are several

        return replace(self.on(devices_of.own(device)), workers=distributed.join(shard))

    def memory(self) -> int | None:
        """Return the most bytes that tensors have taken at once on the device; None on the CPU, and where torch cannot tell."""
        if self.device == "cpu":
            return None
        try:
            return int(torch.accelerator.max_memory_allocated(torch.device(self.device)))
        except (AttributeError, RuntimeError, NotImplementedError, AssertionError):
            return None

    def float_types(self) -> tuple[str, ...]:
        """Return the names of torch's floating dtypes; Apple's GPUs ("mps") have no float64."""
        narrow = ("bfloat16", "float16", "float32")
        return narrow if self.device.startswith("mps") else (*narrow, "float64")

    def owns(self, x: object) -> bool:
        """Tell whether x is a `torch.Tensor`."""
        return isinstance(x, torch.Tensor)

    def asarray(self, host: Any, dtype: str | None = None) -> torch.Tensor:
        """Place host data on the device; a NumPy array already fit for the CPU shares its memory."""
        return to_tensor(host, self.device, dtype_of(dtype) if dtype else None)

    def to_numpy(self, x: torch.Tensor) -> np.ndarray:
        """Copy a tensor to the host; bfloat16, which NumPy lacks, becomes float32."""
        return to_numpy(x)

    def stream(self, seed: int, index: int = 0) -> Stream:
        """Return the random stream number ``index`` of ``seed`` on the device."""
        return Stream(seed, index, self.device)

    def stop_gradient(self, x: torch.Tensor) -> torch.Tensor:
        """Return x detached."""
        return x.detach()

    def without_gradients(self, f: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        """Return f for calls that are not differentiated, in which torch remembers no activations.

        Weights of a module's convolutions are laid out anew where that makes them faster.
        """
        if isinstance(f, torch.nn.Module):
            networks.lay_out(f)

        def plain(*args: Any, **kwargs: Any) -> torch.Tensor:
            with torch.no_grad():
                return f(*args, **kwargs)

        return plain

    def value_and_grad(
        self, loss: Callable[..., torch.Tensor]
    ) -> Callable[..., tuple[torch.Tensor, dict[str, torch.Tensor]]]:
        """Return ``g(net, *args) -> (loss, gradients by name)``; a parameter the loss does not use gets zeros."""

        def value_and_gradients(net: torch.nn.Module, *args: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            parameters = {name: p for name, p in net.named_parameters() if p.requires_grad}
            with torch.enable_grad():
                value = loss(net, *args)
            if value.ndim != 0:
                raise ValueError(f"The loss must be a 0-d tensor to have a gradient, got shape {tuple(value.shape)}.")
            if not value.requires_grad:
                return value, {name: torch.zeros_like(p) for name, p in parameters.items()}
            gradients = torch.autograd.grad(value, list(parameters.values()), materialize_grads=True)
            return value.detach(), dict(zip(parameters, gradients, strict=True))

        return value_and_gradients

    def jvp(
        self,
        f: Callable[..., torch.Tensor],
        primals: tuple[torch.Tensor, ...],
        tangents: tuple[torch.Tensor, ...],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ``f(*primals)`` and its derivative along the tangents, by forward-mode differentiation.

        Where that derivative is differentiated again, f must not use torch's layer_norm: its gradient is wrong
        (github.com/pytorch/pytorch/issues/196700). The networks made here do not.
        """
        found: Any = torch.func.jvp(f, primals, tangents)
        return found

    def compile(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """Return f under `torch.compile`, or as it is where compilation fails."""
        of(torch.empty(0))  # remembered from here on: torch.compile cannot trace the search for an array's backend
        return compiled_or_eager(f)

    def network(
        self,
        architecture: Architecture,
        weights: Mapping[str, np.ndarray] | None = None,
        *,
        seed: int = 0,
        dtype: str = "float32",
        compute: str | None = None,
        recompute: bool = False,
    ) -> torch.nn.Module:
        """Build the architecture as a module whose ``state_dict`` has the architecture's names and shapes."""
        weights = architecture.init(seed) if weights is None else weights
        check_computes(self, compute)
        inner = dtype_of(compute) if compute else None
        return networks.build(architecture, weights, self.device, dtype_of(dtype), inner, recompute)

    def weights(self, net: torch.nn.Module) -> dict[str, np.ndarray]:
        """Return a module's ``state_dict`` as host arrays."""
        return {name: to_numpy(tensor) for name, tensor in net.state_dict().items()}

    def train_step(self, net: torch.nn.Module, spec: TrainSpec, frozen: Mapping[str, Any]) -> TrainStep:
        """Return the train step of a copy of the module; the modules given stay as they are."""
        return TrainStep(net, spec, frozen, self.device, self.workers)
