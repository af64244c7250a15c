"""The train step: draws, the compiled loss and its gradient, torch's optimisers, moving averages."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from cmcore.backend import of
from cmcore.training import TrainSpec
from cmcore.workers import ALONE, Workers
from cmcore_torch.arrays import to_tensor
from cmcore_torch.compiling import compile_lazily, eager_where_compiling_fails
from cmcore_torch.gradients import Loss, Whole
from cmcore_torch.layers import Dropout
from cmcore_torch.streams import Stream

# Each optimiser in the form with the fewest kernel launches that torch has for it.
_OPTIMIZERS: dict[str, tuple[Callable[..., torch.optim.Optimizer], dict[str, Any]]] = {
    "radam": (torch.optim.RAdam, {"foreach": True}),
    "adam": (torch.optim.Adam, {"fused": True}),
    "adamw": (torch.optim.AdamW, {"fused": True}),
}

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What each of these optimisers keeps for a parameter."""


class TrainStep:
    """A copy of a module with its optimiser and averages; see `cmcore.backend.TrainStep`.

    torch's own dropout and the like, in a network that has them, draw from torch's global generator as ever.

    Where several ``workers`` train together, each is given its own samples of the batch; random numbers are drawn for all of it.
    """

    def __init__(
        self, net: nn.Module, spec: TrainSpec, frozen: Mapping[str, Any], device: str, workers: Workers = ALONE
    ) -> None:
        if not isinstance(net, nn.Module):
            raise TypeError(f"The torch trainer trains an nn.Module, got {type(net).__name__}.")
        self._spec, self._device, self._workers = spec, device, workers
        self.seen: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._online = copy.deepcopy(net).to(device).train()
        self._target = copy.deepcopy(self._online).requires_grad_(False) if spec.keep_target else None
        self._held = _way(workers, device)
        trained = [self._online] if self._target is None else [self._online, self._target]
        for module in trained:
            self._held.place(module)
        named = {name: p for name, p in self._online.named_parameters() if p.requires_grad}
        if not named:
            raise TypeError(
                f"The torch trainer trains parameters, and {type(net).__name__} has none that require a gradient."
            )
        self._names, self._parameters = list(named), list(named.values())
        # Of what is spread over processes, this one's share: averages need no other.
        self._ema = [self._held.own(p.detach()).clone() for p in self._parameters]
        self._target_parameters = [] if self._target is None else [self._target.get_parameter(name) for name in named]
        self._drops = [m for net in trained for m in net.modules() if isinstance(m, Dropout)]

        optimizer = spec.optimizer
        method, options = _OPTIMIZERS[optimizer.algorithm]
        self._optimizer = method(
            self._parameters,
            lr=optimizer.lr,
            betas=optimizer.betas,
            eps=optimizer.eps,
            weight_decay=optimizer.weight_decay,
            **options,
        )

        nets: dict[str, Callable[..., torch.Tensor]] = {
            "online": self._online,
            "target": self._online if self._target is None else self._target,
        }
        nets |= {name: _frozen(other, device) for name, other in frozen.items()}

        def mean_loss(*batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
            mean, each = spec.mean_and_each(nets, *batch)
            return mean, each.detach()

        loss = Loss(self._online, mean_loss)
        self._held.wrap(loss, self._parameters)
        self._eager = self._differentiate = self._with_gradients(loss, mean_loss)
        if spec.compiled and not workers.sharded:
            fast = self._with_gradients(loss, compile_lazily(mean_loss))
            self._differentiate = eager_where_compiling_fails(fast, self._eager)

    def __call__(self, index: int, x0: Any, scalars: Mapping[str, float], cond: Mapping[str, Any]) -> torch.Tensor:
        """Take one optimisation step and return the mean loss, a 0-d tensor that is not waited for."""
        x0 = to_tensor(x0, self._device)
        of(x0)  # remembered from here on: torch.compile cannot trace the search for an array's backend
        cond = {name: to_tensor(value, self._device) for name, value in cond.items()}
        stream = Stream(self._spec.seed, index, self._device)
        shape = (x0.shape[0] * self._workers.count, *x0.shape[1:])
        z, tau = self._spec.draw(stream, shape, x0.dtype, torch.promote_types(x0.dtype, torch.float32))
        whole = tau
        if self._workers.count > 1:
            z, tau = self._part_of(z, tau)
        # One transfer for all of them; as tensors, their values are no reason to compile again.
        values = torch.tensor(list(scalars.values()), dtype=x0.dtype).to(self._device, non_blocking=True)
        named = dict(zip(scalars, values.unbind(), strict=True))
        # The very first step is taken as it is: what fails does so at once, and not after minutes of compiling.
        differentiate = self._differentiate if index else self._eager
        value, self.seen = differentiate(list(self._spec.parts(x0, z, tau, cond)), named)
        if self._workers.count > 1:
            each = self._held.all_of([own for own, _ in self.seen])
            self.seen = list(zip(each, whole.chunk(len(each)), strict=True))
            value = torch.stack(each).mean()

        if self._spec.optimizer.clip:
            nn.utils.clip_grad_norm_(self._parameters, self._spec.optimizer.clip)
        self._optimizer.param_groups[0]["lr"] = float(scalars["lr"])
        self._optimizer.step()
        with torch.no_grad():
            own = [self._held.own(p) for p in self._parameters]
            torch._foreach_lerp_(self._ema, own, 1 - scalars["ema_decay"])
            if self._target is not None:
                target = [self._held.own(p) for p in self._target_parameters]
                torch._foreach_lerp_(target, own, 1 - scalars["target_decay"])
        return value

    def state(self) -> dict[str, dict[str, torch.Tensor]]:
        """Return all tensors of the state; those that are not spread over processes share memory with the step's own."""
        moments = {
            f"{name}/{key}": value
            for name, p in zip(self._names, self._parameters, strict=True)
            for key, value in self._optimizer.state[p].items()
        }
        groups = self._networks() | {"optimizer": moments}
        return {
            group: {name: self._held.gathered(t) for name, t in tensors.items()} for group, tensors in groups.items()
        }

    def expected(self, names: Collection[str]) -> dict[str, dict[str, torch.Tensor]]:
        """Return tensors like those of a state with these names: a parameter has moments from its first gradient on."""
        moments = {
            f"{name}/{key}": torch.zeros(()) if key == "step" else p
            for name, p in zip(self._names, self._parameters, strict=True)
            for key in _MOMENTS
            if f"optimizer/{name}/step" in names
        }
        groups = self._networks() | {"optimizer": moments}
        return {group: {name: self._held.like(t) for name, t in tensors.items()} for group, tensors in groups.items()}

    def restore(self, state: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """Put back a state."""
        with torch.no_grad():
            for group, tensors in self._networks().items():
                for name, tensor in tensors.items():
                    tensor.copy_(self._held.scattered(torch.as_tensor(state[group][name]), tensor))
        moments = state["optimizer"]
        copies = {
            i: {
                key: torch.tensor(moments[f"{name}/{key}"])
                if key == "step"
                else self._held.scattered(torch.tensor(moments[f"{name}/{key}"]), p)
                for key in _MOMENTS
            }
            for i, (name, p) in enumerate(zip(self._names, self._parameters, strict=True))
            if f"{name}/step" in moments
        }
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": copies, "param_groups": groups})

    def _part_of(self, z: torch.Tensor, tau: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return this process's samples of a batch, and tell dropout which they are."""
        parts, workers = self._spec.accumulate, self._workers
        rows = torch.as_tensor(workers.rows(len(z), parts), device=z.device)
        whole = len(z) // parts
        own = whole // workers.count
        for module in self._drops:
            module.share = (workers.rank * own, own, whole)
        return z[rows], tau[rows]

    def _with_gradients(
        self, loss: Loss, mean_loss: Callable[..., tuple[torch.Tensor, torch.Tensor]]
    ) -> Callable[..., Any]:
        share = 1 / self._spec.accumulate

        def differentiate(parts: Sequence[tuple[Any, ...]], scalars: dict[str, torch.Tensor]) -> tuple[Any, list[Any]]:
            for p in self._parameters:
                p.grad = None
            loss.compute = mean_loss
            mean: Any = 0.0
            seen = []
            for k, (x0, z, tau, cond) in enumerate(parts, 1):
                with self._held.part(last=k == len(parts)):
                    value, each = self._held.loss(x0, z, tau, scalars, cond)
                    value = share * value
                    value.backward()
                mean = mean + value.detach()
                seen.append((each, tau))
            self._held.finish()
            return mean, seen

        return differentiate

    def _networks(self) -> dict[str, dict[str, torch.Tensor]]:
        """The weights and their averages, sharing memory with the step's own."""
        ema = {n: self._held.spread(a, p) for n, a, p in zip(self._names, self._ema, self._parameters, strict=True)}
        groups = {"online": self._online.state_dict(), "ema": ema}
        return groups if self._target is None else groups | {"target": self._target.state_dict()}


def _way(workers: Workers, device: str) -> Whole:
    """Return how this process holds its weights, and makes its gradients the batch's."""
    if workers.count == 1:
        return Whole()
    from cmcore_torch import distributed  # takes a while, and is for those alone who are several

    return distributed.Shards(device) if workers.sharded else distributed.Copies()


def _frozen(net: Callable[..., torch.Tensor], device: str) -> Callable[..., torch.Tensor]:
    """Return a module in evaluation mode, without gradients, that shares the weights of the one given."""
    if not isinstance(net, nn.Module):
        return net
    shared = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in net.parameters()}
    return copy.deepcopy(net, shared).to(device).eval()
