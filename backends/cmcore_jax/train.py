"""The train step, one jitted function from (state, inputs) to (state, loss), and the object that holds the state."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from cmcore.backend import Network
from cmcore.optimization import Optimizer
from cmcore.training import TrainSpec
from cmcore_jax.parameters import Parameters, path_name, split
from cmcore_jax.random import JaxStream, key

State = dict[str, Any]
Step = Callable[..., tuple[State, jax.Array]]

_SCALERS = {"radam": optax.scale_by_radam, "adam": optax.scale_by_adam, "adamw": optax.scale_by_adam}


class TrainStep:
    """A network with its optimiser and averages as one state; see `cmcore.backend.TrainStep`.

    The state's buffers are donated to each step; the networks handed in are copied or only read.
    """

    def __init__(self, net: Network, spec: TrainSpec, frozen: Mapping[str, Network]) -> None:
        weights, rebuild = split(net)
        rule = transformation(spec.optimizer)
        self._state: State = {name: jax.tree.map(jnp.copy, weights) for name in ("online", *spec.averages)}
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

        step = make_step(networks, spec, rule)
        self._step: Step = jax.jit(step, donate_argnums=0, static_argnums=6) if spec.compiled else step

    def __call__(self, index: int, x0: Any, scalars: Mapping[str, float], cond: Mapping[str, Any]) -> jax.Array:
        """Take one optimisation step and return the mean loss, a 0-d array that is not yet waited for."""
        names = tuple(sorted(scalars))
        # All scalars travel in one array: one transfer to the device rather than one for each.
        values = np.array([scalars[name] for name in names], self._scalar_type)
        cond = {name: _steady(value) for name, value in cond.items()}
        self._state, mean = self._step(self._state, self._frozen, _steady(x0), cond, values, np.uint32(index), names)
        return mean

    def state(self) -> dict[str, dict[str, jax.Array]]:
        """Return the state, the optimiser's by path."""
        return {group: _named(tree) for group, tree in self._state.items()}

    def expected(self, names: Collection[str]) -> dict[str, dict[str, jax.Array]]:
        """Return the state, which has the same names always."""
        return self.state()

    def restore(self, state: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """Put back a state."""
        self._state = {
            group: jax.tree.map_with_path(lambda path, leaf, g=group: _like(leaf, state[g][path_name(path, "/")]), tree)
            for group, tree in self._state.items()
        }


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
    spec: TrainSpec,
    rule: optax.GradientTransformation,
) -> Step:
    """Return the pure step ``(state, frozen, x0, cond, values, index, names) -> (state, mean loss)``.

    ``values``, (n,), are the scalars called ``names``.
    """

    def step(
        state: State,
        frozen: list[jax.Array],
        x0: Any,
        cond: dict[str, Any],
        values: Any,
        index: Any,
        names: tuple[str, ...],
    ) -> tuple[State, jax.Array]:
        x0, cond, values = jax.tree.map(jnp.asarray, (x0, cond, values))
        scalars = {name: values[i] for i, name in enumerate(names)}
        stream = JaxStream(key(spec.seed, index))
        wide = jnp.promote_types(x0.dtype, jnp.float32).name
        z, tau = spec.draw(stream, x0.shape, x0.dtype.name, wide)

        def mean_loss(online: Parameters, x0: Any, z: Any, tau: Any, cond: dict[str, Any]) -> jax.Array:
            nets = networks(online, state.get("target", online), frozen)
            return spec.mean_loss(nets, x0, z, tau, scalars, cond)

        differentiated = jax.value_and_grad(mean_loss)
        if spec.accumulate == 1:
            mean, gradients = differentiated(state["online"], x0, z, tau, cond)
        else:
            parts = jax.tree.map(lambda *each: jnp.stack(each), *spec.parts(x0, z, tau, cond))
            mean, gradients = _means(lambda part: differentiated(state["online"], *part), parts, spec.accumulate)
        updates, memory = rule.update(gradients, state["optimizer"], state["online"])
        online = {n: w - (scalars["lr"] * updates[n]).astype(w.dtype) for n, w in state["online"].items()}
        averaged = {name: _average(state[name], online, scalars[f"{name}_decay"]) for name in spec.averages}
        return {"online": online, "optimizer": memory, **averaged}, mean

    return step


def _means(f: Callable[[Any], Any], parts: Any, count: int) -> Any:
    """Return the mean of what f gives for each of the parts, stacked along their first axis, one after the other."""
    shapes = jax.eval_shape(f, jax.tree.map(lambda p: p[0], parts))
    nothing = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    sums, _ = jax.lax.scan(lambda sums, part: (jax.tree.map(jnp.add, sums, f(part)), None), nothing, parts)
    return jax.tree.map(lambda s: s / count, sums)


def _named(tree: Any) -> dict[str, jax.Array]:
    return {path_name(path, "/"): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def _average(average: Parameters, online: Parameters, decay: jax.Array) -> Parameters:
    return {n: (decay * a + (1 - decay) * online[n]).astype(a.dtype) for n, a in average.items()}


def _steady(x: Any) -> Any:
    """Return x, copied if it is the host's: the step may read it after the caller has overwritten it."""
    return x if isinstance(x, jax.Array) else np.array(x)


def _like(leaf: jax.Array, value: np.ndarray) -> jax.Array:
    """Return a copy of a host array where ``leaf`` is."""
    copied = jnp.array(value, leaf.dtype)
    return jax.device_put(copied, leaf.sharding) if leaf.committed else copied
