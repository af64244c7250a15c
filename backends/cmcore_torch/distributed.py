"""Training by several processes: how they find each other, what they tell each other, how gradients become means."""

from __future__ import annotations

import atexit
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from cmcore.errors import Error
from cmcore.workers import Workers
from cmcore_torch import devices
from cmcore_torch.gradients import Loss, Whole

PATIENCE = timedelta(minutes=30)
"""How long a process waits for another one, which may be making a picture."""

_BROKEN = ("closed by peer", "reset by peer", "Broken pipe", "gloo/transport", "NCCL", "Timed out waiting")
"""What gloo and NCCL say of a peer that is gone, where they raise no class of their own."""


@dataclass(frozen=True)
class TorchWorkers(Workers):
    """The processes of `torch.distributed`'s default group."""

    def agreed(self, values: Sequence[int]) -> list[int]:
        """Return the largest of each number over all processes; by way of the CPU, so that no device is waited for."""
        told = torch.tensor(values, dtype=torch.int64)
        dist.all_reduce(told, dist.ReduceOp.MAX)
        return told.tolist()

    def lost(self, failure: BaseException) -> bool:
        """Tell whether it was an operation of all processes that failed."""
        said = str(failure)
        found = isinstance(failure, RuntimeError) and (
            isinstance(failure, dist.DistError) or any(words in said for words in _BROKEN)
        )
        if found:
            # Who is gone does not answer to a goodbye.
            atexit.unregister(_leave)
        return found


def join(shard: bool) -> Workers:
    """Return the processes that were launched together, once all of them are there; `Error` if they do not find each other."""
    if not dist.is_initialized():
        kinds = "gloo"
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
            kinds = "cpu:gloo,cuda:nccl"
        try:
            dist.init_process_group(kinds, timeout=PATIENCE)
        except (RuntimeError, ValueError) as problem:
            told = str(problem).strip().partition("\n")[0].rstrip(".")
            raise Error(
                f"The {devices.launched()} processes did not find each other: {told}. Start them by torchrun, with the same "
                "command on every machine."
            ) from problem
        atexit.register(_leave)
    count = dist.get_world_size()
    return TorchWorkers(dist.get_rank(), count, count, shard)


def _leave() -> None:
    with suppress(RuntimeError, ValueError, AssertionError):
        dist.destroy_process_group()


@contextmanager
def _without(warning: str) -> Iterator[None]:
    """Leave out a warning that is of no use here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", warning)
        yield


class Several(Whole):
    """One of several processes, each with its own samples of every part of a batch."""

    def all_of(self, each: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return the numbers of all samples of each part of a batch."""
        own = torch.stack(each)
        found = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(found, own)
        return list(torch.cat(found, dim=1))


class Copies(Several):
    """Every process has all weights; gradients become means as they are ready (`DistributedDataParallel`).

    What the loss does not use is known after the first step, whose gradients are averaged one by one; to look for it at each step
    (`find_unused_parameters`) is then for those networks alone that need it.
    """

    _wrapped: DistributedDataParallel | None = None

    def wrap(self, loss: Loss, parameters: Sequence[nn.Parameter]) -> None:
        """Take the loss."""
        self.loss, self._module, self._parameters = loss, loss, parameters

    def part(self, last: bool) -> AbstractContextManager[Any]:
        """Let gradients become means with the last part's."""
        return nullcontext() if last or self._wrapped is None else self._wrapped.no_sync()

    def finish(self) -> None:
        """Average the first step's gradients."""
        if self._wrapped is not None:
            return
        used = [p.grad for p in self._parameters if p.grad is not None]
        for gradient in used:
            dist.all_reduce(gradient)
            gradient /= dist.get_world_size()
        unused = len(used) < len(self._parameters)
        with _without("`broadcast_buffers` is deprecated"):
            self.loss = self._wrapped = DistributedDataParallel(
                self._module, broadcast_buffers=False, find_unused_parameters=unused
            )


class Shards(Several):
    """Every process has a share of each weight (`fully_shard`): blocks are gathered as they are computed, gradients scattered."""

    def __init__(self, device: str) -> None:
        self._mesh = init_device_mesh(torch.device(device).type, (dist.get_world_size(),))
        self._still: list[FSDPModule] = []

    def place(self, net: nn.Module) -> None:
        """Spread a network's weights, a block, which is what a list or dict of modules holds, at a time."""
        spread = partial(fully_shard, mesh=self._mesh)
        for module in [*net.modules()]:
            if isinstance(module, (nn.ModuleList, nn.ModuleDict)):
                for block in module.children():
                    if not isinstance(block, (nn.ModuleList, nn.ModuleDict)):
                        spread(block)
        # What is called beside the network gathers its own.
        beside = getattr(net, "log_weight", None)
        if isinstance(beside, nn.Module):
            spread(beside)
        spread(net)
        if beside is not None and not isinstance(beside, nn.Module):
            register_fsdp_forward_method(net, "log_weight")
        if not any(p.requires_grad for p in net.parameters()):
            self._still += [module for module in net.modules() if isinstance(module, FSDPModule)]

    def wrap(self, loss: Loss, parameters: Sequence[nn.Parameter]) -> None:
        """Take the loss."""
        self.loss = loss
        self._online: Any = loss.online

    def part(self, last: bool) -> AbstractContextManager[Any]:
        """Let gradients become means with the last part's."""
        self._online.set_requires_gradient_sync(last)
        return _without("FSDP2-wrapped module .* returned a view tensor")

    def finish(self) -> None:
        """Let go of the gathered weights of what has no backward pass: kept, they would stay as they are, however they change."""
        for module in self._still:
            module.reshard()

    def own(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return this process's share of a tensor."""
        return tensor.to_local() if isinstance(tensor, DTensor) else tensor

    def spread(self, own: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
        """Return each process's own share as a tensor that is spread as another one is."""
        if not isinstance(tensor, DTensor):
            return own
        mesh, placements = tensor.device_mesh, tensor.placements
        return DTensor.from_local(own, mesh, placements, run_check=False, shape=tensor.shape, stride=tensor.stride())

    def gathered(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return all of a tensor; every process has to ask for it."""
        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    def scattered(self, whole: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor, the same in each process, spread as another one is."""
        if not isinstance(tensor, DTensor):
            return whole
        return distribute_tensor(whole.to(tensor.device), tensor.device_mesh, tensor.placements)

    def like(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor of the shape and type of all of another one."""
        return torch.empty(tensor.shape, dtype=tensor.dtype) if isinstance(tensor, DTensor) else tensor
