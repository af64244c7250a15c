"""What a pickle says, read opcode by opcode: tensors and plain data. Nothing that it names is imported, called or made."""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from cmcore.interchange.bounds import VALUES, Bounded


@dataclass(frozen=True)
class Named:
    """A class or function, by the name that the pickle has for it."""

    module: str
    name: str


@dataclass(slots=True)
class Made:
    """An object that the pickle would have made by calling ``function``; a record of it, nothing else."""

    function: Any
    arguments: Any
    state: Any = None
    items: list[Any] = field(default_factory=list)


Known = Mapping[tuple[str, str], Callable[..., Any]]
"""What stands for the result of a call, by the module and name of what would be called."""


class _Mark:
    pass


def said(file: Bounded, known: Known, persistent: Callable[[Any], Any]) -> Any:
    """Return the next pickle in a file as data, calls as `Made` but for those ``known``; `ValueError` for a broken one.

    ``persistent`` stands for what lies outside the pickle, by its identifier there.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    mark = _Mark()
    argument: Any
    # Its type says that it takes what has BytesIO's other methods too.
    for count, (opcode, argument, _) in enumerate(pickletools.genops(cast(Any, file))):
        name = opcode.name
        if count > VALUES:
            raise ValueError("it piles up more values than tensors and plain data need")
        if name == "STOP":
            return stack.pop()
        if name in ("PROTO", "FRAME"):
            continue
        if name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if argument is None else _place(argument)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "MARK":
            stack.append(mark)
        elif name in _LITERALS:
            stack.append(_LITERALS[name]())
        elif name in _SPREAD:
            items = []
            while (item := stack.pop()) is not mark:
                items.append(item)
            _SPREAD[name](stack, items[::-1])
        elif name in _STEPS:
            _STEPS[name](stack, known)
        elif name == "GLOBAL":
            module, _, attribute = argument.partition(" ")
            stack.append(Named(module, attribute))
        elif name == "BINPERSID":
            stack.append(persistent(stack.pop()))
        elif name in _PLAIN:
            stack.append(argument)
        else:
            raise ValueError(f"its opcode {name} has no place among tensors and plain data")
    raise ValueError("it ends too early")


_PLAIN = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8".split()
)
"""The opcodes of which the argument is the value."""

_LITERALS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
    "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict, "EMPTY_SET": list,
}  # fmt: skip


def _pairs(items: list[Any]) -> list[tuple[Any, Any]]:
    return [(_key(k), v) for k, v in zip(items[::2], items[1::2], strict=True)]


def _key(key: Any) -> Any:
    # Records and lists are no keys of a dict, and long integers can be made to have all the same hash.
    if isinstance(key, (str, float, bytes, type(None), Named)) or (isinstance(key, int) and key.bit_length() < 64):
        return key
    return str(type(key))


def _place(index: int) -> int:
    if not 0 <= index < 2**32:
        raise ValueError("it keeps a value where no honest pickle does")
    return index


def _put(target: Any, pairs: list[tuple[Any, Any]]) -> None:
    if isinstance(target, dict):
        target.update(pairs)
    elif isinstance(target, Made):
        target.items += pairs
    else:
        raise ValueError("it puts items into what has none")


def _append(target: Any, items: list[Any]) -> None:
    if isinstance(target, Made):
        target.items += items
    elif isinstance(target, list):
        target += items
    else:
        raise ValueError("it appends to what is no list")


_SPREAD: dict[str, Callable[[list[Any], list[Any]], None]] = {
    "TUPLE": lambda stack, items: stack.append(tuple(items)),
    "LIST": lambda stack, items: stack.append(items),
    "FROZENSET": lambda stack, items: stack.append(items),
    "DICT": lambda stack, items: stack.append(dict(_pairs(items))),
    "SETITEMS": lambda stack, items: _put(stack[-1], _pairs(items)),
    "APPENDS": lambda stack, items: _append(stack[-1], items),
    "ADDITEMS": lambda stack, items: _append(stack[-1], items),
    "POP_MARK": lambda stack, items: None,
}


def _several(count: int) -> Callable[[list[Any], Known], None]:
    def step(stack: list[Any], known: Known) -> None:
        items = tuple(stack[-count:])
        if len(items) < count:
            raise ValueError("it takes more values than there are")
        del stack[-count:]
        stack.append(items)

    return step


def _global(stack: list[Any], known: Known) -> None:
    name, module = stack.pop(), stack.pop()
    if not isinstance(module, str) or not isinstance(name, str):
        raise ValueError("it names a class by what is no name")
    stack.append(Named(module, name))


def _call(stack: list[Any], known: Known) -> None:
    arguments, function = stack.pop(), stack.pop()
    stand_in = known.get((function.module, function.name)) if isinstance(function, Named) else None
    stack.append(stand_in(*arguments) if stand_in and isinstance(arguments, tuple) else Made(function, arguments))


def _build(stack: list[Any], known: Known) -> None:
    state, target = stack.pop(), stack[-1]
    if isinstance(target, Made):
        target.state = state


def _set_item(stack: list[Any], known: Known) -> None:
    value, key = stack.pop(), stack.pop()
    _put(stack[-1], [(_key(key), value)])


def _append_one(stack: list[Any], known: Known) -> None:
    item = stack.pop()
    _append(stack[-1], [item])


def _new(stack: list[Any], known: Known) -> None:
    keywords, arguments, function = stack.pop(), stack.pop(), stack.pop()
    stack.append(Made(function, arguments, keywords))


_STEPS: dict[str, Callable[[list[Any], Known], None]] = {
    "TUPLE1": _several(1), "TUPLE2": _several(2), "TUPLE3": _several(3), "STACK_GLOBAL": _global, "REDUCE": _call,
    "NEWOBJ": _call, "NEWOBJ_EX": _new, "BUILD": _build, "SETITEM": _set_item, "APPEND": _append_one,
    "POP": lambda stack, known: stack.pop() and None, "DUP": lambda stack, known: stack.append(stack[-1]),
}  # fmt: skip
