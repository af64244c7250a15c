"""The trained model: averaged weights, the recipe and the network they belong to, and the facts of the data; on disk too."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from io import BytesIO
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from cmcore import grids, networks, recipes, shipped
from cmcore._files import check_finite, read_arrays, write_arrays
from cmcore._words import counted, meant, printable
from cmcore.backend import Backend, default
from cmcore.backend.registry import chosen_backend
from cmcore.data_facts import DataFacts as DataFacts
from cmcore.ema import Average, Constant, Schedule
from cmcore.errors import Error
from cmcore.generate import Sampler, fitting_batch
from cmcore.networks import Architecture
from cmcore.networks.cost import parameters
from cmcore.optimization import Optimizer
from cmcore.options import function_name
from cmcore.recipes import Recipe
from cmcore.run import hub
from cmcore.run.two_runs import teacher_first
from cmcore.types import Array, Network

MODEL = "model.safetensors"
"""The name of the model's file in a run folder."""


@dataclass(frozen=True)
class Model:
    """A trained model: averaged weights and all that sampling with them needs. `cmcore.load_model` reads one.

    ``weights`` are host arrays in the architecture's layout. ``step`` of ``steps`` are done; ``about`` is for humans. A
    backend is meant by name, as an object, or, where it is not given, as the default.
    """

    recipe: Recipe
    architecture: Architecture
    weights: Mapping[str, np.ndarray]
    data: DataFacts
    step: int = 0
    steps: int = 0
    about: Mapping[str, Any] = field(default_factory=dict)

    def sample(
        self,
        n: int = 1,
        *,
        steps: int | None = None,
        times: Sequence[float] | None = None,
        seed: int = 0,
        label: int | str | Sequence[int | str] | np.ndarray | None = None,
        batch: int | None = None,
        backend: Backend | str | None = None,
    ) -> Array:
        """Return n samples, (n, *shape) float32 of the backend, in the data's units; images are clipped to [-1, 1].

        ``steps`` is the number of the sampler's (1; 18 of the ODE for a score model), or ``times`` are its decreasing times.
        ``label`` is a class, by number or name, or one for each sample; by default they come in turn. The same numbers as
        ``cmcore sample`` gives for the same seed, whatever ``batch``, the number that is made at once. What cannot be asked for
        is a `ValueError`.
        """
        chosen = chosen_backend(backend)
        x = self._on_host(n, chosen, batch, steps=steps, times=times, seed=seed, label=label)
        return chosen.asarray(x)

    def images(
        self, n: int = 1, *, decoder: str | PathLike[str] | None = None, raw_latents: bool = False, **settings: Any
    ) -> list[Any]:
        """Return n samples as Pillow images; the settings are those of `sample`. `ValueError` for data that are not images.

        Latents become images by ``decoder``, the folder of a diffusers AutoencoderKL, scaled or as ``raw_latents``; see
        `cmcore.interchange.decoder.Decoder`.
        """
        from cmcore.run.pictures import as_images

        chosen = chosen_backend(settings.pop("backend", None))
        shown = None
        if decoder is not None:
            from cmcore.interchange.decoder import Decoder

            shown = Decoder(decoder, raw=raw_latents, backend=chosen)
            shown.facts(self.data)
        elif raw_latents:
            raise ValueError("raw_latents says how a decoder takes latents; give the decoder too.")
        elif not self.data.images:
            latents = ", or give a decoder if they are latents" if len(self.data.shape) == 3 else ""
            raise ValueError(f"The model's data are not images but of shape {self.data.shape}; use sample(){latents}.")
        x = self._on_host(n, chosen, settings.pop("batch", None), **settings)
        return as_images(x if shown is None else shown(x))

    def network(self, backend: Backend | str | None = None) -> Network:
        """Return the network as the framework's own, with these weights: ``net(x, c_noise, **cond)``."""
        return chosen_backend(backend).network(self.architecture, self.weights)

    def function(self, backend: Backend | str | None = None) -> Any:
        """Return what the recipe trains, for code of one's own: a consistency function f(x, t), a flow map or a denoiser.

        Its points are standardised (`DataFacts.standardized`): images are in [-1, 1] as they are.
        """
        return self.recipe.function(self.network(backend))

    def save(self, path: str | PathLike[str], *, dtype: str = "float32") -> None:
        """Write the model: to a .safetensors file, or as ``model.safetensors`` into a folder, which is made if need be.

        With ``dtype="float16"`` the weights are rounded to half the size; they are float32 again when they are read. `ValueError`
        for another dtype, or for weights beyond its range. An earlier state of the model is replaced; another model, or another file, is an
        `Error`.
        """
        if dtype not in ("float32", "float16"):
            raise ValueError(f"A model's weights are kept as float32 or float16, got {dtype!r}.")
        target = Path(path)
        if (target / "state").is_dir():
            raise Error(f"{target} is the folder of a run, whose model is its own; save to another place.")
        if target.suffix != ".safetensors":
            target.mkdir(parents=True, exist_ok=True)
            target = target / MODEL
        self._check_replaces(target)
        with np.errstate(over="ignore"):  # what is beyond the range is told of as such
            kept = self if dtype == "float32" else replace(self, weights=_cast(self.weights, np.float32, np.float16))
        save_model(kept, target)

    def _check_replaces(self, target: Path) -> None:
        """Raise `Error` if a file is there that is not of an earlier state of this model: it may be the only copy of another."""
        if not target.exists():
            return
        there = load_model(target)
        if (there.architecture, there.recipe.name, there.data.name) != (
            self.architecture,
            self.recipe.name,
            self.data.name,
        ):
            raise Error(f"{target} holds another model, {there!r}; save to another place, or remove that first.")

    def save_pretrained(self, folder: str | PathLike[str]) -> None:
        """Write the model into a folder, as a hub has it; `save` by the name that users of a hub know."""
        self.save(Path(folder) / MODEL if Path(folder).is_dir() else folder)

    @classmethod
    def from_pretrained(cls, place: str | PathLike[str], **settings: Any) -> Model:
        """Return the model of a folder, a file or a repository of the Hugging Face hub, such as "user/name".

        ``settings`` are those of ``huggingface_hub.hf_hub_download``: revision, token, cache_dir and the like. What is no model
        is a `cmcore.Error`.
        """
        return load_model(place if Path(place).exists() else hub.fetched(str(place), MODEL, **settings))

    def push_to_hub(self, repository: str, **settings: Any) -> str:
        """Upload the model to a repository of the Hugging Face hub, made if need be, and return its address.

        ``settings`` are ``private``, ``token``, ``revision`` and ``commit_message``, as huggingface_hub has them.
        """
        with TemporaryDirectory() as folder:
            self.save(folder)
            return hub.pushed(Path(folder), repository, **settings)

    def _on_host(
        self, n: int, backend: Backend, batch: int | None, *, label: Any = None, **settings: Any
    ) -> np.ndarray:
        labels = None if label is None else self.label_numbers(label, n)
        size = fitting_batch(self.data.shape) if batch is None else batch
        x = Sampler(self, backend, size)(n, labels=labels, **settings)
        return x.clip(-1, 1) if self.data.images else x

    def label_numbers(self, label: Any, n: int) -> np.ndarray:
        """Return n class numbers, of one class or of n, by number or name; `ValueError` for what is no class of the model's."""
        names, classes = self.data.classes, self.architecture.classes
        if not classes:
            raise ValueError("The model was trained without classes, so it takes no label.")
        many = isinstance(label, (list, tuple, range)) or (hasattr(label, "shape") and tuple(label.shape) != ())
        given = [one if isinstance(one, str) else _python(one) for one in label] if many else [_python(label)] * n
        numbered = any(name.lstrip("-").isdecimal() for name in names)

        def number(one: Any) -> int:
            if isinstance(one, str) and one in names:
                return names.index(one)
            # Where names are numbers, a text is a name.
            if (isinstance(one, int) and not isinstance(one, bool)) or (
                isinstance(one, str) and one.isdecimal() and not numbered
            ):
                if 0 <= int(one) < classes:
                    return int(one)
            known = (
                ", ".join(map(printable, names[:20])) + (", ..." if len(names) > 20 else "") or f"0 to {classes - 1}"
            )
            those = meant(one, map(printable, names), f"the model's classes are {known}.")
            raise ValueError(f"There is no class {one!r}; {those}")

        if len(given) != n:
            raise ValueError(f"{n} samples need one label, or {n}; got {len(given)}.")
        return np.array([number(one) for one in given])

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.data.shape))
        classes = f", {counted(self.architecture.classes, 'class', 'classes')}" if self.architecture.classes else ""
        return (
            f"Model({self.recipe.name}, {self.architecture.kind} of {parameters(self.architecture):,} parameters, "
            f"{printable(self.data.name)}: {shape}{classes}, step {self.step:,} of {self.steps:,})"
        )

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows: sixteen samples of one step, or of the sampler's own number; nothing where that fails."""
        return self._picture

    @cached_property
    def _picture(self) -> bytes | None:
        # Latents would be no picture, whatever their number of channels.
        if not self.data.images:
            return None
        from cmcore.run.pictures import grid

        file = BytesIO()
        # A picture is a courtesy: whatever is wrong with it, the model is there.
        with suppress(Exception):
            grid(self._on_host(16, default(), None)).save(file, "PNG")
        return file.getvalue() or None


