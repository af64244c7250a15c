"""What a run's settings amount to for the data at hand: the recipe with all its options, the network, the data's facts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cmcore import grids, networks, recipes
from cmcore._words import choice, counted
from cmcore.backend import Array
from cmcore.errors import Error
from cmcore.model import DataFacts, Model, recipe_from_json, recipe_to_json
from cmcore.networks import Architecture
from cmcore.recipes import Recipe
from cmcore.run.augment import TOLD
from cmcore.run.config import Config, differing
from cmcore.run.network_settings import of_name, read, settings_of
from cmcore.run.standardize import deviation, faint, measured

if TYPE_CHECKING:
    from cmcore.run.data import Dataset

WELL_ABOVE = 10.0
"""How far a column's deviation should be above t_min, as a factor."""

CONV_FROM = 16
"""Images whose shorter side has at least this many pixels get the convolutional network by default."""


@dataclass(frozen=True)
class Plan:
    """What a configuration amounts to: the recipe with all its options, the network, the data."""

    recipe: Recipe
    architecture: Architecture
    data: DataFacts
    draws: Mapping[str, str] | None = field(default=None, compare=False)
    """The random numbers that the steps of the run so far drew, as `Recipe.draws`; None: the run is from before they had names."""

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain JSON data; `plan_from_json` is its inverse."""
        return {
            "recipe": recipe_to_json(self.recipe),
            "network": networks.to_config(self.architecture),
            "data": asdict(self.data),
            "draws": dict(self.recipe.draws),
        }


def plan_from_json(settings: Mapping[str, Any]) -> Plan:
    """Return the plan that `Plan.to_json` described; what does not fit is a `ValueError`."""
    draws = settings.get("draws")
    return Plan(
        recipe_from_json(settings["recipe"]),
        networks.from_config(settings["network"]),
        DataFacts(**settings["data"]),
        draws and {"diagonal" if name == "different" else name: kind for name, kind in draws.items()},
    )


def make_plan(config: Config, data: Dataset, teacher: Model | None = None, init: Model | None = None) -> Plan:
    """Return what a configuration amounts to for this data, this teacher and these initial weights.

    The network is by default the initial weights' or the teacher's, else a perceptron for small or flat data and a
    convolutional network for images. Data that are not images are standardised, as the teacher's or the initial weights' were
    if there are any; sigma_data is theirs, else measured from the data.
    """
    origin = init or teacher
    if config.flip and not data.images:
        raise Error(
            "--flip turns pictures left to right, and these data are none (latents do not turn with their pictures)."
        )
    facts = DataFacts(data.name, data.shape, data.images, class_names(config, data), fingerprint(data))
    facts = replace(facts, **_standardization(config, data, origin))
    options = dict(config.options)
    options.setdefault("sigma_data", _sigma_data(data, facts, origin))
    recipe = recipes.get(config.recipe, **options)
    inherited = _inherited(origin, recipe)
    architecture = _architecture(config, facts, inherited)
    if config.augment:
        architecture = _told_of_augmentation(architecture, data)
    architecture = architecture.with_options(recipe.two_times, recipe.learned_weight)
    _check_teacher(recipe, architecture, teacher)
    # What its samples cannot have is told before it is trained, and not by the first picture of them.
    recipe.consistency(_unasked)
    if config.augment and teacher and getattr(teacher.architecture, "augment", 0) != TOLD:
        raise Error(
            "A student's pictures can be augmented only if its teacher's were, whose network is told of it too; leave out --augment."
        )
    if recipe.starts_as_teacher and teacher and (init or not continues(teacher.architecture, architecture)):
        raise Error(
            f"The recipe {recipe.name!r} goes on from its teacher's weights, so it takes no --init, and its network must be "
            "the teacher's: leave out --network, --set-network, --width and --blocks."
        )
    if init and init.recipe.network_kind != recipe.network_kind:
        could = (init.recipe.network_kind, recipe.network_kind) == ("edm", "trigflow")
        unless = " unless --set network=edm is given" if could else ""
        raise Error(
            f"The initial weights are of a network of the kind {init.recipe.network_kind!r}, trained with the recipe "
            f"{init.recipe.name!r}; the recipe {recipe.name!r} trains one of the kind {recipe.network_kind!r}{unless}."
        )
    if init and not continues(init.architecture, architecture):
        raise Error(
            "The initial weights belong to another network than the one asked for: "
            + differing(networks.to_config(init.architecture), networks.to_config(architecture))
        )
    return Plan(recipe, architecture, facts)


def _unasked(x: Array, c_noise: Array, **cond: Array) -> Array:
    """A network that nothing is asked of."""
    raise AssertionError("a consistency function was evaluated when it was made")


def _told_of_augmentation(architecture: Architecture, data: Dataset) -> Architecture:
    """The network with an input for what was done to pictures; `Error` if it can have none, or these are no pictures."""
    if not data.images or min(data.shape[1:]) < 2:
        raise Error(
            f"--augment is for pictures of at least 2 pixels to a side; these data have the shape {data.shape}."
        )
    if not isinstance(architecture, networks.UNet) or architecture.augment not in (0, TOLD):
        raise Error(
            f"The network must be told of --augment by {TOLD} numbers, or its samples would look augmented, and this one has no such "
            f"input; take one of the kind unet, such as --network unet-tiny."
        )
    return replace(architecture, augment=TOLD)


def _standardization(config: Config, data: Dataset, origin: Model | None) -> dict[str, Any]:
    """The center and scale of the data's facts."""
    if config.per_column and (data.images or len(data.shape) != 1):
        raise Error("--per-column is for points (N, D); pictures keep their range, and latents have a scale a channel.")
    if origin:
        if config.per_column:
            raise Error("The data keep the scale that they have for the network to start from; leave out --per-column.")
        return {"center": origin.data.center, "scale": origin.data.scale} if origin.data.shape == data.shape else {}
    if data.images:
        return {}
    center, scale = measured(data.samples, config.per_column)
    return {"center": center, "scale": scale}


