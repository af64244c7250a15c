"""Networks written once, as equinox modules whose tree paths are the layout's names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from cmcore.networks import Architecture, Layer, Part, check_weights, methods, picklable, realised
from cmcore_jax.layers import LAYERS

Placement = Callable[[np.ndarray], jax.Array]


class Native(eqx.Module):
    """A layer: its description, its weights, and the dtype of its network's weights; a class derived from it computes."""

    layer: Layer = eqx.field(static=True)
    weight: jax.Array | None
    bias: jax.Array | None
    dtype: Any = eqx.field(static=True)


@jax.tree_util.register_pytree_with_keys_class
class Named(dict[str, Any]):
    """A dict of parts that keeps its order, where JAX sorts the keys of plain dicts."""

    def tree_flatten_with_keys(self) -> tuple[list[tuple[Any, Any]], tuple[str, ...]]:
        """Return the parts with their keys, and the keys."""
        return [(jax.tree_util.DictKey(name), part) for name, part in self.items()], tuple(self)

    @classmethod
    def tree_unflatten(cls, names: tuple[str, ...], parts: Iterator[Any]) -> Named:
        """Return the dict again."""
        return cls(zip(names, parts, strict=True))


class ChannelsLast:
    """`cmcore.networks.Part`'s functions of the order of axes, for images (B, H, W, C)."""

    def enter(self, x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x, 1, -1)

    def leave(self, h: jax.Array) -> jax.Array:
        return jnp.moveaxis(h, -1, 1)

    def per_channel(self, v: jax.Array, h: jax.Array) -> jax.Array:
        return v.reshape(v.shape[0], *(1,) * (h.ndim - 2), v.shape[1])

    def concat(self, *h: jax.Array) -> jax.Array:
        return jnp.concatenate(h, axis=-1)

    def split(self, h: jax.Array, n: int) -> tuple[jax.Array, ...]:
        return tuple(jnp.split(h, n, axis=-1))

    def tokens(self, h: jax.Array) -> jax.Array:
        return h.reshape(h.shape[0], -1, h.shape[-1])

    def untokens(self, rows: jax.Array, h: jax.Array) -> jax.Array:
        return rows.reshape(*h.shape[:-1], rows.shape[-1])


def build(
    architecture: Architecture,
    weights: Mapping[str, np.ndarray],
    place: Placement,
    compute: Any = None,
    recompute: bool = False,
) -> eqx.Module:
    """Return the architecture's module with the given weights, each passed through ``place``; `ValueError` if unfit."""
    check_weights(architecture, weights)
    placed = {name: place(w) for name, w in weights.items()}
    dtype = place(np.zeros(())).dtype  # there may be no weight

    def leaf(layer: Layer, path: str) -> eqx.Module:
        weight, bias = (placed[f"{path}.{n}"] if n in layer.layout() else None for n in ("weight", "bias"))
        return _native_layer(type(layer))(layer, weight, bias, dtype)  # type: ignore[arg-type]

    def several(children: list[Any] | dict[str, Any]) -> Any:
        if isinstance(children, dict):
            return Named(zip(children, map(block, children.values()), strict=True))
        return tuple(map(block, children))

    def block(child: Any) -> Any:
        return _changed(child, _recomputing) if recompute and isinstance(child, eqx.Module) else child

    net = _changed(realised(architecture.part(), leaf, _node, several), _in_full_precision)
    return net if compute is None else _changed(net, _computing_in, compute)


@cache
def _native_layer(cls: type[Layer]) -> type[Native]:
    own = {"__call__": LAYERS[cls], "__module__": cls.__module__, **picklable(_native_layer, cls)}
    return type(cls.__name__, (Native,), own)


def _node(cls: type[Part], attributes: Mapping[str, Any]) -> eqx.Module:
    static = tuple(name for name, value in attributes.items() if _is_static(value))
    module: eqx.Module = _native(cls, tuple(attributes), static)(**attributes)  # type: ignore[arg-type]
    return module


def _is_static(value: Any) -> bool:
    """Whether an attribute is part of the program rather than a tree of arrays."""
    return not any(map(_is_layer, jax.tree.leaves(value, is_leaf=_is_layer)))


def _is_layer(value: Any) -> bool:
    return isinstance(value, Native)


@cache
def _native(cls: type[Part], names: tuple[str, ...], static: tuple[str, ...]) -> type[eqx.Module]:
    own = methods(cls) | {name: f for name, f in vars(ChannelsLast).items() if not name.startswith("__")}
    fields = {name: eqx.field(static=True) for name in static}
    about = {"__annotations__": dict.fromkeys(names, Any), "__module__": cls.__module__}
    return type(cls.__name__, (eqx.Module,), {**own, **fields, **about, **picklable(_native, cls, names, static)})


def _changed(module: eqx.Module, change: Callable[..., Any], *settings: Any) -> eqx.Module:
    """Return the module as one of a class whose ``__call__`` is ``change`` of its own."""
    cls = type(module)
    attributes = {name: getattr(module, name) for name in cls.__dataclass_fields__}
    changed: eqx.Module = _subclass(cls, change, *settings)(**attributes)
    return changed


@cache
def _subclass(cls: type[eqx.Module], change: Callable[..., Any], *settings: Any) -> type[eqx.Module]:
    own = {"__call__": change(cls.__call__, *settings), "__module__": cls.__module__}
    return type(cls.__name__, (cls,), {**own, **picklable(_subclass, cls, change, *settings)})


def _recomputing(call: Callable[..., Any]) -> Callable[..., Any]:
    """Activations are computed again in the backward pass instead of kept."""
    return jax.checkpoint(call)


def _in_full_precision(call: Callable[..., Any]) -> Callable[..., Any]:
    """Products of float32 are float32's, not the TF32 that is JAX's default on a GPU, unless the user has set another default."""

    def run(self: Any, *args: Any, **cond: Any) -> jax.Array:
        with jax.default_matmul_precision(jax.config.jax_default_matmul_precision or "highest"):  # type: ignore[attr-defined]
            out: jax.Array = call(self, *args, **cond)
        return out

    return run


def _computing_in(call: Callable[..., Any], dtype: Any) -> Callable[..., Any]:
    """The weights and x are rounded to the dtype for the computation; what goes in and out keeps its own."""

    def rounded(layer: Native) -> Native:
        weight, bias = (None if w is None else w.astype(dtype) for w in (layer.weight, layer.bias))
        return type(layer)(layer.layer, weight, bias, dtype)

    def run(self: Any, x: jax.Array, c_noise: jax.Array, *args: Any, **cond: Any) -> jax.Array:
        inside = jax.tree.map(rounded, self, is_leaf=_is_layer)
        out: jax.Array = call(inside, x.astype(dtype), c_noise, *args, **cond)
        return out.astype(x.dtype)

    return run
