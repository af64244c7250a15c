"""A network's settings by name: what each takes, how its text is read, and what of it a run decides by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from cmcore import networks
from cmcore._options import check_kind
from cmcore._words import choice, nearest
from cmcore.networks import Architecture

DECIDED = {
    "shape": "the data (--size, --channels)",
    "classes": "--classes",
    "two_times": "the recipe",
    "log_weight": "the recipe",
}
"""The settings that are no choice of their own, and what decides them."""


@dataclass(frozen=True)
class Setting:
    """A setting of a network: what it takes, what it is by default, and what it means, as far as that is told.

    A network tells a setting's meaning in its type: ``width: Annotated[int, "channels of each token"] = 384``.
    """

    name: str
    takes: Any
    default: Any
    meaning: str


def choices() -> tuple[str, ...]:
    """Return the names that ``--network`` takes: kinds of network, then presets."""
    return (*networks.names(), *networks.PRESETS)


def of_name(name: str) -> type[Architecture]:
    """Return the class of a kind of network or of a preset; an unknown one is a `ValueError` that lists the known ones."""
    if name in networks.names():
        return networks.get(name)
    if name in networks.PRESETS:
        return networks.PRESETS[name].network
    raise ValueError(f"Unknown network {name!r}; {choice(name, choices(), 'choose one of')}")


def settings_of(network: type[Architecture]) -> dict[str, Setting]:
    """Return the settings that a user may choose, by name."""
    hints = _hints(network)
    return {
        f.name: Setting(f.name, *_told(hints.get(f.name, type(f.default)), f.default))
        for f in fields(network)  # type: ignore[arg-type]
        if f.name not in DECIDED
    }


def split(pairs: Sequence[str]) -> dict[str, str]:
    """Turn ``KEY=VALUE`` strings into texts by name; else `ValueError`."""
    for pair in pairs:
        if not pair.partition("=")[0].strip() or "=" not in pair:
            raise ValueError(f"A network's setting must be written KEY=VALUE, got {pair!r}.")
    return {name.strip(): text.strip() for name, _, text in (pair.partition("=") for pair in pairs)}


def read(network: type[Architecture], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of that network, texts read as what each takes; what does not fit is a `ValueError` or `TypeError`."""
    known = settings_of(network)
    for name in values:
        if name in DECIDED:
            raise ValueError(f"The network's {name} is decided by {DECIDED[name]}; leave it out of --set-network.")
        if name not in known:
            raise ValueError(
                f"The network {network.kind!r} has no setting {name!r}; {choice(name, known, 'its settings are')}"
            )
    return {name: _value(known[name], value) for name, value in values.items()}


def expected(takes: Any) -> str:
    """Return in words what a setting takes, such as "a whole number"."""
    options = get_args(takes)
    if get_origin(takes) is Literal:
        return " or ".join(map(str, options))
    if get_origin(takes) in (Union, UnionType):
        return " or ".join("none" if option is NoneType else expected(option) for option in options)
    if takes is tuple or get_origin(takes) is tuple:
        item = options[0] if options else float
        return f"{'whole ' if item is int else ''}{'numbers' if item in (int, float) else 'values'} with commas between"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}.get(takes, "a value")


def written(value: Any) -> str:
    """Return a value as it is typed."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(written, value)) if isinstance(value, (list, tuple)) else str(value)


def _hints(network: type[Architecture]) -> dict[str, Any]:
    try:
        return get_type_hints(network, include_extras=True)
    except (NameError, TypeError, AttributeError):
        # Somebody else's network, whose types name what is not there: the defaults tell enough.
        return {}


def _told(hint: Any, default: Any) -> tuple[Any, Any, str]:
    if get_origin(hint) is Annotated:
        takes, *more = get_args(hint)
        return takes, default, next((text for text in more if isinstance(text, str)), "")
    return hint, default, ""


def _value(setting: Setting, value: Any) -> Any:
    if not isinstance(value, str):
        if setting.takes in (bool, int, float):
            check_kind(f"The network's {setting.name}", value, setting.takes)
        return value
    try:
        return _read(value, setting.takes)
    except (ValueError, KeyError):
        names = map(str, get_args(setting.takes)) if get_origin(setting.takes) is Literal else ()
        example = "" if setting.default is MISSING else f", such as {written(setting.default) or 'an empty text'}"
        near = nearest(value, names)
        raise ValueError(
            f"The network's {setting.name} must be {expected(setting.takes)}{example}; got {value!r}."
            + (f" Did you mean {near!r}?" if near else "")
        ) from None


def _read(text: str, takes: Any) -> Any:
    """The value that a text stands for; `ValueError` or `KeyError` if it is none."""
    origin, options = get_origin(takes), get_args(takes)
    if origin is Literal:
        return {written(option): option for option in options}[text]
    if origin in (Union, UnionType):
        return None if text.lower() == "none" and NoneType in options else _first(text, options)
    if takes is tuple or origin is tuple:
        kinds = [kind for kind in options if kind is not Ellipsis] or [float]
        items = [part.strip() for part in text.split(",")] if text else []
        if len(kinds) > 1 and len(items) != len(kinds):
            raise ValueError
        return tuple(_read(item, kinds[i % len(kinds)]) for i, item in enumerate(items))
    if takes is bool:
        return {"true": True, "false": False}[text.lower()]
    if takes is float:
        number = float(text)
        if not math.isfinite(number):
            raise ValueError
        return number
    if takes in (int, str):
        return takes(text)
    raise ValueError


def _first(text: str, options: Sequence[Any]) -> Any:
    """What the first of several kinds reads."""
    for option in options:
        try:
            return _read(text, option)
        except (ValueError, KeyError):
            continue
    raise ValueError
