"""What decides a training run: the settings a user gives, and what they amount to for the data at hand."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cmcore import architectures, recipes
from cmcore.architectures import Architecture, ResidualConv, ResidualMLP
from cmcore.errors import Error
from cmcore.optimization import Optimizer
from cmcore.recipes import Recipe

if TYPE_CHECKING:
    from cmcore.run.checkpoint import Model
    from cmcore.run.data import Dataset

NETWORKS: dict[str, type[ResidualMLP] | type[ResidualConv]] = {"mlp": ResidualMLP, "conv": ResidualConv}
CONV_FROM = 16
"""Images whose shorter side has at least this many pixels get the convolutional network by default."""


@dataclass(frozen=True)
class Config:
    """The settings of a run; None stands for a default that depends on the data, the teacher or what is installed.

    ``options`` are the recipe's and its optimiser's, as for `cmcore.recipes.get`. ``data`` is a source for
    `cmcore.run.data.load`, with ``size``, ``channels`` and ``classes`` its arguments; ``teacher`` and ``init`` are run
    folders or model files. Numbers out of range are a `ValueError`.
    """

    data: str | None = None
    recipe: str = "ect"
    options: Mapping[str, Any] = field(default_factory=dict)
    backend: str | None = None
    device: str | None = None
    steps: int = 10_000
    batch: int = 256
    seed: int = 0
    network: str | None = None
    width: int | None = None
    blocks: int | None = None
    size: int | None = None
    channels: int | None = None
    classes: bool = False
    teacher: str | None = None
    init: str | None = None
    compiled: bool = True
    save_every: int | None = None
    sample_every: int | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "width", "blocks", "size", "channels", "save_every", "sample_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{option(name)} must be at least 1, got {value}.")
        if self.seed < 0:
            raise ValueError(f"{option('seed')} must be at least 0, got {self.seed}.")
        if self.network not in (None, *NETWORKS):
            raise ValueError(f"Unknown network {self.network!r}; choose one of {', '.join(NETWORKS)}.")

    def save_interval(self) -> int:
        """Return how many steps lie between two saves: by default a tenth of the run, at most 1,000."""
        return self.save_every or max(1, min(1000, self.steps // 10))

    def sample_interval(self) -> int:
        """Return how many steps lie between two pictures of samples: by default a tenth of the run."""
        return self.sample_every or max(1, self.steps // 10)


@dataclass(frozen=True)
class DataFacts:
    """What a model must know of the data it was trained on; ``shape`` is one sample's, ``fingerprint`` a digest."""

    name: str
    shape: tuple[int, ...]
    images: bool = False
    classes: tuple[str, ...] = ()
    fingerprint: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "classes", tuple(str(c) for c in self.classes))


