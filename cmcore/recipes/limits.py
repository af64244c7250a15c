"""What the recipes' numbers may be; an option of one name means the same in every recipe."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from numbers import Integral, Real
from typing import Any, NamedTuple


class Limit(NamedTuple):
    """The condition that a number must meet, and the words for it."""

    holds: Callable[[float], bool]
    words: str


POSITIVE = Limit(lambda v: v > 0, "positive")
NOT_NEGATIVE = Limit(lambda v: 0 <= v < math.inf, "0 or more, and finite")
FINITE = Limit(math.isfinite, "finite")
SHARE = Limit(lambda v: 0 <= v <= 1, "from 0 to 1")
BELOW_ONE = Limit(lambda v: 0 <= v < 1, "0 or more, and below 1")
AT_LEAST_ONE = Limit(lambda v: 1 <= v < math.inf, "1 or more, and finite")

LIMITS = {
    "sigma_data": Limit(lambda v: 0 < v < math.inf, "positive and finite: it is the data's standard deviation"),
    "mean": FINITE,
    "std": Limit(lambda v: 0 < v < math.inf, "positive and finite"),
    "guidance": NOT_NEGATIVE,
    "guidance_mix": FINITE,
    "label_dropout": SHARE,
    "mu": BELOW_ONE,
    "q": Limit(lambda v: 1 < v < math.inf, "above 1, and finite"),
    "k": NOT_NEGATIVE,
    "b": POSITIVE,
    "stages": AT_LEAST_ONE,
    "stage": NOT_NEGATIVE,
    "min_gap": BELOW_ONE,
    "transition": POSITIVE,
    "boundary": SHARE,
    "boundary_weight": NOT_NEGATIVE,
    "n": Limit(lambda v: 2 <= v < math.inf, "2 or more, the ends of the grid"),
    "steps": AT_LEAST_ONE,
    "difference": NOT_NEGATIVE,
    "normalize": POSITIVE,
    "tangent_warmup": NOT_NEGATIVE,
    "warmup_max": SHARE,
    "different": SHARE,
    "diagonal": SHARE,
    "split": BELOW_ONE,
    "power": NOT_NEGATIVE,
    "c": POSITIVE,
    "levels": Limit(lambda v: 1 <= v <= 24, "from 1 to 24: float32 knows no shorter ways"),
    "bound": POSITIVE,
    "reach": AT_LEAST_ONE,
    "denoising_weight": NOT_NEGATIVE,
    "gamma": SHARE,
}


def check_numbers(recipe: Any) -> None:
    """Raise `TypeError` or `ValueError` unless each of a recipe's numbers is one and within its limits."""
    for option in fields(recipe):
        kind, value = type(option.default), getattr(recipe, option.name)
        if kind not in (int, float):
            continue
        if isinstance(value, bool) or not isinstance(value, Integral if kind is int else Real):
            raise TypeError(f"{option.name} must be a {'whole ' if kind is int else ''}number, got {value!r}.")
        if option.name in LIMITS and not LIMITS[option.name].holds(float(value)):
            raise ValueError(f"{option.name} must be {LIMITS[option.name].words}, got {value}.")


def check_choices(recipe: Any, known: Mapping[str, Collection[str]]) -> None:
    """Raise `ValueError` unless each of a recipe's options that is chosen by name is one of those known."""
    for option, names in known.items():
        if (choice := getattr(recipe, option, None)) is not None and choice not in names:
            raise ValueError(f"Unknown {option} {choice!r}; choose one of {', '.join(names)}.")
