"""A network, or a part of one, written once: layers and parts as attributes, and what is computed of them.

    class Block(Part):
        def __init__(self, width: int) -> None:
            self.norm, self.linear, self.silu = LayerNorm(width), Linear(width, width, gain=0.0), SiLU()

        def __call__(self, h: Array) -> Array:
            return h + self.linear(self.silu(self.norm(h)))

An attribute is a layer, a part, a list, tuple or dict of them, or plain data: numbers, strings, None and tuples of them. The
names of the weights are the attributes' paths, such as ``blocks.0.linear.weight``. A backend makes it its framework's own:
each part becomes an object of a class with the part's methods, in which the layers compute. So methods use nothing but their
attributes, arguments and `cmcore.namespace`, and call each other as ``self.name``; ``super()`` is not there.

What depends on the order of an image's axes goes through the functions below, which a backend may replace. They take images,
rows (B, C) and tokens (B, N, C), whose channels are the last axis everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from cmcore.backend import namespace
from cmcore.networks.layers import KINDS, Dropout, Layer
from cmcore.types import Array

RESERVED = frozenset(
    "T_destination _apply _backward_hooks _backward_pre_hooks _buffers _call_impl _compiled_call_impl _forward_hooks "
    "_forward_hooks_always_called _forward_hooks_with_kwargs _forward_pre_hooks _forward_pre_hooks_with_kwargs "
    "_get_backward_hooks _get_backward_pre_hooks _get_name _is_full_backward_hook _load_from_state_dict "
    "_load_state_dict_post_hooks _load_state_dict_pre_hooks _maybe_warn_non_full_backward_hook _modules "
    "_named_members _non_persistent_buffers_set _parameters _register_load_state_dict_pre_hook "
    "_register_state_dict_hook _replicate_for_data_parallel _save_to_state_dict _slow_forward _state_dict_hooks "
    "_state_dict_pre_hooks _version _wrapped_call_impl add_module apply bfloat16 buffers call_super_init children "
    "compile cpu cuda double dump_patches eval extra_repr float forward get_buffer get_extra_state get_parameter "
    "get_submodule half ipu load_state_dict modules mtia named_buffers named_children named_modules named_parameters "
    "parameters register_backward_hook register_buffer register_forward_hook register_forward_pre_hook "
    "register_full_backward_hook register_full_backward_pre_hook register_load_state_dict_post_hook "
    "register_load_state_dict_pre_hook register_module register_parameter register_state_dict_post_hook "
    "register_state_dict_pre_hook requires_grad_ set_extra_state set_submodule share_memory state_dict to to_empty "
    "train training type xpu zero_grad".split()
)
"""The names that a framework's own class of modules needs for itself (those of torch.nn.Module)."""

_OF_DICTS = frozenset("clear copy fromkeys get items keys pop popitem setdefault update values".split())
"""The names that a framework's own container of modules by name needs besides."""


class Part:
    """What is written once; see the module's docstring."""

    def enter(self, x: Array) -> Array:
        """Return images (B, C, H, W) in the order of axes that the layers take."""
        return x

    def leave(self, h: Array) -> Array:
        """Return images of the layers as (B, C, H, W)."""
        return h

    def per_channel(self, v: Array, h: Array) -> Array:
        """Return a number for each channel, (B, C), so that it broadcasts against h, images or tokens."""
        sides = [1] * (h.ndim - 2)
        return namespace(v).reshape(v, (v.shape[0], *sides, v.shape[1]) if h.ndim == 3 else (*v.shape, *sides))

    def concat(self, *h: Array) -> Array:
        """Return images, rows or tokens side by side along their channels."""
        return namespace(*h).concat(list(h), axis=2 if h[0].ndim == 3 else 1)

    def split(self, h: Array, n: int) -> tuple[Array, ...]:
        """Return n equal parts of the channels of images, rows or tokens, one after the other."""
        axis = 2 if h.ndim == 3 else 1
        size = h.shape[axis] // n
        return tuple(h[(*[slice(None)] * axis, slice(k * size, (k + 1) * size))] for k in range(n))

    def halves(self, h: Array) -> tuple[Array, Array]:
        """Return the first and the second half of the channels of images, rows or tokens."""
        first, second = self.split(h, 2)
        return first, second

    def tokens(self, h: Array) -> Array:
        """Return images as (B, N, C), a row for each of the N = H W pixels."""
        xp = namespace(h)
        return xp.permute_dims(xp.reshape(h, (*h.shape[:2], h.shape[2] * h.shape[3])), (0, 2, 1))

    def untokens(self, rows: Array, h: Array) -> Array:
        """Return rows (B, N, C) as images of the height and width of h; `tokens` backwards."""
        xp = namespace(rows)
        return xp.reshape(xp.permute_dims(rows, (0, 2, 1)), (rows.shape[0], rows.shape[2], *h.shape[2:]))


def leaves(part: Any, path: str = "", seen: dict[int, str] | None = None) -> Iterator[tuple[str, Layer]]:
    """Yield every layer with its path, in the order of definition; `TypeError` for what is no part, layer or plain data.

    ``seen`` are the paths of the parts so far, by identity: one in two places, whose weights could have two names, is a
    `TypeError` too.
    """
    seen = {} if seen is None else seen
    if isinstance(part, Part) or (isinstance(part, Layer) and part.layout()):
        if id(part) in seen:
            raise TypeError(
                f"{path!r} is the same object as {seen[id(part)]!r}; give each place a part of its own, or the part once a name "
                "and call it twice where its weights are to be shared."
            )
        seen[id(part)] = path
    if isinstance(part, Layer):
        if type(part) not in KINDS:
            raise TypeError(
                f"{path!r} is a {type(part).__name__}, which no backend knows; layers are those of cmcore.networks. Write your own as a "
                "Part, with a Weight for each of its weights."
            )
        yield path, part
        return
    for name, child in _children(part, path):
        yield from leaves(child, name, seen)


