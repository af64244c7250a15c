"""The train step, one jitted function from (state, inputs) to (state, loss), and the object that holds the state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from cmcore.backend import Loss, Network
from cmcore.backend.protocol import draws_shape
from cmcore.optimization import Optimizer
from cmcore_jax.parameters import Parameters, path_name, split
from cmcore_jax.random import JaxStream, key

State = dict[str, Any]
Step = Callable[..., tuple[State, jax.Array]]

_SCALERS = {"radam": optax.scale_by_radam, "adam": optax.scale_by_adam, "adamw": optax.scale_by_adam}
_TIMES = {"uniform": JaxStream.uniform, "normal": JaxStream.normal}


class JaxTrainer:
    """A network with its optimiser, averages and jitted train step; see `cmcore.backend.Trainer`.

    The state's buffers are donated to each step; the networks handed in are copied or only read.
    """

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
    ):
        if tau not in _TIMES:
            raise ValueError(f"Unknown distribution of tau {tau!r}; choose one of {', '.join(_TIMES)}.")
        if taken := {"online", "target"} & frozen.keys():
            raise ValueError(f"A frozen network cannot be named {taken.pop()!r}; the train step uses that name.")
        weights, rebuild = split(net)
        rule = transformation(optimizer)
        averages = ("ema", "target") if keep_target else ("ema",)
        self._state: State = {name: jax.tree.map(jnp.copy, weights) for name in ("online", *averages)}
        self._state["optimizer"] = rule.init(weights)
        double = any(w.dtype == np.float64 for w in weights.values())
        self._scalar_type = np.float64 if double else np.float32
        # Closed over, the frozen networks' arrays would be constants of the program, so they are arguments; as a plain
        # list, which JAX flattens at each call much faster than modules.
        arrays, static = eqx.partition(dict(frozen), eqx.is_array)
        self._frozen, structure = jax.tree.flatten(arrays)

        def networks(online: Parameters, target: Parameters, leaves: list[jax.Array]) -> dict[str, Network]:
            others = eqx.combine(jax.tree.unflatten(structure, leaves), static)
            return {**others, "online": rebuild(online), "target": rebuild(target)}

        step = make_step(
            networks, loss, rule, draw_tau=_TIMES[tau], draws=draws_shape(draws), averages=averages, seed=seed
        )
        self._step: Step = jax.jit(step, donate_argnums=0, static_argnums=6) if compiled else step

    def step(
        self, index: int, x0: Any, scalars: Mapping[str, float], cond: Mapping[str, Any] | None = None
    ) -> jax.Array:
        """Take one optimisation step and return the mean loss, a 0-d array that is not yet waited for."""
        names = tuple(sorted(scalars))
        # All scalars travel in one array: one transfer to the device rather than one for each.
        values = np.array([scalars[name] for name in names], self._scalar_type)
        cond = {name: _steady(value) for name, value in (cond or {}).items()}
        self._state, mean = self._step(self._state, self._frozen, _steady(x0), cond, values, np.uint32(index), names)
        return mean

    def weights(self, kind: str = "ema") -> dict[str, np.ndarray]:
        """Return the weights as host arrays by name; ``kind`` is "online" or "ema"."""
        if kind not in ("online", "ema"):
            raise ValueError(f'There are no weights of kind {kind!r}; ask for "online" or "ema".')
        return {name: np.array(w) for name, w in self._state[kind].items()}

    def state(self) -> dict[str, np.ndarray]:
        """Return all that resuming needs as host arrays: "online/...", "ema/...", "optimizer/..." and so on."""
        return {path_name(path, "/"): np.array(leaf) for path, leaf in jax.tree.leaves_with_path(self._state)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Put back what `state` returned; training then continues bit for bit."""
        expected = {path_name(path, "/"): leaf for path, leaf in jax.tree.leaves_with_path(self._state)}
        if odd := sorted(expected.keys() ^ state.keys()):
            where = "missing from it" if odd[0] in expected else "unknown here"
            raise ValueError(
                f"This state belongs to another trainer: {odd[0]!r} is {where}; "
                "restore it into one made with the same network, optimiser and target."
            )
        for name, leaf in expected.items():
            if (state[name].shape, state[name].dtype) != (leaf.shape, leaf.dtype):
                raise ValueError(
                    f"The state's {name!r} is {state[name].dtype} of shape {state[name].shape}; "
                    f"expected {leaf.dtype} of shape {leaf.shape}."
                )
        self._state = jax.tree.map_with_path(lambda path, leaf: _like(leaf, state[path_name(path, "/")]), self._state)


