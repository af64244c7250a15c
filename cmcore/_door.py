"""Checks at the door: the public functions of a module check what they are given, as their signatures say.

A module of formulas ends in ``check_arguments(__name__)``. What it checks stands in the annotations: ``x: Samples``,
``t: Time``, ``n: int``, ``mu: Annotated[float, SHARE]`` (`cmcore.types`, `cmcore.options`, `cmcore._annotations`). The formula is
called with what has passed, times being arrays (B,) by then; it has nothing left to ask. Shapes and dtypes are read, and numbers
looked at; arrays may be traced.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from cmcore._annotations import (
    AboveZero,
    Called,
    Condition,
    Converted,
    Counts,
    EachSample,
    Function,
    OnHost,
    Rule,
    Shape,
    Together,
    Within,
)
from cmcore._arrays import (
    as_own_times,
    as_times,
    check_above_zero,
    check_output,
    check_real,
    check_same,
    check_state,
    check_within,
    is_number,
    to_host,
)
from cmcore._options import check_count, check_function, check_kind
from cmcore.options import Limit

Given = dict[str, Any]
"""The arguments of a call by name."""
_Check = Callable[[Any, Given], Any]
"""One check of a parameter, of its value and all arguments, which raises."""


class _Step(NamedTuple):
    """A check of a parameter by its name, and whether the formula is to have what it returns."""

    name: str
    check: _Check
    converts: bool


def check_arguments(module: str) -> None:
    """Have the public functions of a module, and the methods and constructors of its public classes, check their arguments."""
    room = vars(sys.modules[module])
    for name, thing in list(room.items()):
        if name.startswith("_") or getattr(thing, "__module__", "") != module:
            continue
        if inspect.isfunction(thing):
            room[name] = checked(thing)
        elif inspect.isclass(thing):
            for member, method in list(vars(thing).items()):
                if inspect.isfunction(method) and (not member.startswith("_") or member in ("__init__", "__call__")):
                    setattr(thing, member, checked(method))


def checked(f: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that checks its arguments as its signature says; itself where that says nothing."""
    parameters = inspect.signature(f).parameters
    steps = tuple(_steps(parameters, get_type_hints(f, include_extras=True)))
    if not steps:
        return f
    positional = tuple(p.name for p in parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD))
    more = next((p.name for p in parameters.values() if p.kind is p.VAR_POSITIONAL), None)
    named = [p for p in parameters.values() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    defaults = {p.name: p.default for p in named if p.default is not p.empty}
    required = tuple(p.name for p in named if p.default is p.empty)

    @functools.wraps(f)
    def at_the_door(*args: Any, **kwargs: Any) -> Any:
        given = {**defaults, **dict(zip(positional, args, strict=False)), **kwargs}
        rest = args[len(positional) :]
        twice = any(name in kwargs for name in positional[: len(args)])
        if twice or (rest and more is None) or not all(name in given for name in required):
            return f(*args, **kwargs)  # Python says what is wrong
        for name, check, converts in steps:
            if name == more:
                for value in rest:
                    check(value, given)
            elif converts:
                given[name] = check(given[name], given)
            else:
                check(given[name], given)
        return f(*[given.pop(name) for name in positional], *rest, **given)

    return at_the_door


def _steps(parameters: Any, hints: dict[str, Any]) -> Iterator[_Step]:
    """The checks of a signature in its order."""
    first: dict[str, str] = {}
    for name in parameters:
        yield from _of_parameter(name, hints.get(name), first)


def _of_parameter(name: str, hint: Any, first: dict[str, str]) -> Iterator[_Step]:
    """The checks of a parameter; ``first`` has the first array of each shape so far."""
    optional = get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint)
    if optional:
        hint = functools.reduce(lambda a, b: a | b, (h for h in get_args(hint) if h is not type(None)))
    kind, said = (hint.__origin__, hint.__metadata__) if get_origin(hint) is Annotated else (hint, ())
    called = next((m.name for m in said if isinstance(m, Called)), name)
    checks = [_of_kind(called, kind)]
    # A time is looked at as it was given, and turned into an array at last.
    said = sorted(said, key=lambda m: isinstance(m, EachSample))
    for m in said:
        if isinstance(m, Shape):
            together = next((t.names for t in said if isinstance(t, Together)), "")
            checks.append(_shape(m.dims, called, together, first.get(m.dims)))
            first.setdefault(m.dims, name)
        elif not isinstance(m, Called | Together):
            checks.append(_said(m, name, called, first.get("B *D", "")))
    converting = [None, *(m for m in said if not isinstance(m, Called | Together))]
    for m, check in zip(converting, checks, strict=True):
        if check is not None:
            converts = isinstance(m, EachSample | Counts | Converted) or (isinstance(m, Function) and m.checks_results)
            yield _Step(name, _unless_none(check) if optional else check, converts)


