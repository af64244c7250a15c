"""Models as the published programs' files: what each format is, and what of a model it cannot hold."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from cmcore._files import atomic_write, check_finite
from cmcore._words import choice
from cmcore.errors import Error
from cmcore.interchange.card import card
from cmcore.interchange.conventions import Convention, is_average_velocity, of_model, to_preconditioning, to_scheduler
from cmcore.interchange.layouts import LAYOUTS
from cmcore.interchange.onnx import write_onnx
from cmcore.interchange.opening import CONFIG, SCHEDULER, SETTINGS, WEIGHTS, Opened
from cmcore.interchange.table import given
from cmcore.interchange.torch_file import write_state_dict
from cmcore.interchange.unet_config import unet_config
from cmcore.interchange.unets import same
from cmcore.interchange.web import write_web
from cmcore.model import MODEL, Model, save_model
from cmcore.networks import Adapted, UNet, to_config
from cmcore.run.config import differing


def export_model(
    model: Model,
    to: str,
    out: str | PathLike[str],
    *,
    license: str | None = None,
    figures: str = "",
    onnxruntime_web: str | PathLike[str] | None = None,
) -> None:
    """Write a model as another program's file or folder, which must be new; `Error` if that program has no such models.

    ``to`` is one of `FORMATS`: "diffusers", a folder that ``ConsistencyModelPipeline`` or ``DDPMPipeline`` loads, or, for a flow map that
    predicts average velocities, the model and a ``FlowMapEulerDiscreteScheduler``, for diffusers has no network of two times; "openai", a state dict
    for ``cm.unet.UNetModel``; "edm", a folder with safetensors under the names of NVlabs/edm's networks, and settings - not
    their pickle, which carries source code to be executed; "onnx", a folder as `cmcore.interchange.onnx` says; "web", a page
    that samples and edits in a browser (`cmcore.interchange.web`), with the npm package onnxruntime-web, unpacked in a folder or by default
    fetched. A folder gets a model card, README.md, with the
    ``license`` and the ``figures`` that are given.
    """
    if to not in FORMATS:
        raise ValueError(f"There is no format {to!r} to export to; {choice(to, FORMATS)}")
    place = Path(out)
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise Error(f"{place} exists already and is not overwritten; choose another place.")
    if onnxruntime_web is not None and to != "web":
        raise Error(f"onnxruntime-web is part of a page, --to web; a model for {to} needs none.")
    check_finite(model.weights)
    if to == "web":
        write_web(model, place, onnxruntime_web)
    else:
        FORMATS[to](model, place)
    if place.is_dir():
        atomic_write(place / "README.md", card(model, to, license, figures).encode())


def _diffusers(model: Model, out: Path) -> None:
    if is_average_velocity(model.recipe):
        (out / "scheduler").mkdir(parents=True, exist_ok=True)
        save_model(model, out / MODEL)
        _write_json(out / "scheduler" / SCHEDULER, _FLOW_MAP)
        return
    network, weights, convention = _published(model)
    pipeline, scheduler = to_scheduler(convention)
    if len(set(network.shape[1:])) > 1:
        raise Error(
            f"diffusers' {pipeline} makes square images; the model's are {network.shape[1]} x {network.shape[2]}."
        )
    companion = {"unet": unet_config(network), "scheduler": scheduler}
    tensors = _checked("diffusers", network, weights, convention, companion, {})
    parts = {"unet": "UNet2DModel", "scheduler": scheduler["_class_name"]}
    index = {name: ["diffusers", cls] for name, cls in parts.items()}
    for name in parts:
        (out / name).mkdir(parents=True, exist_ok=True)
    _write_safetensors(out / "unet" / WEIGHTS, tensors)
    _write_json(out / "unet" / CONFIG, companion["unet"])
    _write_json(out / "scheduler" / SCHEDULER, scheduler)
    # Last: with it the folder is a pipeline.
    _write_json(out / "model_index.json", {"_class_name": pipeline, "_diffusers_version": _VERSION, **index})


def _openai(model: Model, out: Path) -> None:
    network, weights, convention = _published(model)
    options = {"kind": convention.kind, "side": network.shape[1], "head_width": network.head_channels}
    tensors = _checked("openai", network, weights, convention, {}, options)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_state_dict(out, tensors)


def _edm(model: Model, out: Path) -> None:
    network, weights, convention = _published(model)
    name, init = to_preconditioning(convention)
    companion = {"preconditioning": name, "init": init}
    tensors = _checked("edm", network, weights, convention, companion, {})
    out.mkdir(parents=True, exist_ok=True)
    _write_safetensors(out / "network.safetensors", tensors)
    _write_json(out / SETTINGS, companion)


def _onnx(model: Model, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    write_onnx(model, out)


FORMATS: dict[str, Callable[[Model, Path], None]] = {
    "diffusers": _diffusers,
    "openai": _openai,
    "edm": _edm,
    "onnx": _onnx,
    "web": write_web,
}
"""What a model can be exported to: each writes it to a place that is new."""

_VERSION = "0.42.0"

_FLOW_MAP = {
    "_class_name": "FlowMapEulerDiscreteScheduler",
    "_diffusers_version": _VERSION,
    "num_train_timesteps": 1000,
    "shift": 1.0,
}


def _published(model: Model) -> tuple[UNet, dict[str, np.ndarray], Convention]:
    """The model's network and weights without what training alone needs, and how they are used."""
    if model.data.scale:
        raise Error(
            "The model's data were standardised, and the published programs' files have no place for the center and scale that "
            "bring its samples back to the data's units; ONNX files have: --to onnx"
        )
    convention, network, weights = of_model(model.recipe, model.architecture), model.architecture, dict(model.weights)
    if isinstance(network, Adapted):
        network, weights = network.network, {name.removeprefix("net."): w for name, w in weights.items()}
    if not isinstance(network, UNet):
        raise Error(
            f"The model's network is of the kind {network.kind!r}; the published programs have U-Nets, ours of the kind 'unet'."
        )
    network = network.with_options(two_times=False, log_weight=False)
    return network, {name: weights[name] for name in network.layout()}, convention