@dataclass(frozen=True)
class Plan:
    """What a configuration amounts to: the recipe with all its options, the network, the data."""

    recipe: Recipe
    architecture: Architecture
    data: DataFacts

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain JSON data; `plan_from_json` is its inverse."""
        return {
            "recipe": recipe_to_json(self.recipe),
            "network": architectures.to_config(self.architecture),
            "data": asdict(self.data),
        }


def plan_from_json(settings: Mapping[str, Any]) -> Plan:
    """Return the plan that `Plan.to_json` described; what does not fit is a `ValueError`."""
    return Plan(
        recipe_from_json(settings["recipe"]),
        architectures.from_config(settings["network"]),
        DataFacts(**settings["data"]),
    )


def make_plan(config: Config, data: Dataset, teacher: Model | None = None, init: Model | None = None) -> Plan:
    """Return what a configuration amounts to for this data, this teacher and these initial weights.

    The network is by default the initial weights' or the teacher's, else a perceptron for small or flat data and a
    convolutional network for images. sigma_data is the teacher's or the initial weights', else measured from the data.
    """
    origin = init or teacher
    options = dict(config.options)
    options.setdefault("sigma_data", float(origin.recipe.sigma_data if origin else data.sigma_data))
    recipe = recipes.get(config.recipe, **options)
    facts = DataFacts(data.name, data.shape, data.images, class_names(config, data), fingerprint(data))
    architecture = replace(
        _architecture(config, facts, origin.architecture if origin else None),
        two_times=recipe.two_times,
        log_weight=recipe.learned_weight,
    )
    _check_teacher(recipe, architecture, teacher)
    if recipe.starts_as_teacher and teacher and (init or not continues(teacher.architecture, architecture)):
        raise Error(
            f"The recipe {recipe.name!r} goes on from its teacher's weights, so it takes no --init, and its network must be "
            "the teacher's: leave out --network, --width and --blocks."
        )
    if init and init.recipe.family != recipe.family:
        could = (init.recipe.family, recipe.family) == ("edm", "trigflow")
        unless = " unless --set network=edm is given" if could else ""
        raise Error(
            f"The initial weights are of a network of the kind {init.recipe.family!r}, trained with the recipe "
            f"{init.recipe.name!r}; the recipe {recipe.name!r} trains one of the kind {recipe.family!r}{unless}."
        )
    if init and not continues(init.architecture, architecture):
        raise Error(
            "The initial weights belong to another network than the one asked for: "
            + differing(architectures.to_config(init.architecture), architectures.to_config(architecture))
        )
    return Plan(recipe, architecture, facts)


def continues(origin: Architecture, architecture: Architecture) -> bool:
    """Tell whether the weights of one network start the other: the same but for what a recipe adds to it, or a weight it drops."""
    added = replace(origin, two_times=architecture.two_times, log_weight=architecture.log_weight)
    return added == architecture and origin.two_times <= architecture.two_times


def class_names(config: Config, data: Dataset) -> tuple[str, ...]:
    """Return the names of the classes to condition on: none unless asked for; an `Error` if the data has none."""
    if not config.classes:
        return ()
    if data.labels is None or not data.classes:
        raise Error(f"The data {data.name!r} has no classes, so a run on it cannot be class-conditional.")
    return tuple(str(c) for c in data.classes)


def fingerprint(data: Dataset) -> str:
    """Return a digest of the training data, by which a resumed run knows that it goes on with the same."""
    digest = hashlib.sha256()
    for array in (data.x, data.labels):
        if array is not None:
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def parse_options(recipe: str, pairs: Sequence[str]) -> dict[str, Any]:
    """Turn ``KEY=VALUE`` strings into options of a recipe, each of its field's type; else `ValueError`."""
    plain = recipes.get(recipe)
    known = {f.name: getattr(plain, f.name) for f in fields(plain)}
    known |= {f.name: getattr(plain.optimizer, f.name) for f in fields(Optimizer)}
    del known["optimizer"]
    parsed = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise ValueError(f"An option must be written KEY=VALUE, got {pair!r}.")
        if name not in known:
            options = ", ".join(sorted(known))
            raise ValueError(f"The recipe {recipe!r} has no option {name!r}; its options are {options}.")
        parsed[name] = _parse(name, text, known[name])
    return parsed


NEUTRAL_WITHOUT_CLASSES = {"guidance": 1.0, "guidance_mix": 0.0, "label_dropout": 0.0}
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


