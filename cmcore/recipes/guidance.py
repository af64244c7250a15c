"""Classes: classifier-free guidance, and how a network learns the distribution without them (Ho & Salimans 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cmcore._arrays import as_times, per_sample
from cmcore.backend import Array, namespace
from cmcore.losses import ConsistencyFn
from cmcore.options import NOT_NEGATIVE, option
from cmcore.recipes.part import Part


def within(low: float, high: float, t: Array, guided: Array, other: Array) -> Array:
    """Return the guided output at times t above ``low`` and up to ``high``, 0 being no bound, and the other elsewhere."""
    if not (low or high):
        return guided
    inside = t > low
    inside = inside & (t <= high) if high else inside
    return namespace(guided).where(per_sample(inside, guided), guided, other)


def check_interval(low: float, high: float) -> None:
    """Raise `ValueError` for an interval of guidance that holds nothing."""
    if 0 < high <= low:
        raise ValueError(
            f"Guidance acts at times above guidance_low and up to guidance_high, which must be more; got {low} and {high}."
        )


def interval_end(help: str) -> Any:
    """Declare an end of the interval of times at which guidance acts."""
    return option(0.0, help, NOT_NEGATIVE)


@dataclass(frozen=True)
class Guided(Part):
    """A denoiser is asked for ``D(no class) + w (D(class) - D(no class))`` with ``guidance`` w, within an interval of noise levels.

    1 is no guidance. The network must know what to do without a class (the option ``label_dropout`` of `edm`). The interval is of
    Kynkaanniemi et al. (2024).
    """

    guidance: float = option(1.0, "strength of classifier-free guidance; 1 is none", NOT_NEGATIVE)
    guidance_low: float = interval_end("guidance acts at noise levels above this")
    guidance_high: float = interval_end("guidance acts at noise levels up to this; 0: no bound")

    def check(self) -> None:
        """Raise `ValueError` for an interval that holds nothing."""
        check_interval(self.guidance_low, self.guidance_high)

    def guided(self, denoiser: ConsistencyFn) -> ConsistencyFn:
        """Return ``denoiser(x, t, **cond)`` with guidance."""
        if self.guidance == 1.0:
            return denoiser

        def extrapolated(x: Array, t: Array, **cond: Array) -> Array:
            conditional = denoiser(x, t, **cond)
            if "label" not in cond:
                return conditional
            plain = denoiser(x, t, **{**cond, "label": no_class(cond["label"])})
            guided = plain + self.guidance * (conditional - plain)
            return within(self.guidance_low, self.guidance_high, as_times(t, x), guided, conditional)

        return extrapolated


def no_class(label: Array) -> Array:
    """Return -1, the label of no class, for each sample."""
    return namespace(label).zeros_like(label) - 1


def drop_labels(cond: Mapping[str, Array], drop: Array) -> Mapping[str, Array]:
    """Return cond with no class for the samples where ``drop``, (B,) bool, is True."""
    if "label" not in cond:
        return cond
    label = cond["label"]
    return {**cond, "label": namespace(label).where(drop, no_class(label), label)}
