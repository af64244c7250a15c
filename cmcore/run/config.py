"""What decides a training run: the settings that a user gives."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from cmcore import recipes
from cmcore._words import choice
from cmcore.options import function_name
from cmcore.run.network_settings import choices, written

LOGS = ("tensorboard",)
"""Where a run's numbers and pictures may be written besides its own files."""

PRECISIONS = {"float32": None, "bfloat16": "bfloat16"}
"""What the layers of networks may compute in, and a `Backend.network`'s ``compute``; weights, averages and losses are float32."""


@dataclass(frozen=True)
class Config:
    """The settings of a run; None stands for a default that depends on the data, the teacher or what is installed.

    ``options`` are the recipe's, its optimiser's and its average's, as for `cmcore.recipes.get`, functions by their importable names; ``network`` is a kind of network or
    a preset, ``network_settings`` are its settings by name, values or their text. ``data`` is a source for
    `cmcore.run.data.load`, with ``size``, ``fit``, ``fast_jpegs``, ``skip_broken``, ``cache``, ``held_out``, ``channels``,
    ``classes``, ``range`` and ``latents`` its arguments; ``flip`` turns half of the pictures of each batch left to right; ``augment`` is the
    probability of each of EDM's augmentations, of which the network is told; ``per_column``
    brings each column of points to the same scale; ``precision`` is one of `PRECISIONS`, in which the networks' layers compute;
    ``accumulate`` is the number of parts in which a batch is taken; ``devices`` the number of devices that share it, where one process
    has them all, and ``shard`` whether they share the weights too; ``log`` is one of
    `LOGS`; ``teacher`` and ``init`` are run folders or model files. Numbers out of
    range are a `ValueError`.
    """

    data: str | None = None
    recipe: str = "ect"
    options: Mapping[str, Any] = field(default_factory=dict)
    backend: str | None = None
    device: str | None = None
    steps: int = 10_000
    batch: int = 256
    accumulate: int = 1
    devices: int | None = None
    shard: bool = False
    seed: int = 0
    network: str | None = None
    network_settings: Mapping[str, Any] = field(default_factory=dict)
    width: int | None = None
    blocks: int | None = None
    size: int | tuple[int, int] | None = None
    fit: str = "crop"
    fast_jpegs: bool = True
    skip_broken: bool = False
    cache: str | None = None
    held_out: str | None = None
    flip: bool = False
    augment: float = 0.0
    channels: int | None = None
    classes: bool = False
    range: tuple[float, float] | None = None
    latents: bool = False
    per_column: bool = False
    teacher: str | None = None
    init: str | None = None
    compiled: bool | None = None
    precision: str = "float32"
    save_every: int | None = None
    sample_every: int | None = None
    save_minutes: float = 10.0
    log: str | None = None

    def __post_init__(self) -> None:
        # As they are stored.
        options = {name: function_name(v) if callable(v) else v for name, v in self.options.items()}
        object.__setattr__(self, "options", options)
        if self.size is not None and not isinstance(self.size, int):
            object.__setattr__(self, "size", tuple(self.size))
        for name in (
            "steps",
            "batch",
            "accumulate",
            "devices",
            "width",
            "blocks",
            "size",
            "channels",
            "save_every",
            "sample_every",
        ):
            value = getattr(self, name)
            if value is not None and (min(value) if isinstance(value, tuple) else value) < 1:
                raise ValueError(f"{option(name)} must be at least 1, got {value}.")
        if self.log not in (None, *LOGS):
            raise ValueError(f"--log cannot be {self.log!r}; {choice(self.log, LOGS)}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"--precision cannot be {self.precision!r}; {choice(self.precision, PRECISIONS)}")
        if self.batch % self.accumulate:
            raise ValueError(f"--accumulate {self.accumulate} must divide --batch {self.batch} into equal parts.")
        if self.range is not None:
            object.__setattr__(self, "range", _checked_range(self.range))
        if not 0 <= self.augment <= 1:
            raise ValueError(f"--augment is a probability, from 0 to 1, such as 0.12; got {self.augment}.")
        if not 0 < self.save_minutes:
            raise ValueError(f"--save-minutes must be above 0, got {self.save_minutes}.")
        if self.seed < 0:
            raise ValueError(f"{option('seed')} must be at least 0, got {self.seed}.")
        if self.network not in (None, *choices()):
            raise ValueError(f"Unknown network {self.network!r}; {choice(self.network, choices(), 'choose one of')}")
        for name in ("width", "blocks"):
            if getattr(self, name) is not None and name in self.network_settings:
                raise ValueError(f"{option(name)} and --set-network {name}= are the same setting; give one of them.")

    def save_interval(self) -> int:
        """Return how many steps lie between two saves: by default a tenth of the run, at most 1,000."""
        return self.save_every or max(1, min(1000, self.steps // 10))

    def sample_interval(self) -> int:
        """Return how many steps lie between two pictures of samples: by default a tenth of the run."""
        return self.sample_every or max(1, self.steps // 10)


def _checked_range(limits: Sequence[float]) -> tuple[float, float]:
    if len(limits) != 2 or not -math.inf < limits[0] < limits[1] < math.inf:
        raise ValueError(f"--range must be two increasing numbers, such as --range=0,1, got {list(limits)}.")
    return float(limits[0]), float(limits[1])


def parse_options(recipe: str, pairs: Sequence[str]) -> dict[str, Any]:
    """Turn ``KEY=VALUE`` strings into options of a recipe, each of its field's type; else `ValueError`."""
    known = recipes.by_name(recipes.get(recipe))
    parsed = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise ValueError(f"An option must be written KEY=VALUE, got {pair!r}.")
        if name not in known:
            options = choice(name, sorted(known), "its options are")
            raise ValueError(f"The recipe {recipe!r} has no option {name!r}; {options}")
        parsed[name] = _parse(name, text, known[name])
    return parsed


NEUTRAL_WITHOUT_CLASSES = {
    "guidance": 1.0,
    "guidance_mix": 0.0,
    "guidance_low": 0.0,
    "guidance_high": 0.0,
    "label_dropout": 0.0,
}
"""The options that act on classes alone, and their values that do nothing."""


def check_options_act(config: Config) -> None:
    """Raise `ValueError` if an option that needs classes is set for a run without them, where it would do nothing."""
    for name, neutral in NEUTRAL_WITHOUT_CLASSES.items():
        value = config.options.get(name, neutral)
        if value != neutral and not config.classes:
            raise ValueError(
                f"The option {name} acts on classes, and this run has none, but --set {name}={value} was given; "
                "add --classes, or leave the option out."
            )


def differing(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Return in words where two collections of settings differ, such as "width 256 there, 128 here; classes there only."."""

    def said(name: str) -> str:
        between = "" if name.endswith("=") else " "
        if name in there and name in here:
            return f"{name}{between}{there[name]} there, {here[name]} here"
        where, value = ("there", there[name]) if name in there else ("here", here[name])
        return f"{name} {where} only" if value is True else f"{name}{between}{value} {where} only"

    return "; ".join(said(k) for k in {**there, **here} if k not in there or k not in here or there[k] != here[k]) + "."


def as_typed(config: Config, but: Collection[str] = ()) -> dict[str, Any]:
    """Return what was asked for by its names on the command line: ``{"--steps": 4, "--set lr=": 0.1, "--classes": True}``.

    The settings named in ``but`` are left out.
    """
    typed: dict[str, Any] = {}
    for name, value in asdict(config).items():
        if name in but or value is None or value is False:
            continue
        if name == "options":
            typed |= {f"--set {key}=": _typed(chosen) for key, chosen in value.items()}
        elif name == "network_settings":
            typed |= {f"--set-network {key}=": written(chosen) for key, chosen in value.items()}
        else:
            typed[option(name)] = value
    return typed


def option(name: str) -> str:
    """Return a setting's name as the command line spells it."""
    return "--" + name.replace("_", "-")


def _typed(value: Any) -> Any:
    """An option's value as `_parse` reads it, but numbers, which are compared."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else value


def _parse(name: str, text: str, default: Any) -> Any:
    kind = type(default)
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if kind is tuple:
            values = tuple(float(part) for part in text.split(","))
            if len(values) != len(default):
                raise ValueError
            return values
        return kind(text)
    except (ValueError, KeyError):
        expected = {bool: "true or false", tuple: "numbers with commas between", int: "a whole number"}
        example = ",".join(map(str, default)) if kind is tuple else default
        raise ValueError(
            f"The option {name} must be {expected.get(kind, 'a number')}, such as {example}; got {text!r}."
        ) from None