def caution(plan: Plan, data: Dataset, inherited: bool, shown: int = 5) -> str | None:
    """Return what to say of columns that hardly vary beside the others on the scale that the plan has, or None.

    ``inherited`` says that the scale is that of a network to start from.
    """
    t_min = recipes.by_name(plan.recipe).get("t_min", grids.T_MIN)
    if not (few := faint(data.samples, plan.data.scale, WELL_ABOVE * t_min)):
        return None
    kind = "column" if len(data.shape) == 1 else "channel"
    listed = ", ".join(str(index + 1) for index in few[:shown]) + (", ..." if len(few) > shown else "")
    kinds = kind if len(few) == 1 else f"{kind}s"
    if inherited:
        advice = "It is that of the network to start from; for another, train without a teacher and --init."
    else:
        advice = "Give --per-column to bring each column to the same scale."
    return (
        f"Of the {data.shape[0]} {kind}s, {len(few)} ({kinds} {listed}) will hardly be learned: on the one scale of all they vary by "
        f"less than {WELL_ABOVE:g} times the lowest noise level, t_min = {t_min:g}. {advice}"
    )


def _sigma_data(data: Dataset, facts: DataFacts, origin: Model | None) -> float:
    if origin:
        return float(origin.recipe.sigma_data)
    return deviation(facts.scale) if facts.scale else float(data.sigma_data)


def continues(origin: Architecture, architecture: Architecture) -> bool:
    """Tell whether the weights of one network start the other: the same but for what a recipe adds to it, or a weight it drops."""
    if type(origin) is not type(architecture):
        return False
    added = origin.with_options(architecture.two_times, architecture.log_weight)
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
    digest = hashlib.sha256(data.samples.facts.digest.encode())
    if data.labels is not None:
        digest.update(data.labels.tobytes())
    return f"{_DIGEST}{digest.hexdigest()[:16]}"


def same_data(recorded: str, data: Dataset) -> bool:
    """Tell whether data are those with a fingerprint, which may be of an earlier version: a digest of values as float32."""
    if recorded.startswith(_DIGEST):
        return recorded == fingerprint(data)
    digest = hashlib.sha256()
    for piece in data.samples.floats():
        digest.update(np.ascontiguousarray(piece).data)
    if data.labels is not None:
        digest.update(data.labels.tobytes())
    return recorded == digest.hexdigest()[:16]