def _checked(
    name: str,
    network: UNet,
    weights: Mapping[str, np.ndarray],
    convention: Convention,
    companion: Mapping[str, Any],
    options: Mapping[str, Any],
) -> dict[str, np.ndarray]:
    """The published weights; an `Error` unless, read back, they are those of the same network, used the same way."""
    layout = LAYOUTS[name]
    rows, buffers = layout.table(network)
    tensors = given(rows, buffers, weights)
    found = Opened(Path(name), tensors, companion)
    back, use = layout.network(found, options), layout.convention(found, options)
    if not same(back, network):
        unlike = {**to_config(network), "dropout": 0.0}, {**to_config(back), "dropout": 0.0}
        raise Error(
            f"The layout {name!r} cannot say all of the network's settings; it would be read there with other ones (there: the "
            f"model's, here: the layout's): {differing(*unlike)}"
        )
    times: dict[str, Any] = {"t_min": convention.t_min, "t_max": convention.t_max, "sigma_data": convention.sigma_data}
    if replace(use, **times) != convention:
        raise Error(
            f"The layout {name!r} is for networks that are told the time by the clock {use.clock!r}{use.numbers[:3]} and predict "
            f"{use.predicts!r}; the model's is told it by {convention.clock!r}{convention.numbers[:3]} and predicts "
            f"{convention.predicts!r}."
        )
    return tensors


def _write_safetensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    import safetensors.numpy

    # diffusers asks for the name of a framework; the numbers are the same in all.
    dense = {name: np.asarray(a, order="C") for name, a in tensors.items()}
    atomic_write(path, safetensors.numpy.save(dense, {"format": "pt"}))


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    atomic_write(path, (json.dumps(content, indent=2) + "\n").encode())