def realised(
    part: Part,
    leaf: Callable[[Layer, str], Any],
    node: Callable[[type[Part], Mapping[str, Any]], Any],
    several: Callable[[list[Any] | dict[str, Any]], Any],
) -> Any:
    """Return a part as a backend's own objects, from the leaves up.

    ``leaf(layer, path)`` makes a layer, ``node(cls, attributes)`` an object of the native class of a part's class, and
    ``several`` a container of a list or a dict of such objects. Layers of dropout are numbered in the order of definition.
    """
    if not isinstance(part, Part) or not callable(part):
        raise TypeError(f"A network is a cmcore.networks.Part with a method __call__, got {type(part).__name__}.")
    numbers = {path: i for i, path in enumerate(p for p, layer in leaves(part) if isinstance(layer, Dropout))}

    def made(x: Any, path: str) -> Any:
        if isinstance(x, Layer):
            return leaf(replace(x, number=numbers[path]) if isinstance(x, Dropout) else x, path)
        if isinstance(x, Part):
            return node(type(x), {name: made(child, _joined(path, name)) for name, child in vars(x).items()})
        if isinstance(x, dict):
            return several({name: made(child, _joined(path, name)) for name, child in x.items()})
        if isinstance(x, (list, tuple)) and not _is_plain(x):
            return several([made(child, _joined(path, str(i))) for i, child in enumerate(x)])
        return x

    return made(part, "")


def methods(cls: type[Part]) -> dict[str, Any]:
    """Return what a part's class defines, `Part`'s functions first, for a backend's own class of it.

    A method that needs the class it was written in, as ``super()`` does, and one with a reserved name or the name of one of
    `Part`'s functions are a `TypeError`. Special methods other than ``__call__`` are left out.
    """
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__[:-1]):
        for name, value in vars(base).items():
            if name.startswith("__") and name not in ("__call__", "__doc__"):
                continue
            if name in RESERVED:
                raise TypeError(f"{base.__name__}.{name} has a name of frameworks' modules; choose another.")
            if name in vars(Part) and base is not Part and not name.startswith("__"):
                raise TypeError(
                    f"{base.__name__}.{name} has the name of a function of cmcore.networks.Part, which a backend replaces by its "
                    "own; choose another."
                )
            function = getattr(value, "__func__", getattr(value, "fget", value))
            if "__class__" in getattr(getattr(function, "__code__", None), "co_freevars", ()):
                raise TypeError(
                    f"{base.__name__}.{name} uses super(), which a part cannot: its methods become those of a backend's own "
                    "class. Give the other method a name of its own and call it as self.name()."
                )
            found[name] = value
    return found


def picklable(make: Callable[..., type], *args: Any) -> dict[str, Any]:
    """Return what lets objects of the class ``make(*args)`` be pickled and copied, though no module has the class by name.

    ``make`` is a function of a module; a class among args that was made so is made again itself.
    """
    made = (make, tuple(getattr(a, "_made", a) if isinstance(a, type) else a for a in args))
    return {"_made": made, "__reduce__": lambda self: (_empty, (made,), vars(self))}


def _empty(made: tuple[Callable[..., type], tuple[Any, ...]]) -> Any:
    """An object without attributes of a class that `picklable` told of."""
    cls = _class_of(made)
    return object.__new__(cls)


def _class_of(made: tuple[Callable[..., type], tuple[Any, ...]]) -> type:
    make, args = made
    return make(*(_class_of(a) if isinstance(a, tuple) and a and callable(a[0]) else a for a in args))


def _children(x: Any, path: str) -> list[tuple[str, Any]]:
    """What a part or a container holds, by path; nothing for plain data."""
    if isinstance(x, Part):
        for name in vars(x):
            if name in RESERVED or hasattr(type(x), name):
                where = "frameworks' modules" if name in RESERVED else f"{type(x).__name__}'s methods"
                raise TypeError(f"The attribute {_joined(path, name)!r} has a name of {where}; choose another.")
        return [(_joined(path, name), child) for name, child in vars(x).items()]
    if isinstance(x, dict):
        for name in x:
            if not isinstance(name, str) or not name or "." in name:
                raise TypeError(f"The dict {path!r} of a part has the key {name!r}; keys are names without dots.")
            if name in RESERVED | _OF_DICTS:
                raise TypeError(
                    f"The key {name!r} of the dict {path!r} is a name of frameworks' modules; choose another."
                )
        return [(_joined(path, name), child) for name, child in zip(x, _structured(x, x.values(), path), strict=True)]
    if _is_plain(x):
        return []
    if isinstance(x, (list, tuple)):
        return [(_joined(path, str(i)), child) for i, child in enumerate(_structured(x, x, path))]
    raise TypeError(
        f"The attribute {path!r} of a part is of type {type(x).__name__}; a part holds layers, parts, lists, tuples or dicts "
        "of them, numbers, strings, None and tuples of these. An array belongs into a Weight, a function into a method."
    )


def _structured(container: Any, items: Iterable[Any], path: str) -> list[Any]:
    """The items of a list or dict of parts; `TypeError` if plain data are among them."""
    if odd := [x for x in items if x is not None and not isinstance(x, (Layer, Part, list, tuple, dict))]:
        raise TypeError(
            f"The {type(container).__name__} {path!r} of a part holds a {type(odd[0]).__name__}; a list or dict holds layers and "
            "parts. Write numbers and strings as a tuple of their own."
        )
    return list(items)


def _is_plain(x: Any) -> bool:
    if isinstance(x, tuple):
        return all(_is_plain(item) for item in x)
    return x is None or isinstance(x, (bool, int, float, str))


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
