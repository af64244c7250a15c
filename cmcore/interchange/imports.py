"""Published checkpoints as models: which layout a file has, what it says, what has to be asked for, and the model made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from cmcore._files import check_finite
from cmcore._words import choice
from cmcore.errors import Error, sentence
from cmcore.interchange.layouts import LAYOUTS, Layout
from cmcore.interchange.opening import Opened, opened
from cmcore.interchange.table import taken
from cmcore.model import DataFacts, Model, save_model
from cmcore.networks import Adapted, UNet
from cmcore.run.folder import RunFolder

OPTIONS: dict[str, type] = {
    "kind": str,
    "preconditioning": str,
    "recipe": str,
    "sigma_data": float,
    "t_min": float,
    "t_max": float,
    "side": int,
    "head_width": int,
    "attention": int,
    "weights": str,
}
"""What a file may leave to be said, and of what type it is."""


def import_model(path: str | PathLike[str], layout: str | None = None, **options: Any) -> Model:
    """Return the model in a published checkpoint: a consistency model or a score model, to be used like any other.

    ``path`` is a file or a folder of openai/consistency_models (a state dict), diffusers (a folder), NVlabs/edm or
    locuslab/ect (a pickle), openai/consistency_models_cifar10 (Flax) or safetensors under their names. The layout, one of
    openai, diffusers, edm and flax, is found out where it is not given. ``options`` say what the file does not, such as
    ``kind="score"``, ``side=64``, ``sigma_data=0.5`` or, of several sets of weights, ``weights="params_ema"``: an `Error` asks for
    each by name. ``recipe`` is what the model counts as trained with: "ect" and "tcm" have the scalings that those are trained
    under, where ECT's own sampling has the identity at 0.003, as "cd" here. Nothing in a file is executed; what does not fit the
    network that was made out is an `Error`, with a table of the names as its note.
    """
    found = opened(Path(path), options.get("weights"))
    chosen = _layout(found, layout)
    _check_options(chosen, found, options)
    try:
        network = chosen.network(found, options)
        _check_size(network, found)
        convention = chosen.convention(found, options).changed(options)
        rows, buffers = chosen.table(network)
    except (KeyError, IndexError, TypeError, ValueError, ZeroDivisionError, OverflowError) as unfit:
        raise Error(
            f"{path} is no checkpoint of the layout {chosen.name!r} that can be made out: {_said(unfit)}"
        ) from unfit
    weights = taken(rows, buffers, found.tensors, network, str(path))
    check_finite(weights)
    architecture = convention.adapted(network)
    if isinstance(architecture, Adapted):
        weights = {f"net.{name}": weight for name, weight in weights.items()}
    data = DataFacts(
        Path(path).name, network.shape, network.shape[0] in (1, 3), tuple(map(str, range(network.classes)))
    )
    about = {"imported": Path(path).name, "layout": chosen.name}
    return Model(convention.recipe_of(), architecture, weights, data, about=about)


def import_run(path: str, out: str, layout: str | None, pairs: Sequence[str]) -> Model:
    """Write the model in a published checkpoint to a new run folder and return it."""
    folder = RunFolder(Path(out))
    folder.check_free()
    if folder.config.exists():
        raise Error(f"{out} holds a run already; choose another --out.")
    model = import_model(path, layout, **parsed(pairs))
    folder.path.mkdir(parents=True, exist_ok=True)
    save_model(model, folder.model)
    return model


def parsed(pairs: Sequence[str]) -> dict[str, Any]:
    """Return ``KEY=VALUE`` strings as options of `import_model`; `ValueError` for what is none."""
    options = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or name not in OPTIONS:
            raise ValueError(f"--set takes KEY=VALUE, got {pair!r}; {choice(name, OPTIONS, 'its keys are')}")
        try:
            options[name] = OPTIONS[name](text)
        except ValueError:
            what = "a whole number" if OPTIONS[name] is int else "a number"
            raise ValueError(f"{name} must be {what}, got {text!r}.") from None
    return options


def _said(problem: Exception) -> str:
    return f"it lacks {problem}." if isinstance(problem, KeyError) else sentence(problem)


def _layout(found: Opened, name: str | None) -> Layout:
    if name is not None and name not in LAYOUTS:
        raise ValueError(f"There is no layout {name!r}; {choice(name, LAYOUTS)}")
    fitting = [layout for layout in LAYOUTS.values() if layout.recognises(found)]
    if name is not None:
        return LAYOUTS[name]
    if len(fitting) != 1:
        some = ", ".join(sorted(found.tensors)[:3])
        raise Error(
            f"The layout of {found.path} is none that is known here (its weights are {some}, ...); where you know it, give "
            f"--layout {', '.join(LAYOUTS)}."
        )
    return fitting[0]


def _check_size(network: UNet, found: Opened) -> None:
    """Refuse settings of a network larger than the file, before anything of its size is made."""
    numbers = sum(a.size for a in found.tensors.values())
    blocks = network.blocks * len(network.multipliers)
    if (
        blocks > len(found.tensors)
        or max(*network.channels, network.width * network.features, network.classes) > numbers
    ):
        raise ValueError(f"its settings are of a larger network than its {len(found.tensors)} weights are")


def _check_options(layout: Layout, found: Opened, options: Mapping[str, Any]) -> None:
    if unknown := sorted(options.keys() - set(layout.options)):
        takes = choice(unknown[0], layout.options, "it takes")
        raise ValueError(f"A file of the layout {layout.name!r} leaves no choice of {unknown[0]!r}; {takes}")
    if lacking := {name: what for name, what in layout.needs(found).items() if name not in options}:
        said = "; ".join(f"--set {name}=... ({what})" for name, what in lacking.items())
        raise Error(f"{found.path} does not say all that is needed, so give {said}.")
