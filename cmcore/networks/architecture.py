"""A network's settings as data, and what follows from them: its parts, its weights' names and shapes, their initial values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any, ClassVar, Self

import numpy as np

from cmcore.networks.layers import Dropout, Layer, Layout
from cmcore.networks.part import Part, leaves


class Architecture(ABC):
    """The settings of a network: a frozen dataclass with the field ``shape`` and any others, plain data.

    `part` builds the network that a backend makes its own, a callable ``net(x, c_noise, label=None, c_end=None,
    dropout=None)`` as far as it has these: x of shape (B, *shape), c_noise (B,) the time input of the parametrisation, label
    (B,) integers below ``classes`` (negative: no class), c_end (B,) the time input of a flow map's end, dropout () int32 the
    key of `cmcore.networks.Dropout`. It returns an array like x.

    A network of another distribution joins by an entry point in the group ``cmcore.networks``, named after its `kind`.
    """

    kind: ClassVar[str]
    """The name of the network on the command line and in files."""
    shape: tuple[int, ...]
    """The shape of one sample."""
    classes = 0
    two_times = False
    log_weight = False
    added: ClassVar[tuple[str, ...]] = ()
    """The attributes of the part that the settings ``two_times`` and ``log_weight`` add: their initial values come last."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError(
            f"A network's settings are a dataclass: write @dataclass(frozen=True) above {type(self).__name__}."
        )

    def __post_init__(self) -> None:
        # As read from a file, which has no tuples.
        for field in fields(self):  # type: ignore[arg-type]
            object.__setattr__(self, field.name, _without_lists(getattr(self, field.name)))

    @abstractmethod
    def part(self) -> Part:
        """Return the network."""

    @property
    def drops(self) -> bool:
        """Whether the network has dropout, so that a train step passes it a key."""
        return any(isinstance(layer, Dropout) and layer.rate for _, layer in leaves(self.part()))

    def layout(self) -> Layout:
        """Return the shape of every weight by name."""
        return {f"{path}.{n}": shape for path, layer in leaves(self.part()) for n, shape in layer.layout().items()}

    def init(self, seed: int = 0) -> dict[str, np.ndarray]:
        """Return initial weights, float32; the same for every backend."""
        rng = np.random.Generator(np.random.Philox(key=seed))
        return {f"{path}.{n}": w for path, layer in self.drawn(leaves(self.part())) for n, w in layer.init(rng).items()}

    def drawn(self, layers: Iterable[tuple[str, Layer]]) -> list[tuple[str, Layer]]:
        """Return the layers, with their paths, in the order in which their initial values are drawn."""
        # An option then changes no other layer's initial values.
        return sorted(layers, key=lambda named: self.is_added(named[0]))

    def is_added(self, name: str) -> bool:
        """Whether a setting, ``two_times`` or ``log_weight``, adds the layer or weight of that path."""
        return name.partition(".")[0] in self.added

    def with_options(self, two_times: bool, log_weight: bool) -> Self:
        """Return the network with the layers that a method needs besides; `ValueError` if it cannot have them."""
        options = {"two_times": two_times, "log_weight": log_weight}
        known = {f.name for f in fields(self)}  # type: ignore[arg-type]
        if lacking := [name for name, on in options.items() if on and name not in known]:
            raise ValueError(f"The network {self.kind!r} has no setting {lacking[0]!r}, which this method needs.")
        return replace(self, **{name: on for name, on in options.items() if name in known})  # type: ignore[type-var]


def check_weights(architecture: Any, weights: Mapping[str, np.ndarray]) -> None:
    """Raise `ValueError` unless the weights have exactly the architecture's names and shapes."""
    layout = architecture.layout()
    if missing := sorted(layout.keys() - weights.keys()):
        raise ValueError(f"The weights lack {missing[0]!r}{_and_more(missing)}.")
    if extra := sorted(weights.keys() - layout.keys()):
        raise ValueError(f"The network has no weight named {extra[0]!r}{_and_more(extra)}.")
    for name, shape in layout.items():
        if tuple(weights[name].shape) != shape:
            raise ValueError(f"The weight {name!r} has shape {tuple(weights[name].shape)}; expected {shape}.")


def extend_weights(
    weights: Mapping[str, np.ndarray], architecture: Architecture, seed: int = 0
) -> dict[str, np.ndarray]:
    """Return the weights completed with the architecture's initial values of its options ``two_times`` and ``log_weight``.

    The extended network computes what the given weights computed, whatever c_end, until it is trained: so a network of one
    time starts one of two. Anything else that is missing, superfluous or misshapen is a `ValueError`.
    """
    fresh = {n: w for n, w in architecture.init(seed).items() if n not in weights and architecture.is_added(n)}
    complete = {**weights, **fresh}
    check_weights(architecture, complete)
    return complete


def _without_lists(value: Any) -> Any:
    return tuple(map(_without_lists, value)) if isinstance(value, (list, tuple)) else value


def _and_more(items: list[str]) -> str:
    return f" and {len(items) - 1} more" if len(items) > 1 else ""
