"""What a setting given by name may be: of the kind of its default."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any


def check_kind(name: str, value: Any, kind: type) -> None:
    """Raise `TypeError` unless a value is what a setting of that kind takes: True or False, a whole number, a number."""
    if kind is bool and not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}.")
    if kind is int and (isinstance(value, bool) or not isinstance(value, Integral)):
        raise TypeError(f"{name} must be a whole number, got {value!r}.")
    if kind is float and (isinstance(value, bool) or not isinstance(value, Real)):
        raise TypeError(f"{name} must be a number, got {value!r}.")