def recipe_to_json(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe and all its options as plain JSON data."""
    return {"name": recipe.name, "options": _plain(asdict(recipe))}


def recipe_from_json(settings: Mapping[str, Any]) -> Recipe:
    """Return the recipe that `recipe_to_json` described; unknown names and options are a `ValueError`."""
    options = dict(settings["options"])
    optimizer = dict(options.pop("optimizer"))
    optimizer["betas"] = tuple(optimizer["betas"])
    return replace(recipes.get(settings["name"], **options), optimizer=Optimizer(**optimizer))


def differing(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Return in words where two collections of settings differ, such as "width 256 there, 128 here; classes there only."."""

    def said(name: str) -> str:
        between = "" if name.endswith("=") else " "
        if name in there and name in here:
            return f"{name}{between}{there[name]} there, {here[name]} here"
        where, value = ("there", there[name]) if name in there else ("here", here[name])
        return f"{name} {where} only" if value is True else f"{name}{between}{value} {where} only"

    return "; ".join(said(k) for k in {**there, **here} if k not in there or k not in here or there[k] != here[k]) + "."


def as_typed(config: Config) -> dict[str, Any]:
    """Return what was asked for by its names on the command line: ``{"--steps": 4, "--set lr=": 0.1, "--classes": True}``."""
    settings = asdict(config)
    options = settings.pop("options")
    flags = {"--classes": settings.pop("classes"), "--no-compile": not settings.pop("compiled")}
    typed = {option(name): value for name, value in settings.items() if value is not None}
    typed |= {f"--set {name}=": _typed(value) for name, value in options.items()}
    return typed | {flag: True for flag, on in flags.items() if on}


def option(name: str) -> str:
    """Return a setting's name as the command line spells it."""
    return "--" + name.replace("_", "-")


def _architecture(config: Config, facts: DataFacts, inherited: Architecture | None) -> Architecture:
    sizes: dict[str, Any] = {k: v for k, v in (("width", config.width), ("blocks", config.blocks)) if v is not None}
    if inherited and config.network in (None, architectures.to_config(inherited)["kind"]):
        if inherited.shape != facts.shape:
            raise Error(
                f"The teacher's or initial network is for data of shape {inherited.shape}; this data has {facts.shape}."
            )
        return replace(inherited, classes=len(facts.classes), **sizes)
    kind = config.network or ("conv" if facts.images and min(facts.shape[1:]) >= CONV_FROM else "mlp")
    network: Callable[..., Architecture] = NETWORKS[kind]
    return network(facts.shape, classes=len(facts.classes), **sizes)


def _check_teacher(recipe: Recipe, architecture: Architecture, teacher: Model | None) -> None:
    known = " or ".join(repr(name) for name in recipe.teachers)
    if teacher is None:
        if recipe.needs_teacher:
            raise Error(f"The recipe {recipe.name!r} needs --teacher: a run trained with the recipe {known}.")
        return
    if not recipe.needs_teacher:
        raise Error(f"The recipe {recipe.name!r} takes no teacher; to start from a run's weights give it as --init.")
    if teacher.recipe.name not in recipe.teachers:
        raise Error(f"A teacher must be trained with the recipe {known}; this one was with {teacher.recipe.name!r}.")
    if (kind := getattr(recipe, "teacher_predicts", "edm")) != "edm":
        raise Error(
            f"A run is a teacher of the kind teacher_predicts=edm, got {kind}; networks of other kinds are distilled from Python."
        )
    theirs, ours = teacher.architecture, architecture
    if (theirs.shape, theirs.classes) != (ours.shape, ours.classes):
        raise Error(
            f"The teacher is for data of shape {theirs.shape} with {theirs.classes} classes; "
            f"this run is for shape {ours.shape} with {ours.classes}."
        )
    guided = architecture.classes and getattr(recipe, "guidance", 1.0) != 1.0
    if guided and not getattr(teacher.recipe, "label_dropout", 0.0):
        raise Error(
            "Guidance asks the teacher for its answer without a class, and this one was never trained without one; "
            "train it with --set label_dropout=0.1."
        )
    there, here = teacher.recipe.sigma_data, recipe.sigma_data
    if there != here:
        raise Error(f"The teacher's sigma_data is {there}; a student cannot have another, {here}.")


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with Python's own numbers in place of NumPy's, which JSON does not know."""
    return {
        name: _plain(value) if isinstance(value, dict) else value.item() if isinstance(value, np.generic) else value
        for name, value in options.items()
    }


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
