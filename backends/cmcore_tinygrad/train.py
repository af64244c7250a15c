"""The train step: draws on the host, then one TinyJit program for the loss, gradients, optimiser and averages."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from typing import Any

import numpy as np
from tinygrad import Context, Tensor, TinyJit, dtypes
from tinygrad.dtype import least_upper_dtype
from tinygrad.nn.state import get_state_dict

from cmcore.backend import Network
from cmcore.networks.generic import natives
from cmcore.optimization import radam_factors
from cmcore.training import DROPOUT, TrainSpec
from cmcore_tinygrad import optimizers
from cmcore_tinygrad.autodiff import parameters
from cmcore_tinygrad.compiling import owned
from cmcore_tinygrad.functions.creation import asarray, zeros
from cmcore_tinygrad.networks import Constant
from cmcore_tinygrad.streams import HostStream


class TrainStep:
    """A copy of a network with its optimiser and averages; see `cmcore.backend.TrainStep`.

    With several devices each of them has all weights and an equal share of the samples of each part of a batch.
    """

    def __init__(
        self, net: Network, spec: TrainSpec, frozen: Mapping[str, Network], device: str | tuple[str, ...]
    ) -> None:
        self._spec = spec
        self._devices = (device,) if isinstance(device, str) else device
        self._device = self._devices[0]
        self.seen: list[tuple[Tensor, Tensor]] = []
        if not parameters(net):
            raise TypeError(f"The tinygrad trainer trains parameters, and {type(net).__name__} has none.")
        self._online = self._copied(net)
        self._target = self._copied(net) if spec.keep_target else None
        target = self._online if self._target is None else self._target
        if len(self._devices) > 1:
            frozen = {name: self._copied(other) for name, other in frozen.items()}
        self._nets = {name: _evaluating(other) for name, other in frozen.items()}
        self._nets |= {"online": self._online, "target": target}
        self._weights = parameters(self._online)
        self._averages = {"ema": parameters(self._copied(net))}
        if self._target is not None:
            self._averages["target"] = parameters(self._target)
        others = [t for t in get_state_dict(self._online).values() if not t.is_param]
        self._optimizer: Any = optimizers.build(spec.optimizer, list(self._weights.values()), others)
        self._steps = 0
        self._precision = least_upper_dtype(dtypes.float32, *(w.dtype for w in self._weights.values()))
        self._programs: dict[Hashable, Callable[..., Any]] = {}
        kept = [t for group in self._groups().values() for t in group.values()]
        Tensor.realize(*kept, *get_state_dict(list(frozen.values())).values())

    def __call__(self, index: int, x0: Any, scalars: Mapping[str, float], cond: Mapping[str, Any]) -> Tensor:
        """Take one optimisation step and return the mean loss, a 0-d tensor that is not waited for."""
        x0 = asarray(x0, device=self._device)
        cond = {name: asarray(value, device=self._device) for name, value in cond.items()}
        stream = HostStream(self._spec.seed, index, self._device)
        wide = least_upper_dtype(x0.dtype, dtypes.float32)
        z, tau = self._spec.draw(stream, x0.shape, x0.dtype, wide)

        self._steps += 1
        first, adaptive = radam_factors(self._steps, self._spec.optimizer.betas)
        values = {**scalars, "radam_first": first, "radam_adaptive": adaptive}
        packed = asarray(list(values.values()), dtype=self._precision, device=self._device)
        mean, each = (zeros(n, dtype=wide, device=self._device) for n in (1, x0.shape[0]))
        program = self._program(x0, tuple(values), cond)
        if self._several:
            x0, z, tau, each = (self._divided(t) for t in (x0, z, tau, each))
            cond = {name: self._everywhere(c) if name == DROPOUT else self._divided(c) for name, c in cond.items()}
            packed, mean = self._everywhere(packed), self._everywhere(mean)
        mean, each, *given = owned([mean, each, x0, z, tau, packed, *cond.values()])
        program(mean, each, *given)
        parted = self._several and self._spec.accumulate > 1
        self.seen = [(each[k], given[2][k]) for k in range(len(each))] if parted else [(each, given[2])]
        return mean.reshape(())

    def state(self) -> dict[str, dict[str, Any]]:
        """Return the state; the optimiser's holds the number of steps besides."""
        groups: dict[str, dict[str, Any]] = self._groups()
        groups["optimizer"] |= {"step": np.array(self._steps)}
        return groups

    def expected(self, names: Collection[str]) -> dict[str, dict[str, Any]]:
        """Return the state, which has the same names always."""
        return self.state()

    def restore(self, state: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """Put back a state."""
        restored = []
        for group, tensors in self._groups().items():
            for name, tensor in tensors.items():
                value = asarray(state[group][name], dtype=tensor.dtype, device=self._device)
                restored.append(tensor.assign(self._everywhere(value) if self._several else value))
        Tensor.realize(*restored)
        self._steps = int(state["optimizer"]["step"])

    def _program(self, x0: Tensor, names: tuple[str, ...], cond: Mapping[str, Tensor]) -> Callable[..., Any]:
        """Return the compiled step for inputs like these."""
        signature = (x0.shape, x0.dtype, names, tuple((name, c.shape, c.dtype) for name, c in cond.items()))
        if signature not in self._programs:

            def run(
                mean: Tensor, each: Tensor, x0: Tensor, z: Tensor, tau: Tensor, packed: Tensor, *conditions: Tensor
            ) -> None:
                scalars = {name: packed[i] for i, name in enumerate(names)}
                with Context(TRAINING=1):
                    self._take_step((mean, each), x0, z, tau, scalars, dict(zip(cond, conditions, strict=True)))

            self._programs[signature] = TinyJit(run) if self._spec.compiled else run
        return self._programs[signature]

    def _take_step(
        self,
        told: tuple[Tensor, Tensor],
        x0: Tensor,
        z: Tensor,
        tau: Tensor,
        scalars: dict[str, Tensor],
        cond: dict[str, Tensor],
    ) -> None:
        first, adaptive = scalars.pop("radam_first"), scalars.pop("radam_adaptive")
        value, losses, gradients = self._differentiate(x0, z, tau, scalars, cond)
        if self._spec.optimizer.clip:
            gradients = optimizers.clipped(gradients, self._spec.optimizer.clip)
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
        mean, each = told
        mean.assign(value.cast(mean.dtype).reshape(1))
        each.assign(losses.detach().cast(each.dtype))
        Tensor.realize(mean, each, *updated)
        for weight in self._weights.values():
            weight.grad = None

    def _differentiate(
        self, x0: Tensor, z: Tensor, tau: Tensor, scalars: dict[str, Tensor], cond: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return the batch's mean loss, each sample's, and the gradients of the mean."""
        found: list[Tensor] = []
        losses: list[Tensor] = []
        for part in self._parts(x0, z, tau, cond):
            x, noise, u, told = part
            value, own = self._spec.mean_and_each(self._nets, x, noise, u, scalars, told)
            losses.append(own)
            each = [value, *value.gradient(*self._weights.values())]
            found = [sum_ + one for sum_, one in zip(found, each, strict=True)] if found else each
            if self._spec.accumulate > 1:
                # One part after the other, so that a part's memory is enough.
                Tensor.realize(*found, own)
        value, *gradients = [total / self._spec.accumulate for total in found] if self._spec.accumulate > 1 else found
        stacked = self._several and len(losses) > 1
        return value, losses[0].stack(*losses[1:]) if stacked else losses[0].cat(*losses[1:]), gradients

    def _parts(self, x0: Tensor, z: Tensor, tau: Tensor, cond: dict[str, Tensor]) -> Iterator[tuple[Any, ...]]:
        """Yield the parts of a batch; one that is divided over devices comes as an array of its parts (`_divided`)."""
        if not self._several or self._spec.accumulate == 1:
            yield from self._spec.parts(x0, z, tau, cond)
            return
        for k in range(self._spec.accumulate):
            yield x0[k], z[k], tau[k], {name: c[k] for name, c in cond.items()}

    @property
    def _several(self) -> bool:
        return len(self._devices) > 1

    def _divided(self, t: Tensor) -> Tensor:
        """Return samples (B, ...) divided over the devices; of a batch in K parts (K, B / K, ...), each of them divided."""
        parts = self._spec.accumulate
        return t.shard(self._devices, 0) if parts == 1 else t.reshape(parts, -1, *t.shape[1:]).shard(self._devices, 1)

    def _everywhere(self, t: Tensor) -> Tensor:
        return t.shard(self._devices)

    def _copied(self, net: Network) -> Network:
        """Return a network with memory of its own, on each of the devices."""
        own = {id(t): self._everywhere(t) if self._several else t.clone() for t in get_state_dict(net).values()}
        Tensor.realize(*own.values())
        copied = copy.deepcopy(net, dict(own))
        if self._several:
            for _, layer in natives(copied):
                if hasattr(layer, "constant"):
                    layer.constant = Constant(self._everywhere(layer.constant.value).realize())
        return copied

    def _groups(self) -> dict[str, dict[str, Tensor]]:
        """All tensors of the state."""
        moments = optimizers.state(self._optimizer, list(self._weights))
        return {"online": get_state_dict(self._online), **self._averages, "optimizer": moments}


def _evaluating(net: Network) -> Network:
    """Return a network that is not in training, whatever calls it."""

    def call(*args: Any, **kwargs: Any) -> Tensor:
        with Context(TRAINING=0):
            return net(*args, **kwargs)

    return call
