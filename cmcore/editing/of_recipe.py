"""The times of editing with a trained model, where nothing else is asked for."""

from __future__ import annotations

from cmcore.editing.schedule import stroke_times
from cmcore.grids import T_MAX, T_MIN
from cmcore.recipes import Recipe


def greatest_noise(recipe: Recipe) -> float:
    """Return the greatest standard deviation of noise to start from: the recipe's, or, on paths that go to noise alone, the paper's."""
    return float(getattr(recipe, "t_max", T_MAX))


def default_strokes(recipe: Recipe) -> tuple[float, ...]:
    """Return the decreasing times of strokes: `stroke_times`, as far as the network knows such little noise."""
    first, last = stroke_times(getattr(recipe, "t_min", T_MIN), greatest_noise(recipe))
    return (first, last) if last >= recipe.lowest_time else (max(first, recipe.lowest_time),)
