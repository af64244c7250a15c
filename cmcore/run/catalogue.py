"""What networks there are, how large they are, and what their settings mean."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import MISSING
from typing import Any

from cmcore import networks
from cmcore._words import counted
from cmcore.errors import Error, sentence
from cmcore.networks import Architecture
from cmcore.networks.cost import multiply_adds, parameters
from cmcore.run.network_settings import DECIDED, choices, expected, of_name, settings_of, written
from cmcore.run.report import table

SHAPE = (3, 32, 32)
"""The data for which the size of a kind of network is told, by default; a preset's is that of its paper's data."""


def every() -> list[str]:
    """Return the table of all networks: kinds, then presets."""
    rows = [_row(name) for name in choices()]
    head = ["network", "kind", "for data", "parameters", "multiply-adds", "missing"]
    used = len(head) if any(row[-1] for row in rows) else len(head) - 1
    return [
        table(head[:used], [row[:used] for row in rows]),
        "",
        "Multiply-adds are those of one evaluation of one sample. A network's settings: cmcore networks NAME.",
    ]


def one(name: str) -> list[str]:
    """Return what there is to say of a kind of network or a preset, its settings above all; `ValueError` if there is none."""
    network, own = of_name(name), _own(name)
    about = inspect.getdoc(network) or ""
    first = "" if about.startswith(f"{network.__name__}(") else about.partition("\n")[0].rstrip(":.")
    _, _, data, size, cost, missing = _row(name)
    rows = [
        [
            s.name,
            written(own.get(s.name, "" if s.default is MISSING else s.default)),
            expected(s.takes),
            s.meaning,
        ]
        for s in settings_of(network).values()
    ]
    decided = ", ".join(f"{setting} by {what}" for setting, what in DECIDED.items())
    return [
        f"{name}, a network of the kind {network.kind}" + (f": {first}." if first else "."),
        missing
        or f"For data of {data} it has {size} parameters and takes {cost} multiply-adds an evaluation of a sample.",
        "",
        table(("setting", "default", "takes", "meaning"), rows),
        "",
        f"To choose others: --network {name} --set-network KEY=VALUE. Decided elsewhere: {decided}.",
    ]


def _row(name: str) -> list[str]:
    try:
        network = of_name(name)
    except (Error, TypeError, ImportError) as broken:
        return [name, name, "-", "-", "-", sentence(broken)]
    try:
        made = _made(name, network)
    except (ValueError, TypeError) as unfit:
        return [name, network.kind, "-", "-", "-", sentence(unfit)]
    classes = f", {counted(made.classes, 'class', 'classes')}" if made.classes else ""
    data = f"{' x '.join(map(str, made.shape))}{classes}"
    return [name, network.kind, data, _count(parameters(made)), _count(multiply_adds(made)), ""]


def _count(n: int) -> str:
    return f"{n:,}" if n else "-"


def _made(name: str, network: type[Architecture]) -> Architecture:
    """The network for the data of its paper, or for small images."""
    if name in networks.names():
        return network(shape=SHAPE)
    preset = networks.PRESETS[name]
    return preset(preset.shape, preset.classes)


def _own(name: str) -> Mapping[str, Any]:
    """A preset's own settings."""
    return {} if name in networks.names() else networks.PRESETS[name].settings
