"""The teacher as a denoiser, with classifier-free guidance (Ho & Salimans 2022) where a recipe asks for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cmcore.backend import Array, Network, namespace
from cmcore.parametrization import EDM, ConsistencyFunction
from cmcore.paths import Denoiser


def teacher_denoiser(teacher: Network, sigma_data: float, cond: Mapping[str, Array], guidance: float = 1.0) -> Denoiser:
    """Return an EDM network as ``D(x, t)`` on the path ``x_0 + t z``, guided with the given strength.

    1 is no guidance; w gives ``D(no class) + w (D(class) - D(no class))``, for which the teacher must know what to do
    without a class (the option ``label_dropout`` of `edm`).
    """
    function = ConsistencyFunction(teacher, EDM(sigma_data))
    return guided(lambda x, t, cond: function(x, t, **cond), cond, guidance)


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
