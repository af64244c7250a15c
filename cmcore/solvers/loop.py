"""The loop that takes many steps, and what a method must offer to be driven by it if it is more than a function."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated

from cmcore._annotations import Condition
from cmcore._arrays import as_times, check_above_zero, is_number, per_sample
from cmcore._door import check_arguments
from cmcore.backend import Array
from cmcore.paths import VE, Path, PathGiven, rebased
from cmcore.solvers.onestep import OfPoints
from cmcore.types import Denoiser, GivenTime, Samples, Step
from cmcore.types import Memory as Memory

_LEAST = 1e-6
"""The smallest a(t) that x is divided by; of less, float32 knows too few digits."""


class Solver(ABC):
    """A method that must know more than where a step starts: earlier steps, the step's number, noise.

    It holds settings only. What it remembers is passed in and out, so that a solver can serve any number of solutions.
    """

    @abstractmethod
    def step(
        self, denoiser: OfPoints, x: Samples, times: Sequence[float], i: int, memory: Memory
    ) -> tuple[Samples, Memory]:
        """Return the state at ``times[i + 1]``, given the one at ``times[i]``, and what the next step must know."""


Method = Annotated[
    Step | Solver,
    Condition(
        lambda method: callable(method) or isinstance(method, Solver),
        "The method must be a step such as cmcore.solvers.heun, or a Solver, got {method!r}.",
        TypeError,
    ),
]
"""A step, or a `Solver`."""
Times = Annotated[
    Sequence[float],
    Condition(
        lambda times: hasattr(times, "__len__") and not isinstance(times, str),
        "times must be a sequence of times, got {times!r}.",
        TypeError,
    ),
    Condition(
        lambda times: len(times) >= 2,
        lambda times: f"Solving needs at least two times, the start and the end, got {list(times)}.",
    ),
]
"""The times from which and to which steps lead."""


def solve(
    method: Method,
    denoiser: Denoiser,
    x: Samples,
    times: Times,
    callback: Callable[[int, Array], None] | None = None,
    path: PathGiven = VE(),
    *,
    towards_noise: Annotated[bool, lambda times, towards_noise: _check_direction(times, towards_noise)] = False,
) -> Samples:
    """Follow the ODE from x at ``times[0]`` through all the times to the last by one step between neighbours.

    x is a point of the path at ``times[0]``, on `VE` of noise ``times[0] z``, not z: `cmcore.sampling.ode` starts from z.
    Times decrease, or, with ``towards_noise``, which turns data into the noise that they come from, increase; the other order
    is a `ValueError`. Times that are arrays are not looked at.

    With `cmcore.solvers.heun` and the 18-point Karras grid from 80 to 0.002, followed by 0, this is the teacher's sampler with 35
    network evaluations. ``callback(i, x)`` is called after step i.

    x, times and denoiser are of ``path``. On another than `VE` the steps are taken in the coordinates in which it is `VE`,
    ``y = x / a(t)`` and ``sigma = b(t) noise_std / a(t)``: there Euler's step is DDIM's, and each method keeps its order.
    a(t) must not be 0, as it is where nothing but noise is left.
    """
    if path != VE():
        return _solve_in_noise_levels(method, denoiser, x, times, callback, path, towards_noise)
    memory: Memory = ()
    for i in range(len(times) - 1):
        if isinstance(method, Solver):
            x, memory = method.step(denoiser, x, times, i, memory)
        else:
            x = method(denoiser, x, times[i], times[i + 1])
        if callback is not None:
            callback(i, x)
    return x


def trajectory(method: Method, denoiser: Denoiser, x: Samples, times: Times, path: PathGiven = VE()) -> list[Samples]:
    """Return the points of the ODE at all the times, x first; the last is what `solve` returns."""
    points = [x]
    solve(method, denoiser, x, times, lambda i, y: points.append(y), path)
    return points


def _check_direction(times: Sequence[GivenTime], towards_noise: bool) -> None:
    """Raise `ValueError` for a step in the wrong direction: x would have another scale than its time, and run away."""
    for t, r in pairwise(times):
        if is_number(t) and is_number(r) and (r < t if towards_noise else r > t):
            order = (
                "increase, from data to noise (towards_noise=True)" if towards_noise else "decrease, from noise to data"
            )
            raise ValueError(
                f"The times must {order}, got a step from {t} to {r}. Turn the times round (times[::-1]), "
                f"or give towards_noise={not towards_noise}."
            )


def interval(x: Array, times: Sequence[float], i: int) -> tuple[float, float]:
    """Return the ends of step i as numbers, r < t; a sentence if it starts where the ODE is not defined or leads nowhere."""
    t, r = float(times[i]), float(times[i + 1])
    if not (t > 0 and r >= 0):
        raise ValueError(f"The times must be positive, only the last one may be 0; got a step from {t} to {r}.")
    if r >= t:
        raise ValueError(
            f"The times must decrease for a solver that remembers or adds noise, got a step from {t} to {r}."
        )
    check_above_zero(t, x, "The slope with which a step starts")
    return t, r


def _solve_in_noise_levels(
    method: Step | Solver,
    denoiser: Denoiser,
    x: Array,
    times: Sequence[GivenTime],
    callback: Callable[[int, Array], None] | None,
    path: Path,
    towards_noise: bool,
) -> Array:
    """`solve` by the change of variables that makes the path `VE`."""

    def factor(i: int) -> Array:
        return per_sample(path.a(as_times(times[i], x)), x)

    def seen(i: int, y: Array) -> None:
        if callback is not None:
            callback(i, factor(i + 1) * y)

    levels = [_noise_level(path, t) for t in times]
    y = solve(method, rebased(denoiser, path, VE()), x / factor(0), levels, seen, towards_noise=towards_noise)
    return factor(-1) * y


def _noise_level(path: Path, t: GivenTime) -> GivenTime:
    """Sigma at a time, a number's as a number, since a method may look at it."""
    if hasattr(t, "ndim") and not isinstance(t, float):
        return path.sigma(t)
    t = float(t)
    if not 0 <= t <= path.end:
        raise ValueError(f"Times on the path {type(path).__name__} are from 0 to {path.end}, got {t}.")
    if abs(path.a(t)) < _LEAST:
        raise ValueError(
            f"Solvers work with x / a(t), and on the path {type(path).__name__} nothing of the data is left at "
            f"t = {t}: a(t) = {path.a(t)}. Start a little below."
        )
    sigma: float = path.sigma(t)
    return sigma


check_arguments(__name__)
