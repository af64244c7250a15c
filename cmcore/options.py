"""How a method's options are declared: default, one line of help, and bounds or choices, in one place.

    @dataclass(frozen=True)
    class MyMethod(StraightFlowMap):
        share: float = option(0.5, "share of samples that are flow matching", SHARE)

A class derived from it may give another default, ``share: float = 0.25``; help and bounds stay. Where functions are let in beside
names, an option may be any function, which files know by its importable name, ``"module:function"``.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, NamedTuple

from cmcore._annotations import Called
from cmcore._options import check_kind
from cmcore._words import choice


class Limit(NamedTuple):
    """The condition that a number must meet, and the words for it."""

    holds: Callable[[float], bool]
    words: str


POSITIVE = Limit(lambda v: v > 0, "positive")
AT_LEAST_ZERO = Limit(lambda v: v >= 0, "at least 0")
NOT_NEGATIVE = Limit(lambda v: 0 <= v < math.inf, "0 or more, and finite")
FINITE = Limit(math.isfinite, "finite")
DEVIATION = Limit(lambda v: 0 < v < math.inf, "positive and finite")
SHARE = Limit(lambda v: 0 <= v <= 1, "from 0 to 1")
PROPER_SHARE = Limit(lambda v: 0 < v <= 1, "above 0, up to 1")
BELOW_ONE = Limit(lambda v: 0 <= v < 1, "0 or more, and below 1")
AT_LEAST_ONE = Limit(lambda v: 1 <= v < math.inf, "1 or more, and finite")

SigmaData = Annotated[float, Called("sigma_data, the data's standard deviation,"), POSITIVE, FINITE]
"""The data's standard deviation."""

GRID_POINTS = Limit(lambda v: 2 <= v < math.inf, "2 or more, the ends of the grid")


@dataclass(frozen=True)
class Option:
    """An option by name: its default, its help, and a `Limit` of numbers or the names that may be chosen, functions beside them."""

    name: str
    default: Any
    help: str = ""
    limit: Limit | None = None
    choices: tuple[str, ...] = ()
    functions: bool = False


def option(default: Any, help: str, allowed: Limit | Collection[str] | None = None, *, functions: bool = False) -> Any:
    """Declare an option of a frozen dataclass; ``allowed`` is a `Limit` for a number, or the names that a text may be.

    With ``functions`` any function of the user's will do in place of a name; `function_of` is what was chosen.
    """
    if allowed is None or isinstance(allowed, Limit):
        return field(default=default, metadata={"help": help, "limit": allowed})
    return field(default=default, metadata={"help": help, "choices": tuple(allowed), "functions": functions})


def options_of(declared: Any) -> dict[str, Option]:
    """Return the options of a class or an object, a dataclass, by name; an option declared without help has none."""
    cls = declared if isinstance(declared, type) else type(declared)
    return {f.name: Option(f.name, f.default, **_said(cls, f.name)) for f in fields(cls)}


def check_options(chosen: Any) -> None:
    """Raise `TypeError` or `ValueError` unless each option is of its default's kind, one of its choices, within its limit."""
    for declared in options_of(chosen).values():
        value = getattr(chosen, declared.name)
        if declared.choices and value not in declared.choices and not (declared.functions and _is_function(value)):
            those = choice(value, declared.choices, "choose one of")
            raise ValueError(f"Unknown {declared.name} {value!r}; {those}")
        check_kind(declared.name, value, type(declared.default))
        if declared.limit and not declared.limit.holds(float(value)):
            raise ValueError(f"{declared.name} must be {declared.limit.words}, got {value}.")


def function_of(chosen: str | Callable[..., Any], table: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    """Return the function that an option chooses: one of a table by its name, one of the user's, or that one by `function_name`.

    A name is looked for in the modules that are imported already, for a file must not run code: `ValueError` where it is not there.
    """
    if callable(chosen):
        return chosen
    if chosen in table:
        return table[chosen]
    module, _, path = chosen.partition(":")
    found: Callable[..., Any] | None = _found(module, path)
    if not callable(found):
        raise ValueError(
            f"There is no function {chosen!r} where Python has looked so far; import {module} before it is used."
        )
    return found


def function_name(function: Any) -> str:
    """Return the name, ``"module:function"``, by which files know a function; `ValueError` where it has none to be found by."""
    module, path = getattr(function, "__module__", ""), getattr(function, "__qualname__", "")
    if module == "__main__" or _found(module, path) is not function:
        raise ValueError(
            f"{function!r} cannot be saved by name: give a function that a module of yours has at its top, so that it can be imported."
        )
    return f"{module}:{path}"


def _found(module: str, path: str) -> Any:
    """What an imported module has under a dotted name, or None."""
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    return found


def _is_function(value: Any) -> bool:
    return callable(value) or (isinstance(value, str) and re.fullmatch(r"\w+(\.\w+)*:\w+(\.\w+)*", value) is not None)


def _said(cls: type, name: str) -> dict[str, Any]:
    """What is said of an option where it was last declared with help: a new default alone takes nothing back."""
    for base in cls.__mro__:
        known = vars(base).get("__dataclass_fields__", {}).get(name)
        if known is not None and known.metadata:
            return dict(known.metadata)
    return {}