def _cast(weights: Mapping[str, np.ndarray], before: type, after: type) -> dict[str, np.ndarray]:
    return {name: w.astype(after) if w.dtype == before else w for name, w in weights.items()}


def _python(label: Any) -> Any:
    """A class as Python has it: an array of one number, of whatever framework, is that number."""
    return label.item() if hasattr(label, "item") else label


def save_model(model: Model, path: str | PathLike[str]) -> None:
    """Write a model with its manifest, atomically; `ValueError` if a weight is not finite."""
    manifest = {
        "recipe": recipe_to_json(model.recipe),
        "path": type(model.recipe.path).__name__.lower(),
        "parametrization": model.recipe.parametrization_data,
        "sigma_data": model.recipe.sigma_data,
        "network": networks.to_config(model.architecture),
        "data": {**asdict(model.data), "range": [-1, 1]},
        "ema": _described(model.recipe.average.schedule()),
        "step": model.step,
        "steps": model.steps,
        "about": dict(model.about),
    }
    write_arrays(path, model.weights, manifest)


def load_model(source: str | PathLike[str]) -> Model:
    """Read a model from a run folder or a model file, or one that comes with the package (`cmcore.shipped`) by its name.

    Whatever is wrong with it - missing, truncated, foreign, from a newer version, weights that do not fit the network -
    is a `cmcore.Error` that says so.
    """
    path = Path(source)
    if not path.exists() and (own := shipped.path(source)):
        path = own
    elif path.is_dir():
        path = path / MODEL
        if not path.is_file():
            if said := teacher_first(path.parent):
                raise Error(said)
            raise Error(
                f"{source} has no {MODEL}: it is not a run folder, or its training has not saved anything yet. If it is another "
                f"program's checkpoint, make a run of it: cmcore import {shlex.quote(str(source))} --out RUN"
            )
    elif not path.exists():
        raise Error(
            f"There is no run folder or model file {str(source)!r}; "
            + meant(
                source,
                shipped.names(),
                f"give the folder that cmcore train wrote (its --out), or the {MODEL} in it{_or_shipped()}.",
            )
        )
    weights, manifest = read_arrays(path)
    try:
        _check_sizes(manifest["network"], sum(w.size for w in weights.values()))
        # Files of before data were standardised do not say that they were not.
        facts = {"center": (), "scale": (), **{k: v for k, v in manifest["data"].items() if k != "range"}}
        model = Model(
            recipe_from_json(manifest["recipe"]),
            networks.from_config(manifest["network"]),
            _cast(weights, np.float16, np.float32),
            DataFacts(**{f.name: facts[f.name] for f in fields(DataFacts)}),
            int(manifest["step"]),
            int(manifest["steps"]),
            manifest["about"],
        )
        recorded = (manifest["path"], manifest["parametrization"])
        if recorded != (type(model.recipe.path).__name__.lower(), model.recipe.parametrization_data):
            raise ValueError("Its path or parametrisation is not the one this version gives its recipe.")
        if model.architecture.shape != model.data.shape:
            raise ValueError("Its network and its data have different shapes.")
        networks.check_weights(model.architecture, weights)
        check_finite(weights)
    except KeyError as missing:
        raise Error(f"The model {path} cannot be used: its manifest lacks {missing}.") from missing
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as mismatch:
        raise Error(f"The model {path} cannot be used: {mismatch}") from mismatch
    return model


