"""The times of editing: the paper's points of the Karras grid between the least noise and the most."""

from __future__ import annotations

from cmcore._options import check_count
from cmcore.grids import T_MAX, T_MIN, karras_host

POINTS = 40
"""The points of the paper's grid for editing, from t_max to t_min (appendix D and the authors' programs)."""

STROKE = (16, 20)
"""The points of it, counted from t_max, from which strokes are edited."""


def edit_times(steps: int = POINTS - 1, t_min: float = T_MIN, t_max: float = T_MAX) -> tuple[float, ...]:
    """Return the decreasing times of `cmcore.editing.edit`: a Karras grid of ``steps + 1`` points from t_max to t_min, without the last.

    At t_min there is no noise to add and f is the identity, so that the paper's 40 points are these 39 evaluations.
    """
    check_count("The number of steps", steps, 1)
    return tuple(float(t) for t in karras_host(steps + 1, t_min, t_max)[:0:-1])


def stroke_times(t_min: float = T_MIN, t_max: float = T_MAX) -> tuple[float, ...]:
    """Return the decreasing times of `cmcore.editing.stroke`: the points 16 and 20 of the grid of 40, counted from t_max as 0.

    With t_min = 0.002 and t_max = 80 these are the paper's 5.38 and 2.24, which it prints without saying where they come from; for
    another range they are the points in the same place of its grid. What matters is their ratio to the data's standard deviation,
    0.5 in the paper: a larger first time hides more of the guide, a smaller one keeps more.
    """
    grid = karras_host(POINTS, t_min, t_max)[::-1]
    return tuple(float(grid[i]) for i in STROKE)
