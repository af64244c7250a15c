"""What a setting given by name may be: of the kind of its default."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any


def check_function(name: str, value: Any) -> None:
    """Raise `TypeError` unless a value can be called."""
    if not callable(value):
        raise TypeError(f"{name} must be a function, got an object of type {type(value).__name__}.")


def check_count(name: str, value: Any, least: int) -> None:
    """Raise `TypeError` or `ValueError` unless a value is a whole number, ``least`` or more."""
    check_kind(name, value, int)
    if value < least:
        raise ValueError(f"{name} must be a whole number, {least} or more, got {value}.")


def check_positive(name: str, value: Any) -> None:
    """Raise `TypeError` or `ValueError` unless a value is a positive, finite number."""
    check_kind(name, value, float)
    if not 0 < value:
        raise ValueError(f"{name} must be positive, got {value}.")
    if value == math.inf:
        raise ValueError(f"{name} must be finite, got {value}.")


def numbers(name: str, values: Any) -> list[float]:
    """Return a sequence of numbers as Python's, or raise `TypeError`."""
    try:
        return [float(v) for v in values]
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a sequence of numbers, got {values!r}.") from None


def check_kind(name: str, value: Any, kind: type) -> None:
    """Raise `TypeError` unless a value is what a setting of that kind takes: True or False, a whole number, a number."""
    if kind is bool and not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}.")
    if kind is int and (isinstance(value, bool) or not isinstance(value, Integral)):
        raise TypeError(f"{name} must be a whole number, got {value!r}.")
    if kind is float and (isinstance(value, bool) or not isinstance(value, Real)):
        raise TypeError(f"{name} must be a number, got {value!r}.")
