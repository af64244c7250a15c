"""The train step: draws, the compiled loss and its gradient, torch's optimisers, moving averages."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from cmcore.backend import of
from cmcore.backend.protocol import draws_shape
from cmcore.optimization import Optimizer
from cmcore_torch.arrays import to_numpy, to_tensor
from cmcore_torch.compiling import compile_lazily, eager_where_compiling_fails
from cmcore_torch.streams import Stream

# Each optimiser in the form with the fewest kernel launches that torch has for it.
_OPTIMIZERS: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "radam": (torch.optim.RAdam, {"foreach": True}),
    "adam": (torch.optim.Adam, {"fused": True}),
    "adamw": (torch.optim.AdamW, {"fused": True}),
}

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What each of these optimisers keeps for a parameter."""

_DRAWS = {"uniform": Stream.uniform, "normal": Stream.normal}


class Trainer:
    """A copy of a network with its optimiser, averages and train step; see `cmcore.backend.Backend.trainer`.

    Dropout and the like, in a network that has them, draw from torch's global generator as ever.
    """

    def __init__(
        self,
        net: nn.Module,
        loss: Callable[..., torch.Tensor],
        *,
        optimizer: Optimizer,
        tau: str,
        draws: int,
        frozen: Mapping[str, Callable[..., torch.Tensor]],
        keep_target: bool,
        seed: int,
        compiled: bool,
        device: str,
    ) -> None:
        if not isinstance(net, nn.Module):
            raise TypeError(f"The torch trainer trains an nn.Module, got {type(net).__name__}.")
        if tau not in _DRAWS:
            raise ValueError(f"Unknown distribution of tau {tau!r}; choose one of {', '.join(_DRAWS)}.")
        if taken := sorted({"online", "target"} & frozen.keys()):
            raise ValueError(f"A frozen network cannot be named {taken[0]!r}: the trainer's own network is.")
        self._device, self._seed, self._clip = device, seed, optimizer.clip
        self._draw_tau, self._draws = _DRAWS[tau], draws_shape(draws)
        self._online = copy.deepcopy(net).to(device).train()
        named = {name: p for name, p in self._online.named_parameters() if p.requires_grad}
        self._names, self._parameters = list(named), list(named.values())
        self._ema = [p.detach().clone() for p in self._parameters]
        self._target = copy.deepcopy(self._online).requires_grad_(False) if keep_target else None
        self._target_parameters = [self._target.get_parameter(name) for name in named] if keep_target else []

        self._needed = ("lr", "ema_decay", "target_decay") if keep_target else ("lr", "ema_decay")
        method, options = _OPTIMIZERS[optimizer.algorithm]
        self._optimizer = method(
            self._parameters,
            lr=optimizer.lr,
            betas=optimizer.betas,
            eps=optimizer.eps,
            weight_decay=optimizer.weight_decay,
            **options,
        )

        nets = {"online": self._online, "target": self._target if keep_target else self._online}
        nets |= {name: _frozen(other, device) for name, other in frozen.items()}

        def mean_loss(*batch: Any) -> torch.Tensor:
            return torch.mean(loss(nets, *batch))

        self._differentiate = self._with_gradients(mean_loss)
        if compiled:
            fast = self._with_gradients(compile_lazily(mean_loss))
            self._differentiate = eager_where_compiling_fails(fast, self._differentiate)

    def step(
        self, index: int, x0: Any, scalars: Mapping[str, float], cond: Mapping[str, Any] | None = None
    ) -> torch.Tensor:
        """Take one optimisation step and return the mean loss, a 0-d tensor that is not waited for."""
        if missing := [name for name in self._needed if name not in scalars]:
            raise ValueError(f"The train step needs the scalar {missing[0]!r}, got {', '.join(scalars) or 'none'}.")
        x0 = to_tensor(x0, self._device)
        if not x0.is_floating_point():
            raise ValueError(f"The train step expects floating-point data x0, got {x0.dtype}.")
        of(x0)  # remembered from here on: torch.compile cannot trace the search for an array's backend
        cond = {name: to_tensor(value, self._device) for name, value in (cond or {}).items()}
        stream = Stream(self._seed, index, self._device)
        z = stream.normal(x0.shape, x0.dtype)
        tau = self._draw_tau(stream, (len(x0), *self._draws), torch.promote_types(x0.dtype, torch.float32))
        # One transfer for all of them; as tensors, their values are no reason to compile again.
        values = torch.tensor(list(scalars.values()), dtype=x0.dtype).to(self._device, non_blocking=True)
        value = self._differentiate(x0, z, tau, dict(zip(scalars, values.unbind(), strict=True)), cond)

        if self._clip:
            nn.utils.clip_grad_norm_(self._parameters, self._clip)
        self._optimizer.param_groups[0]["lr"] = float(scalars["lr"])
        self._optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self._ema, self._parameters, 1 - scalars["ema_decay"])
            if self._target is not None:
                torch._foreach_lerp_(self._target_parameters, self._parameters, 1 - scalars["target_decay"])
        return value

    def weights(self, kind: str = "ema") -> dict[str, np.ndarray]:
        """Return the weights as host arrays by name; ``kind`` is "online" or "ema"."""
        if kind not in ("online", "ema"):
            raise ValueError(f"Unknown kind of weights {kind!r}; choose online or ema.")
        averaged = dict(zip(self._names, self._ema, strict=True)) if kind == "ema" else {}
        return {name: to_numpy(tensor) for name, tensor in (self._online.state_dict() | averaged).items()}

    def state(self) -> dict[str, np.ndarray]:
        """Return all that resuming needs, named "online/...", "ema/...", "target/..." and "optimizer/...."""
        moments = {
            f"optimizer/{name}/{key}": value
            for name, p in zip(self._names, self._parameters, strict=True)
            for key, value in self._optimizer.state[p].items()
        }
        return {name: to_numpy(tensor) for name, tensor in (self._tensors() | moments).items()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Put back what `state` returned; `ValueError`, and nothing is changed, if that was another kind of trainer."""
        tensors = self._tensors()
        moments = {
            i: {key: f"optimizer/{name}/{key}" for key in _MOMENTS}
            for i, name in enumerate(self._names)
            if f"optimizer/{name}/step" in state
        }
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        for i, names in moments.items():
            shape = tuple(self._parameters[i].shape)
            shapes |= {name: () if key == "step" else shape for key, name in names.items()}
        _check_shapes(state, shapes)

        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(torch.as_tensor(state[name]))
        copies = {i: {key: torch.tensor(state[name]) for key, name in names.items()} for i, names in moments.items()}
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": copies, "param_groups": groups})

    def _with_gradients(self, mean_loss: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def differentiate(*batch: Any) -> torch.Tensor:
            for p in self._parameters:
                p.grad = None
            value = mean_loss(*batch)
            value.backward()
            return value.detach()

        return differentiate

    def _tensors(self) -> dict[str, torch.Tensor]:
        """All tensors of the state but the optimiser's, sharing memory with the trainer's own."""
        tensors = {f"online/{name}": tensor for name, tensor in self._online.state_dict().items()}
        tensors |= {f"ema/{name}": tensor for name, tensor in zip(self._names, self._ema, strict=True)}
        if self._target is not None:
            tensors |= {f"target/{name}": tensor for name, tensor in self._target.state_dict().items()}
        return tensors


def _frozen(net: Callable[..., torch.Tensor], device: str) -> Callable[..., torch.Tensor]:
    """Return a module in evaluation mode, without gradients, that shares the weights of the one given."""
    if not isinstance(net, nn.Module):
        return net
    shared = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in net.parameters()}
    return copy.deepcopy(net, shared).to(device).eval()


def _check_shapes(state: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]) -> None:
    if missing := sorted(shapes.keys() - state.keys()):
        raise ValueError(f"The training state lacks {missing[0]!r}: it is of another kind of trainer.")
    if extra := sorted(state.keys() - shapes.keys()):
        raise ValueError(f"The training state has {extra[0]!r}, which this trainer does not keep.")
    for name, shape in shapes.items():
        if state[name].shape != shape:
            raise ValueError(f"The training state's {name!r} has shape {state[name].shape}; expected {shape}.")