_DIGEST = "s"
"""What fingerprints of samples as they are stored begin with; those of their values do not."""


def _inherited(origin: Model | None, recipe: Recipe) -> Architecture | None:
    """The network that is gone on from; without what adapts it to EDM's scalings where the method has others."""
    if (
        not origin
        or not isinstance(origin.architecture, networks.Adapted)
        or recipe.network_kind == origin.recipe.network_kind
    ):
        return origin.architecture if origin else None
    network = origin.architecture.network
    if isinstance(network, networks.UNet) and network.times.startswith("sinusoidal"):
        # Its frequencies are for times that are counted in hundreds.
        return replace(network, times="ladder")
    return network


def _architecture(config: Config, facts: DataFacts, inherited: Architecture | None) -> Architecture:
    if isinstance(inherited, networks.Adapted):
        inner = _architecture(config, facts, inherited.network)
        # Another network than the one that it adapts needs no adapting.
        return replace(inherited, network=inner) if type(inner) is type(inherited.network) else inner
    if inherited and config.network in (None, networks.to_config(inherited)["kind"]):
        if inherited.shape != facts.shape:
            raise Error(
                f"The teacher's or initial network is for data of shape {inherited.shape}; this data has {facts.shape}."
            )
        return replace(inherited, **_sizes(type(inherited), config, facts))  # type: ignore[type-var]
    name = config.network or ("conv" if len(facts.shape) == 3 and min(facts.shape[1:]) >= CONV_FROM else "mlp")
    network = of_name(name)
    if name not in networks.names():
        return networks.PRESETS[name](facts.shape, **_sizes(network, config, facts))
    fitting = (
        {"multipliers": network.fitting(facts.shape)}
        if issubclass(network, networks.ResidualConv) and len(facts.shape) == 3
        else {}
    )
    return network(shape=facts.shape, **(fitting | _sizes(network, config, facts)))


def _sizes(network: type[Architecture], config: Config, facts: DataFacts) -> dict[str, Any]:
    """The settings that the data and the command line decide; `Error` if the network has no such setting."""
    asked = {"width": config.width, "blocks": config.blocks, "classes": len(facts.classes)}
    known = {f.name for f in fields(network)}  # type: ignore[arg-type]
    if lacking := [name for name, value in asked.items() if value and name not in known]:
        raise Error(
            f"The network {network.kind!r} has no setting {lacking[0]!r}; {choice(lacking[0], settings_of(network), 'its settings are')}"
        )
    sizes = {name: value for name, value in asked.items() if value is not None and name in known}
    return sizes | read(network, config.network_settings)


def check_given(recipe: Recipe, teacher: Model | None) -> None:
    """Raise `Error` unless a recipe that distils is given a teacher that it can distil, and no other is; needs no data."""
    known = " or ".join(repr(name) for name in recipe.teachers)
    if teacher is None:
        if recipe.needs_teacher:
            raise Error(f"The recipe {recipe.name!r} needs --teacher: a run trained with the recipe {known}.")
        return
    if not recipe.needs_teacher:
        raise Error(f"The recipe {recipe.name!r} takes no teacher; to start from a run's weights give it as --init.")
    if teacher.recipe.name not in recipe.teachers:
        imported = " A checkpoint of ECT's program can be imported as one: cmcore import --set recipe=ect"
        raise Error(
            f"A teacher must be trained with the recipe {known}; this one was with {teacher.recipe.name!r}."
            + (imported if "ect" in recipe.teachers and teacher.recipe.name == "cd" else "")
        )


def _check_teacher(recipe: Recipe, architecture: Architecture, teacher: Model | None) -> None:
    check_given(recipe, teacher)
    if teacher is None:
        return
    if (kind := getattr(recipe, "teacher_predicts", "edm")) != "edm":
        raise Error(
            f"A run is a teacher of the kind teacher_predicts=edm, got {kind}; networks of other kinds are distilled from Python."
        )
    theirs, ours = teacher.architecture, architecture
    if (theirs.shape, theirs.classes) != (ours.shape, ours.classes):
        raise Error(
            f"The teacher is for data of shape {theirs.shape} with {counted(theirs.classes, 'class', 'classes')}; "
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
