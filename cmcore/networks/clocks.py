"""How networks count time: their time input as a function of c = ln(sigma) / 4, sigma the noise-to-signal ratio."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from cmcore._arrays import device_of
from cmcore._words import choice
from cmcore.backend import namespace
from cmcore.networks.part import Part
from cmcore.types import Array


class LogClock(Part):
    """``rate ln(sigma) + shift``: EDM's 1/4 and 0, OpenAI's 250 and 0, 1 and -ln 2 for score_sde's networks on the VE path."""

    def __init__(self, rate: float, shift: float) -> None:
        self.rate, self.shift = rate, shift

    def __call__(self, c: Array) -> Array:
        """Return the reading, (B,)."""
        return (4.0 * self.rate) * c + self.shift


class VPClock(Part):
    """``scale t`` with t the time of the continuous VP path, `cmcore.paths.VP`: ``ln(1 + sigma^2)`` is its integral of beta."""

    def __init__(self, beta_min: float, beta_max: float, scale: float) -> None:
        self.beta_min, self.slope, self.scale = beta_min, beta_max - beta_min, scale

    def __call__(self, c: Array) -> Array:
        """Return the reading, (B,)."""
        xp = namespace(c)
        log = xp.log1p(xp.exp(8.0 * c))
        return self.scale * 2.0 * log / (self.beta_min + xp.sqrt(self.beta_min**2 + 2.0 * self.slope * log))


class StepClock(Part):
    """The number of the step, from 0, whose noise-to-signal ratio is sigma; linear in ln(sigma) between steps.

    Beyond the first and the last it stands still. The ratios are those of ``betas``, a DDPM's variances
    (Ho et al. 2020): ``sigma_k^2 = 1 / prod_{i <= k} (1 - beta_i) - 1``.
    """

    def __init__(self, betas: np.ndarray) -> None:
        inputs = np.log(ratios(betas)) / 4
        self.starts = tuple(float(v) for v in inputs[:-1])
        self.slopes = tuple(float(v) for v in 1.0 / np.diff(inputs))

    def __call__(self, c: Array) -> Array:
        """Return the reading, (B,), at least 0."""
        xp = namespace(c)
        starts, slopes = (xp.asarray(v, dtype=c.dtype, device=device_of(c)) for v in (self.starts, self.slopes))
        # A ramp from 0 to 1 for each step: those below are done, those above not begun.
        return xp.sum(xp.clip((c[:, None] - starts) * slopes, 0.0, 1.0), axis=1)


def ratios(betas: np.ndarray) -> np.ndarray:
    """Return a DDPM's noise-to-signal ratios, float64, increasing."""
    log_alpha = np.cumsum(np.log1p(-np.asarray(betas, np.float64)))
    return np.asarray(np.sqrt(np.expm1(-log_alpha)))


def linear(steps: float, start: float, end: float) -> np.ndarray:
    """Return betas equally spaced from start to end (Ho et al. 2020)."""
    return np.linspace(start, end, int(steps))


def scaled_linear(steps: float, start: float, end: float) -> np.ndarray:
    """Return betas whose roots are equally spaced (Rombach et al. 2022)."""
    return np.linspace(math.sqrt(start), math.sqrt(end), int(steps)) ** 2


def cosine(steps: float) -> np.ndarray:
    """Return betas of a signal that falls like a squared cosine, none above 0.999 (Nichol & Dhariwal 2021)."""
    alpha = np.cos((np.arange(int(steps) + 1) / int(steps) + 0.008) / 1.008 * math.pi / 2) ** 2
    return np.asarray(np.minimum(1.0 - alpha[1:] / alpha[:-1], 0.999))


def _listed(*betas: float) -> np.ndarray:
    return np.asarray(betas, np.float64)


SCHEDULES: dict[str, Callable[..., np.ndarray]] = {
    "linear": linear,
    "scaled_linear": scaled_linear,
    "squaredcos_cap_v2": cosine,
    "betas": _listed,
}
"""A DDPM's betas by the name that diffusers gives their schedule; "betas" are given one by one."""

_MOST_STEPS = 100_000

CLOCKS: dict[str, Callable[..., Part]] = {"log": LogClock, "vp": VPClock}
"""The other clocks by name."""


def clock_of(name: str, numbers: tuple[float, ...]) -> Part:
    """Return the clock of a name with its numbers; `ValueError` for what makes none."""
    if name not in CLOCKS and name not in SCHEDULES:
        raise ValueError(f"No network has the clock {name!r}; {choice(name, (*CLOCKS, *SCHEDULES))}")
    if not all(isinstance(v, (int, float)) and math.isfinite(v) for v in numbers):
        raise ValueError(f"The numbers of a clock must be finite, got {numbers}.")
    if name in CLOCKS:
        clock: Part = _with(CLOCKS[name], name, numbers)
        return clock
    return StepClock(betas_of(name, numbers))


def betas_of(name: str, numbers: tuple[float, ...]) -> np.ndarray:
    """Return the betas of a schedule in `SCHEDULES`, float64; `ValueError` for what makes none."""
    if name not in SCHEDULES:
        raise ValueError(f"There is no schedule of betas {name!r}; {choice(name, SCHEDULES)}")
    if not 2 <= (len(numbers) if name == "betas" else sum(numbers[:1])) <= _MOST_STEPS:
        raise ValueError(f"A schedule has 2 to {_MOST_STEPS} steps; that of {name!r} has other numbers, {numbers[:3]}.")
    betas: np.ndarray = _with(SCHEDULES[name], name, numbers)
    if not ((betas > 0) & (betas < 1)).all():
        raise ValueError(f"The betas of a schedule are numbers between 0 and 1; those of {name!r} are not.")
    return betas


def _with(made: Callable[..., Any], name: str, numbers: tuple[float, ...]) -> Any:
    try:
        return made(*map(float, numbers))
    except TypeError:
        raise ValueError(f"The clock {name!r} takes other numbers than {numbers[:3]}.") from None
