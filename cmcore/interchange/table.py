"""A layout as a table, a row for each weight of ours; read one way it imports, the other way it exports."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cmcore.errors import Error
from cmcore.interchange.changes import Change, Shape
from cmcore.networks import UNet
from cmcore.run.report import table

SHOWN = 20
"""So many names that do not fit are listed; of the others only the number."""


class Row(NamedTuple):
    """A weight of ours, the published weights that it is made of, and how."""

    ours: str
    published: tuple[str, ...]
    change: Change


class Buffer(NamedTuple):
    """A constant that published files have among their weights: what it is, and how near a file's has to be."""

    name: str
    value: np.ndarray
    tolerance: float = 1e-6


def published_shapes(rows: Iterable[Row], network: UNet) -> dict[str, Shape]:
    """Return the shape of every published weight of a network by name; nothing of a weight's size is made."""
    layout = network.layout()
    shapes: dict[str, Shape] = {}
    for row in rows:
        shapes |= zip(row.published, row.change.shapes(layout[row.ours]), strict=True)
    return shapes


def taken(
    rows: Sequence[Row],
    buffers: Sequence[Buffer],
    tensors: Mapping[str, np.ndarray],
    network: UNet,
    source: str,
    optional: Collection[str] = (),
) -> dict[str, np.ndarray]:
    """Return our weights, float32, of the published ones; an `Error` with a table of what is missing, left over, misshapen or no floating-point numbers.

    Buffers may be missing; those that are there must be what the network computes with. ``optional`` are names that mean nothing to us.
    """
    expected = published_shapes(rows, network)
    constants = {buffer.name: buffer for buffer in buffers}
    told = [(name, "missing", _sized(shape), "-") for name, shape in expected.items() if name not in tensors]
    for name, array in tensors.items():
        if name in constants:
            value, tolerance = constants[name].value, constants[name].tolerance
            if array.shape != value.shape or not np.allclose(array, value, rtol=tolerance, atol=tolerance):
                told.append((name, "another constant", _sized(value.shape), _sized(array.shape)))
        elif name in expected:
            if tuple(array.shape) != tuple(expected[name]):
                told.append((name, "misshapen", _sized(expected[name]), _sized(array.shape)))
            elif array.dtype.kind != "f":
                told.append((name, "of another type", "floating-point", str(array.dtype)))
        elif name not in optional:
            told.append((name, "left over", "-", _sized(array.shape)))
    if told:
        raise _unfit(source, told)
    weights = {row.ours: row.change.ours([tensors[name] for name in row.published]) for row in rows}
    return {name: np.ascontiguousarray(weight, np.float32) for name, weight in weights.items()}


def given(rows: Iterable[Row], buffers: Iterable[Buffer], weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the published weights, and constants, of ours."""
    tensors: dict[str, np.ndarray] = {}
    for row in rows:
        tensors |= zip(row.published, map(np.ascontiguousarray, row.change.theirs(weights[row.ours])), strict=True)
    return tensors | {buffer.name: buffer.value for buffer in buffers}


def _sized(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "a number"


def _unfit(source: str, told: Sequence[tuple[str, str, str, str]]) -> Error:
    what = "1 name does" if len(told) == 1 else f"{len(told)} names do"
    problem = Error(
        f"The weights in {source} are not those of the network that was made out: {what} not fit. If the network's settings "
        "are others, give them with --set, or the layout with --layout."
    )
    more = [f"... and {len(told) - SHOWN} more"] if len(told) > SHOWN else []
    problem.add_note("\n".join([table(("name", "is", "expected", "found"), told[:SHOWN]), *more]))
    return problem
