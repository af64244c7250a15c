"""What the recipes' numbers may be; an option of one name means the same in every recipe."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from typing import Any, NamedTuple

from cmcore._options import check_kind


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
    "teacher_time_scale": Limit(lambda v: 0 < v < math.inf, "positive and finite"),
    "guidance_mix": FINITE,
    "label_dropout": SHARE,
    "mu": BELOW_ONE,
    "q": Limit(lambda v: 1 < v < math.inf, "above 1, and finite"),
    "k": NOT_NEGATIVE,
    "b": POSITIVE,
    "s1": Limit(lambda v: v <= 10**6, "at most 1,000,000 steps of the grid"),
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


def check_kinds(recipe: Any) -> None:
    """Raise `TypeError` or `ValueError` unless each option is of its default's kind, and each number within its limits."""
    for option in fields(recipe):
        value = getattr(recipe, option.name)
        check_kind(option.name, value, type(option.default))
        if option.name in LIMITS and not LIMITS[option.name].holds(float(value)):
            raise ValueError(f"{option.name} must be {LIMITS[option.name].words}, got {value}.")


def check_fixed(recipe: Any) -> None:
    """Raise `ValueError` if an option is changed that the recipe leaves no choice of."""
    defaults = {option.name: option.default for option in fields(recipe)}
    for name in recipe.fixed:
        if getattr(recipe, name) != defaults[name]:
            raise ValueError(
                f"The recipe {recipe.name!r} leaves no choice of {name}: it stays {defaults[name]}, "
                f"got {getattr(recipe, name)}."
            )


def check_choices(recipe: Any, known: Mapping[str, Collection[str]]) -> None:
    """Raise `ValueError` unless each of a recipe's options that is chosen by name is one of those known."""
    for option in fields(recipe):
        if option.name in known and getattr(recipe, option.name) not in tuple(known[option.name]):
            raise ValueError(
                f"Unknown {option.name} {getattr(recipe, option.name)!r}; choose one of {', '.join(known[option.name])}."
            )