def _or_shipped() -> str:
    return f", or the name of a model that comes with cmcore: {', '.join(shipped.names())}" if shipped.names() else ""


def _check_sizes(network: Mapping[str, Any], numbers: int) -> None:
    """Refuse settings larger than all weights together, before anything of such a size is made."""
    for name, value in network.items():
        if isinstance(value, dict):
            _check_sizes(value, numbers)
        for size in value if isinstance(value, list) else [value]:
            if isinstance(size, int) and size > max(numbers, 1024):
                raise ValueError(f"Its network has {name} {size}, and only {numbers} weights.")


def recipe_to_json(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe and all its options as plain JSON data; `ValueError` for a function without a name to be found by."""
    functions: dict[str, Any] = {
        f.name: function_name(v) for f in fields(recipe) if callable(v := getattr(recipe, f.name))
    }
    options = asdict(replace(recipe, **functions))
    # In files, from before the average had settings of its own, these are among the optimiser's.
    options["optimizer"] |= options.pop("average")
    return {"name": recipe.name, "options": _plain({**{n: options[n] for n in FIRST if n in options}, **options})}


def recipe_from_json(settings: Mapping[str, Any]) -> Recipe:
    """Return the recipe that `recipe_to_json` described; unknown names and options are a `ValueError`."""
    options = with_todays_names(settings["name"], settings["options"])
    optimizer = dict(options.pop("optimizer"))
    average = {f.name: optimizer.pop(f.name) for f in fields(Average) if f.name in optimizer}
    optimizer["betas"] = tuple(optimizer["betas"])
    known = recipes.by_name(recipes.get(settings["name"]))
    options = {name: value for name, value in options.items() if name in known or not _without_choice(name, value)}
    recipe = recipes.get(settings["name"], **options)
    return replace(recipe, optimizer=Optimizer(**optimizer), average=Average(**average))


def with_todays_names(recipe: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a file of any version under the names that they have now."""
    options = dict(options)
    # meanflow and imf counted the samples with s != t, where psd always counted those with s = t.
    if recipe in ("meanflow", "imf") and "different" in options:
        options["diagonal"] = 1.0 - options.pop("different")
    return options


FIRST = ("sigma_data", "t_min", "t_max", "distance", "weighting", "learned_weight", "optimizer")
"""The options that come first in files, as they always did."""

WITHOUT_CHOICE = {
    "t_min": (grids.T_MIN,),
    "t_max": (grids.T_MAX,),
    "distance": ("squared_l2",),
    "weighting": ("uniform",),
    "learned_weight": (False,),
    "mean": (-1.1,),
    "std": (2.0,),
    "stages": (8,),
}
"""What older files say of options that their methods left no choice of, and do not have any more."""


def _without_choice(name: str, value: Any) -> bool:
    return value in WITHOUT_CHOICE.get(name, ())


def _described(average: Schedule) -> dict[str, Any]:
    if isinstance(average, Constant):
        return {"kind": "exponential", "decay": average.rate}
    return {"kind": type(average).__name__, **asdict(average)}  # type: ignore[call-overload]


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with Python's own numbers in place of NumPy's, which JSON does not know."""
    return {
        name: _plain(value) if isinstance(value, dict) else value.item() if isinstance(value, np.generic) else value
        for name, value in options.items()
    }
