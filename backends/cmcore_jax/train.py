"""The train step, a jitted function from (state, inputs) to (state, loss), and the object that holds the state."""

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
from cmcore_jax.many import Spread
from cmcore_jax.parameters import Parameters, path_name, split
from cmcore_jax.random import JaxStream, key

State = dict[str, Any]
Step = Callable[..., Any]

_SCALERS = {"radam": optax.scale_by_radam, "adam": optax.scale_by_adam, "adamw": optax.scale_by_adam}


class TrainStep:
    """A network with its optimiser and averages as one state; see `cmcore.backend.TrainStep`.

    The state's buffers are donated to each step; the networks handed in are copied or only read. With ``spread`` it is on a mesh of
    devices, and each of several processes is given its own samples of the batch.
    """

    def __init__(
        self, net: Network, spec: TrainSpec, frozen: Mapping[str, Network], spread: Spread | None = None
    ) -> None:
        weights, rebuild = split(net)
        rule = transformation(spec.optimizer)
        self._state: State = {name: jax.tree.map(jnp.copy, weights) for name in ("online", *spec.averages)}
        self._state["optimizer"] = rule.init(weights)
        self._spread = spread
        if spread:
            self._state = spread.weights(self._state)
        double = any(w.dtype == np.float64 for w in weights.values())
        self._scalar_type = np.float64 if double else np.float32
        # Closed over, the frozen networks' arrays would be constants of the program, so they are arguments; as a plain
        # list, which JAX flattens at each call much faster than modules.
        arrays, static = eqx.partition(dict(frozen), eqx.is_array)
        self._frozen, structure = jax.tree.flatten(arrays)
        if spread:
            self._frozen = [spread.same(a) for a in self._frozen]

        def networks(online: Parameters, target: Parameters, leaves: list[jax.Array]) -> dict[str, Network]:
            others = eqx.combine(jax.tree.unflatten(structure, leaves), static)
            return {**others, "online": rebuild(online), "target": rebuild(target)}

        self._step = make_step(networks, spec, rule, spread)
        self.seen: list[tuple[jax.Array, jax.Array]] = []

    def __call__(self, index: int, x0: Any, scalars: Mapping[str, float], cond: Mapping[str, Any]) -> jax.Array:
        """Take one optimisation step and return the mean loss, a 0-d array that is not yet waited for."""
        names = tuple(sorted(scalars))
        # All scalars travel in one array: one transfer to the device rather than one for each.
        values = np.array([scalars[name] for name in names], self._scalar_type)
        cond, x0 = {name: _steady(value) for name, value in cond.items()}, _steady(x0)
        if self._spread:
            cond, x0 = self._spread.cond(cond), self._spread.batch(x0)
        self._state, mean, self.seen = self._step(self._state, self._frozen, x0, cond, values, np.uint32(index), names)
        return mean

    def state(self) -> dict[str, dict[str, jax.Array]]:
        """Return the state, the optimiser's by path."""
        state = self._spread.whole(self._state) if self._spread else self._state
        return {group: _named(tree) for group, tree in state.items()}

    def expected(self, names: Collection[str]) -> dict[str, dict[str, jax.Array]]:
        """Return the state, which has the same names always."""
        return self.state()

    def restore(self, state: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """Put back a state."""
        self._state = {
            group: jax.tree.map_with_path(
                lambda path, leaf, g=group: self._like(leaf, state[g][path_name(path, "/")]), tree
            )
            for group, tree in self._state.items()
        }

    def _like(self, leaf: jax.Array, value: np.ndarray) -> jax.Array:
        """Return a copy of a host array where ``leaf`` is."""
        if self._spread:
            return self._spread.weights(np.array(value, leaf.dtype))
        copied = jnp.array(value, leaf.dtype)
        return jax.device_put(copied, leaf.sharding) if leaf.committed else copied


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
    spread: Spread | None = None,
) -> Step:
    """Return the step ``(state, frozen, x0, cond, values, index, names) -> (state, mean loss, seen)``; the state's memory is reused.

    ``values``, (n,), are the scalars called ``names``. It is one program, or, where the batch is taken in parts, one that is run for
    each part and one for the rest: within one program XLA keeps the parts' memory all at once, or runs a loop of convolutions
    without its fast kernels.
    """

    def parts(x0: Any, cond: dict[str, Any], index: Any) -> list[Any]:
        x0, cond = jax.tree.map(jnp.asarray, (x0, cond))
        stream = JaxStream(key(spec.seed, index))
        wide = jnp.promote_types(x0.dtype, jnp.float32).name
        z, tau = spec.draw(stream, x0.shape, x0.dtype.name, wide)
        if spread:
            z, tau = spread.divided((z, tau))
        found = list(spec.parts(x0, z, tau, cond))
        return [(*spread.divided(part[:3]), part[3]) for part in found] if spread else found

    def differentiate(state: State, frozen: list[jax.Array], part: Any, values: Any, names: tuple[str, ...]) -> Any:
        x0, z, tau, cond = part
        scalars = _scalars(values, names)

        def mean_loss(online: Parameters) -> tuple[jax.Array, jax.Array]:
            nets = networks(online, state.get("target", online), frozen)
            return spec.mean_and_each(nets, x0, z, tau, scalars, cond)

        (mean, each), gradients = jax.value_and_grad(mean_loss, has_aux=True)(state["online"])
        return (mean, gradients), spread.everywhere((each, tau)) if spread else (each, tau)

    def update(state: State, found: Any, values: Any, names: tuple[str, ...]) -> tuple[State, jax.Array]:
        scalars, (mean, gradients) = _scalars(values, names), found
        updates, memory = rule.update(gradients, state["optimizer"], state["online"])
        online = {n: w - (scalars["lr"] * updates[n]).astype(w.dtype) for n, w in state["online"].items()}
        averaged = {name: _average(state[name], online, scalars[f"{name}_decay"]) for name in spec.averages}
        state = {"online": online, "optimizer": memory, **averaged}
        return (spread.kept(state) if spread else state), mean

    def at_once(state: State, frozen: Any, x0: Any, cond: Any, values: Any, index: Any, names: tuple[str, ...]) -> Any:
        (part,) = parts(x0, cond, index)
        found, told = differentiate(state, frozen, part, values, names)
        return *update(state, found, values, names), [told]

    def add(sums: Any, state: State, frozen: Any, part: Any, values: Any, names: tuple[str, ...]) -> Any:
        found, told = differentiate(state, frozen, part, values, names)
        return jax.tree.map(lambda total, one: total + one / spec.accumulate, sums, found), told

    compiled = jax.jit if spec.compiled else _eager
    if spec.accumulate == 1:
        return compiled(at_once, donate_argnums=0, static_argnums=6)
    divide, add = compiled(parts), compiled(add, donate_argnums=0, static_argnums=5)
    update = compiled(update, donate_argnums=0, static_argnums=3)

    def in_parts(state: State, frozen: Any, x0: Any, cond: Any, values: Any, index: Any, names: tuple[str, ...]) -> Any:
        first, *others = divide(x0, cond, index)
        shapes = jax.eval_shape(
            lambda s, f, part, v: differentiate(s, f, part, v, names)[0], state, frozen, first, values
        )
        found = jax.tree.map(lambda s: (np if spread else jnp).zeros(s.shape, s.dtype), shapes)
        found = spread.weights(found) if spread else found
        seen = []
        for part in (first, *others):
            found, told = add(found, state, frozen, part, values, names)
            seen.append(told)
        return *update(state, found, values, names), seen

    return in_parts


def _scalars(values: Any, names: tuple[str, ...]) -> dict[str, jax.Array]:
    values = jnp.asarray(values)
    return {name: values[i] for i, name in enumerate(names)}


def _eager(f: Callable[..., Any], **_: Any) -> Callable[..., Any]:
    return f


def _named(tree: Any) -> dict[str, jax.Array]:
    return {path_name(path, "/"): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def _average(average: Parameters, online: Parameters, decay: jax.Array) -> Parameters:
    return {n: (decay * a + (1 - decay) * online[n]).astype(a.dtype) for n, a in average.items()}


def _steady(x: Any) -> Any:
    """Return x, copied if it is the host's: the step may read it after the caller has overwritten it."""
    return x if isinstance(x, jax.Array) else np.array(x)
