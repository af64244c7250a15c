"""The train step: draws on the host, then one TinyJit program for the loss, gradients, optimiser and averages."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np
from tinygrad import Context, Tensor, TinyJit, dtypes
from tinygrad.dtype import least_upper_dtype
from tinygrad.nn.state import get_state_dict

from cmcore.backend import Loss, Network
from cmcore.backend.protocol import draws_shape
from cmcore.optimization import Optimizer
from cmcore_tinygrad import optimizers
from cmcore_tinygrad.autodiff import parameters
from cmcore_tinygrad.compiling import owned
from cmcore_tinygrad.functions.creation import asarray, zeros
from cmcore_tinygrad.functions.dtypes import is_floating
from cmcore_tinygrad.streams import HostStream

_DRAWS = {"uniform": HostStream.uniform, "normal": HostStream.normal}


class TinygradTrainer:
    """A copy of a network with its optimiser, averages and train step; see `cmcore.backend.Backend.trainer`."""

    def __init__(
        self,
        net: Network,
        loss: Loss,
        *,
        optimizer: Optimizer,
        tau: str,
        draws: int,
        frozen: Mapping[str, Network],
        keep_target: bool,
        seed: int,
        compiled: bool,
        device: str,
    ) -> None:
        if tau not in _DRAWS:
            raise ValueError(f"Unknown distribution of tau {tau!r}; choose one of {', '.join(_DRAWS)}.")
        if taken := sorted({"online", "target"} & frozen.keys()):
            raise ValueError(f"A frozen network cannot be named {taken[0]!r}: the trainer's own network is.")
        self._loss, self._settings = loss, optimizer
        self._draw_tau, self._draws = _DRAWS[tau], draws_shape(draws)
        self._seed, self._device, self._compiled = seed, device, compiled
        self._online = _copied(net)
        self._target = _copied(net) if keep_target else None
        target = self._online if self._target is None else self._target
        self._nets = {name: _evaluating(other) for name, other in frozen.items()}
        self._nets |= {"online": self._online, "target": target}
        self._weights = parameters(self._online)
        self._averages = {"ema": parameters(_copied(net))}
        if self._target is not None:
            self._averages["target"] = parameters(self._target)
        others = [t for t in get_state_dict(self._online).values() if not t.is_param]
        self._optimizer = optimizers.build(optimizer, list(self._weights.values()), others)
        self._steps = 0
        self._precision = least_upper_dtype(dtypes.float32, *(w.dtype for w in self._weights.values()))
        self._programs: dict[Hashable, Callable[..., Any]] = {}
        Tensor.realize(*self._tensors().values(), *get_state_dict(list(frozen.values())).values())

    def step(self, index: int, x0: Any, scalars: Mapping[str, float], cond: Mapping[str, Any] | None = None) -> Tensor:
        """Take one optimisation step and return the mean loss, a 0-d tensor that is not waited for."""
        needed = ("lr", *(f"{name}_decay" for name in self._averages))
        if missing := [name for name in needed if name not in scalars]:
            raise ValueError(f"The train step needs the scalar {missing[0]!r}; it got {', '.join(scalars) or 'none'}.")
        x0 = asarray(x0, device=self._device)
        if not is_floating(x0):
            raise ValueError(f"The train step expects floating-point data x0, got {x0.dtype}.")
        cond = {name: asarray(value, device=self._device) for name, value in (cond or {}).items()}
        stream = HostStream(self._seed, index, self._device)
        wide = least_upper_dtype(x0.dtype, dtypes.float32)
        z = stream.normal(x0.shape, x0.dtype)
        tau = self._draw_tau(stream, (len(x0), *self._draws), wide)

        self._steps += 1
        first, adaptive = optimizers.radam_factors(self._steps, self._settings.betas)
        values = {**scalars, "radam_first": first, "radam_adaptive": adaptive}
        packed = asarray(list(values.values()), dtype=self._precision, device=self._device)
        mean = zeros(1, dtype=wide, device=self._device)
        program = self._program(x0, tuple(values), cond)
        program(*owned([mean, x0, z, tau, packed, *cond.values()]))
        return mean.reshape(())

    def weights(self, kind: str = "ema") -> dict[str, np.ndarray]:
        """Return the weights as host arrays by name; ``kind`` is "online" or "ema"."""
        if kind not in ("online", "ema"):
            raise ValueError(f"Unknown kind of weights {kind!r}; choose online or ema.")
        averaged = self._averages["ema"] if kind == "ema" else {}
        return {name: np.array(t.numpy()) for name, t in (get_state_dict(self._online) | averaged).items()}

    def state(self) -> dict[str, np.ndarray]:
        """Return all that resuming needs, named "online/...", "ema/...", "target/..." and "optimizer/...."""
        tensors = {name: np.array(t.numpy()) for name, t in self._tensors().items()}
        return tensors | {"optimizer/step": np.array(self._steps)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Put back what `state` returned; if it is not of a trainer like this, `ValueError`, and nothing is changed."""
        tensors = self._tensors()
        if odd := sorted({*tensors, "optimizer/step"} ^ state.keys()):
            where = "unknown here" if odd[0] in state else "missing from it"
            raise ValueError(
                f"This state belongs to another trainer: {odd[0]!r} is {where}; "
                "restore it into one made with the same network, optimiser and target."
            )
        for name, tensor in tensors.items():
            if state[name].shape != tensor.shape:
                raise ValueError(f"The state's {name!r} has shape {state[name].shape}; expected {tensor.shape}.")
        for name, tensor in tensors.items():
            tensor.assign(asarray(state[name], dtype=tensor.dtype, device=self._device))
        Tensor.realize(*tensors.values())
        self._steps = int(state["optimizer/step"])

    def _program(self, x0: Tensor, names: tuple[str, ...], cond: Mapping[str, Tensor]) -> Callable[..., Any]:
        """Return the compiled step for inputs like these."""
        signature = (x0.shape, x0.dtype, names, tuple((name, c.shape, c.dtype) for name, c in cond.items()))
        if signature not in self._programs:

            def run(mean: Tensor, x0: Tensor, z: Tensor, tau: Tensor, packed: Tensor, *conditions: Tensor) -> None:
                scalars = {name: packed[i] for i, name in enumerate(names)}
                with Context(TRAINING=1):
                    self._take_step(mean, x0, z, tau, scalars, dict(zip(cond, conditions, strict=True)))

            self._programs[signature] = TinyJit(run) if self._compiled else run
        return self._programs[signature]

    def _take_step(
        self, mean: Tensor, x0: Tensor, z: Tensor, tau: Tensor, scalars: dict[str, Tensor], cond: dict[str, Tensor]
    ) -> None:
        first, adaptive = scalars.pop("radam_first"), scalars.pop("radam_adaptive")
        losses = self._loss(self._nets, x0, z, tau, scalars, cond)
        if losses.shape != x0.shape[:1]:
            raise ValueError(f"The loss must be one number per sample, {x0.shape[:1]}, got shape {losses.shape}.")
        value = losses.mean()
        gradients = value.gradient(*self._weights.values())
        if self._settings.clip:
            gradients = optimizers.clipped(gradients, self._settings.clip)
        for weight, gradient in zip(self._weights.values(), gradients, strict=True):
            weight.grad = gradient
        self._optimizer.lr, self._optimizer.first, self._optimizer.adaptive = scalars["lr"], first, adaptive
        updated = self._optimizer.schedule_step()
        for name, average in self._averages.items():
            decay = scalars[f"{name}_decay"]
            for n, w in self._weights.items():
                average[n].assign((decay * average[n] + (1 - decay) * w).cast(w.dtype))
            updated = [*updated, *average.values()]
        # Written to memory that the caller brings, so that a later step does not overwrite it.
        mean.assign(value.cast(mean.dtype).reshape(1))
        Tensor.realize(mean, *updated)
        for weight in self._weights.values():
            weight.grad = None

    def _tensors(self) -> dict[str, Tensor]:
        """All tensors of the state, by name."""
        named = {"online": get_state_dict(self._online), **self._averages}
        named["optimizer"] = optimizers.state(self._optimizer, list(self._weights))
        return {f"{group}/{name}": t for group, tensors in named.items() for name, t in tensors.items()}


def _evaluating(net: Network) -> Network:
    """Return a network that is not in training, whatever calls it."""

    def call(*args: Any, **kwargs: Any) -> Tensor:
        with Context(TRAINING=0):
            return net(*args, **kwargs)

    return call


def _copied(net: Network) -> Network:
    """Return a network with memory of its own."""
    own = {id(t): t.clone() for t in get_state_dict(net).values()}
    Tensor.realize(*own.values())
    return copy.deepcopy(net, dict(own))
