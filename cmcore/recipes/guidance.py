"""Classes: classifier-free guidance, and how a network learns the law without them (Ho & Salimans 2022)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cmcore.backend import Array, namespace
from cmcore.paths import Denoiser


def guided(
    predict: Callable[[Array, Array, Mapping[str, Array]], Array], cond: Mapping[str, Array], guidance: float
) -> Denoiser:
    """Return ``predict(x, t, cond)`` as a function of (x, t), extrapolated away from its value for no class."""
    if guidance == 1.0 or "label" not in cond:
        return lambda x, t: predict(x, t, cond)
    unconditional = {**cond, "label": no_class(cond["label"])}

    def extrapolated(x: Array, t: Array) -> Array:
        plain = predict(x, t, unconditional)
        return plain + guidance * (predict(x, t, cond) - plain)

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