def transformation(optimizer: Optimizer) -> optax.GradientTransformation:
    """Return optax's transformation of gradients into updates, all but the changing learning rate."""
    b1, b2 = optimizer.betas
    parts = [_SCALERS[optimizer.algorithm](b1=b1, b2=b2, eps=optimizer.eps)]
    if optimizer.clip:
        parts.insert(0, optax.clip_by_global_norm(optimizer.clip))
    if optimizer.weight_decay:
        parts.append(optax.add_decayed_weights(optimizer.weight_decay))
    return optax.chain(*parts)


def make_step(
    networks: Callable[[Parameters, Parameters, list[jax.Array]], dict[str, Network]],
    loss: Loss,
    rule: optax.GradientTransformation,
    *,
    draw_tau: Callable[..., jax.Array],
    draws: tuple[int, ...],
    averages: tuple[str, ...],
    seed: int,
) -> Step:
    """Return the pure step ``(state, frozen, x0, cond, values, index, names) -> (state, mean loss)``.

    ``draws`` is the shape of one sample's tau. ``values``, (n,), are the scalars called ``names``; ``averages`` are those
    that the state keeps: "ema", whose decay is the scalar "ema_decay", and perhaps "target".
    """
    needed = {"lr", *(f"{name}_decay" for name in averages)}

    def step(
        state: State,
        frozen: list[jax.Array],
        x0: Any,
        cond: dict[str, Any],
        values: Any,
        index: Any,
        names: tuple[str, ...],
    ) -> tuple[State, jax.Array]:
        if missing := sorted(needed - set(names)):
            raise ValueError(
                f"The train step reads the scalar {missing[0]!r}, which was not among: {', '.join(names)}."
            )
        x0, cond, values = jax.tree.map(jnp.asarray, (x0, cond, values))
        scalars = {name: values[i] for i, name in enumerate(names)}
        stream = JaxStream(key(seed, index))
        z = stream.normal(x0.shape, x0.dtype.name)
        tau = draw_tau(stream, (len(x0), *draws), jnp.promote_types(x0.dtype, jnp.float32).name)

        def mean_loss(online: Parameters) -> jax.Array:
            nets = networks(online, state.get("target", online), frozen)
            losses = loss(nets, x0, z, tau, scalars, cond)
            if losses.shape != x0.shape[:1]:
                raise ValueError(f"The loss must be one number per sample, {x0.shape[:1]}, got shape {losses.shape}.")
            return jnp.mean(losses)

        mean, gradients = jax.value_and_grad(mean_loss)(state["online"])
        updates, memory = rule.update(gradients, state["optimizer"], state["online"])
        online = {n: w - (scalars["lr"] * updates[n]).astype(w.dtype) for n, w in state["online"].items()}
        averaged = {name: _average(state[name], online, scalars[f"{name}_decay"]) for name in averages}
        return {"online": online, "optimizer": memory, **averaged}, mean

    return step


def _average(average: Parameters, online: Parameters, decay: jax.Array) -> Parameters:
    return {n: (decay * a + (1 - decay) * online[n]).astype(a.dtype) for n, a in average.items()}


def _steady(x: Any) -> Any:
    """Return x, copied if it is the host's: the step may read it after the caller has overwritten it."""
    return x if isinstance(x, jax.Array) else np.array(x)


def _like(leaf: jax.Array, value: np.ndarray) -> jax.Array:
    """Return a copy of a host array where ``leaf`` is."""
    copied = jnp.array(value, leaf.dtype)
    return jax.device_put(copied, leaf.sharding) if leaf.committed else copied