def _of_kind(name: str, kind: Any) -> _Check | None:
    """The check of a number, a choice or a named tuple of arrays."""
    if kind in (int, float):
        return lambda value, given: check_kind(name, value, kind)
    if get_origin(kind) is Literal:
        known = get_args(kind)
        return lambda value, given: _check_choice(name, value, known)
    if hasattr(kind, "_fields"):
        return lambda value, given: _check_fields(name, value, kind)
    return None


def _shape(dims: str, name: str, together: str, first: str | None) -> _Check:
    """The check of an array: a batch if it has an axis of its own beside others, like the first one of its shape."""
    if first is not None:
        names = together or f"{first} and {name}"
        return lambda value, given: check_same(given[first], value, names)
    check = check_state if " *" in dims else check_real
    return lambda value, given: check(value, name)


def _said(m: Any, name: str, called: str, batch: str) -> _Check:
    """The check that one annotation asks for; ``batch`` is the parameter with the samples."""
    if isinstance(m, EachSample | AboveZero) and not batch:
        raise TypeError(f"{name} is a time of samples, but no parameter before it is a batch of them.")
    if isinstance(m, EachSample):
        convert = as_own_times if m.own else as_times
        return lambda value, given: convert(value, given[batch], called)
    if isinstance(m, AboveZero):
        what = m.what
        return lambda value, given: check_above_zero(value, given[batch], what)
    if isinstance(m, Limit):
        holds, words = m
        return lambda value, given: _check_limit(called, value, holds, words)
    if isinstance(m, Within):
        low, high = m
        return lambda value, given: check_within(value, called, low, high)
    if isinstance(m, Function):
        function, returned, same = m
        if m.checks_results:
            return lambda value, given: _like(function, returned, same, value)
        return lambda value, given: check_function(function, value)
    if isinstance(m, Counts):
        one = m.name
        return lambda value, given: _counts(one, value)
    rule = m.holds if isinstance(m, Rule | Condition | OnHost) else m.by if isinstance(m, Converted) else m
    asked = tuple(inspect.signature(rule).parameters)

    def values(value: Any, given: Given) -> list[Any]:
        return [value if n == "value" else called if n == "name" else given[n] for n in asked]

    if rule is m or isinstance(m, Converted):
        return lambda value, given: rule(*values(value, given))
    sentence, error = m.sentence, m.error if isinstance(m, Condition) else ValueError
    if isinstance(m, OnHost):
        return lambda value, given: _check_host(rule, sentence, asked, values(value, given))
    if isinstance(m, Rule):
        return lambda value, given: _check_numbers(rule, sentence, asked, values(value, given))
    return lambda value, given: _check_rule(rule, sentence, asked, values(value, given), error)


def _unless_none(check: _Check) -> _Check:
    return lambda value, given: None if value is None else check(value, given)


def _counts(name: str, values: Any) -> list[int]:
    counts = [*values]
    for count in counts:
        check_count(name, count, 0)
    return counts


def _like(name: str, returned: str, same: str, f: Any) -> Callable[..., Any]:
    """A user's function, whose results are checked to be like its first argument."""
    check_function(name, f)

    def checked_result(x: Any, *args: Any, **kwargs: Any) -> Any:
        out = f(x, *args, **kwargs)
        if same:
            check_same(x, out, same)
            return out
        return check_output(out, x, returned)

    return checked_result


def _check_limit(name: str, value: Any, holds: Callable[[float], bool], words: str) -> None:
    if is_number(value) and not holds(value):
        raise ValueError(f"{name} must be {words}, got {value}.")


def _check_rule(
    holds: Callable[..., Any], sentence: Any, names: tuple[str, ...], values: list[Any], error: Any = ValueError
) -> None:
    if not holds(*values):
        named = dict(zip(names, values, strict=True))
        raise error(sentence.format(**named) if isinstance(sentence, str) else sentence(**named))


def _check_numbers(holds: Callable[..., Any], sentence: Any, names: tuple[str, ...], values: list[Any]) -> None:
    for value in values:
        if not is_number(value):
            return
    _check_rule(holds, sentence, names, values)


def _check_host(holds: Callable[..., Any], sentence: Any, names: tuple[str, ...], values: list[Any]) -> None:
    if not any(value is None for value in values):
        _check_rule(holds, sentence, names, [to_host(value, name) for value, name in zip(values, names, strict=True)])


def _check_choice(name: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        *others, last = (f'"{one}"' for one in known)
        raise ValueError(f"The {name} must be {', '.join(others)} or {last}, got {value!r}.")


def _check_fields(name: str, value: Any, kind: Any) -> None:
    if not isinstance(value, kind):
        whole = f"{kind.__module__}.{kind.__name__}({', '.join(kind._fields)})"
        raise TypeError(f"{name} must be a {whole}, got {type(value).__name__}.")
    for field, array in zip(kind._fields, value, strict=True):
        check_real(array, f"{name}.{field}")
