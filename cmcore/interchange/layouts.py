"""The published layouts: how each names a U-Net's weights, what changes on the way to ours, and what its files say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cmcore.errors import Error
from cmcore.interchange import conventions, names, settings
from cmcore.interchange.changes import FROM_1X1, HWIO, INTERLEAVED, NINS, SAME, THIRDS, TRANSPOSED, Change
from cmcore.interchange.conventions import Convention
from cmcore.interchange.names import Frame, Place
from cmcore.interchange.opening import Opened
from cmcore.interchange.table import Buffer, Row
from cmcore.interchange.unets import frame_of, frequencies_of, place_of
from cmcore.networks import UNet

Named = tuple[tuple[str, ...], Change]
"""The published weights that one of ours is made of, and how."""


@dataclass(frozen=True)
class Layout:
    """A published layout; ``options`` are those of an import that it knows."""

    name: str
    recognises: Callable[[Opened], bool]
    """Whether a file is of this layout, by its weights' names and its companion."""
    network: Callable[[Opened, Mapping[str, Any]], UNet]
    convention: Callable[[Opened, Mapping[str, Any]], Convention]
    named: Callable[[Frame, Place, str, int], Named]
    """The published weights of one of ours: by the frame, the place, weight or bias, and ours' number of axes."""
    buffers: Callable[[UNet, Frame], list[Buffer]]
    options: tuple[str, ...]
    needs: Callable[[Opened], Mapping[str, str]] = lambda found: {}
    """The options that a file leaves to the user, and what each is."""

    def table(self, network: UNet) -> tuple[list[Row], list[Buffer]]:
        """Return the rows and constants of a network of ours; `Error` if the layout has no name for a part of it."""
        frame, rows = frame_of(network), []
        for name, shape in network.layout().items():
            path, _, leaf = name.rpartition(".")
            try:
                rows.append(Row(name, *self.named(frame, place_of(path), leaf, len(shape))))
            except KeyError:
                raise Error(f"The layout {self.name!r} has no place for the network's weight {name!r}.") from None
        return rows, self.buffers(network, frame)


def _openai(frame: Frame, place: Place, leaf: str, axes: int) -> Named:
    return (f"{names.openai(frame, place)}.{leaf}",), FROM_1X1 if place.attends and axes == 2 else SAME


def _diffusers(frame: Frame, place: Place, leaf: str, axes: int) -> Named:
    path = names.diffusers(frame, place)
    if place.part == "qkv":
        return tuple(f"{path}.to_{letter}.{leaf}" for letter in "qkv"), THIRDS
    return (f"{path}.{leaf}",), SAME


def _edm(frame: Frame, place: Place, leaf: str, axes: int) -> Named:
    path = names.edm(frame, place)
    if place.part == "label_bias":
        return (f"{path}.bias",), SAME
    if place.part == "label":
        return (f"{path}.{leaf}",), TRANSPOSED
    change = FROM_1X1 if place.attends and axes == 2 else SAME
    return (f"{path}.{leaf}",), change.then(INTERLEAVED) if place.part == "qkv" else change


def _flax(frame: Frame, place: Place, leaf: str, axes: int) -> Named:
    path = names.flax(frame, place)
    if place.part in ("qkv", "proj"):
        letter = {"weight": "W", "bias": "b"}[leaf]
        if place.part == "qkv":
            return tuple(f"{path}_{i}/{letter}" for i in range(3)), NINS if leaf == "weight" else THIRDS
        return (f"{path}/{letter}",), TRANSPOSED if leaf == "weight" else SAME
    if leaf == "bias":
        return (f"{path}/bias",), SAME
    if place.part.startswith("norm"):
        return (f"{path}/scale",), SAME
    kernel = "weight" if place.role == "aux" else "kernel"
    return (f"{path}/{kernel}",), HWIO if axes == 4 else TRANSPOSED


def _no_buffers(network: UNet, frame: Frame) -> list[Buffer]:
    return []


def _filters(network: UNet, frame: Frame) -> list[Buffer]:
    """EDM's constants: the filter of each convolution that halves or doubles, and random Fourier features."""
    taps = np.asarray(network.taps, np.float64)
    kernel = (np.outer(taps, taps) / taps.sum() ** 2)[None, None].astype(np.float32)
    filtered = [Place("aux", "conv", level) for level in range(1, frame.levels) if network.residual]
    for role, levels in (("down", range(1, frame.levels)), ("up", range(frame.levels - 1))):
        filtered += [Place(role, part, level) for level in levels for part in ("conv0", "skip")]
    found = [Buffer(f"{names.edm(frame, place)}.resample_filter", kernel) for place in filtered]
    return found + [Buffer("map_noise.freqs", frequencies_of(network))] * (network.times == "fourier")


def _frequencies(network: UNet, frame: Frame) -> list[Buffer]:
    return [Buffer("GaussianFourierProjection_0/W", frequencies_of(network))]


def _has(*parts: str) -> Callable[[Opened], bool]:
    return lambda found: all(any(name.startswith(part) for name in found.tensors) for part in parts)


def _network_of_diffusers(found: Opened, options: Mapping[str, Any]) -> UNet:
    if "unet" not in found.companion:
        raise Error(f"{found.path} has diffusers' names and no config.json beside; give the folder that they are in.")
    return settings.diffusers(found.companion["unet"])


def _of_diffusers(found: Opened, options: Mapping[str, Any]) -> Convention:
    if "scheduler" not in found.companion:
        raise Error(
            f"{found.path} has no scheduler/scheduler_config.json, which says how its network is used; give the whole pipeline."
        )
    return conventions.of_scheduler(found.companion["scheduler"])


def _of_edm(found: Opened, options: Mapping[str, Any]) -> Convention:
    said = found.companion.get("preconditioning") or options["preconditioning"]
    return conventions.of_preconditioning(said, found.companion.get("init", {}))


_KIND = {"kind": f"what kind of model it is, {' or '.join(conventions.KINDS)}"}
_SIDE = {"side": "the images' side in pixels"}
_HEADS = {"head_width": "the channels of an attention's head, 64 in OpenAI's own"}
_ATTENTION = {"attention": "the side of the images that attention is at, 16 in OpenAI's own"}


def _preconditioning(found: Opened) -> Mapping[str, str]:
    asked = {"preconditioning": f"how the network is used, {' or '.join(conventions.PRECONDITIONINGS)}"}
    return {} if "preconditioning" in found.companion else asked


_MODEL = ("kind", "recipe", "sigma_data", "t_min", "t_max")

LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout(
            "openai",
            _has("time_embed.0.", "input_blocks.0.0."),
            lambda found, options: settings.openai(found.tensors, options),
            lambda found, options: conventions.of_kind(options["kind"], (250.0, 0.0)),
            _openai,
            _no_buffers,
            (*_MODEL, "side", "head_width"),
            lambda found: _KIND | _SIDE | _HEADS,
        ),
        Layout(
            "diffusers",
            _has("conv_in.", "time_embedding.", "down_blocks."),
            _network_of_diffusers,
            _of_diffusers,
            _diffusers,
            _no_buffers,
            _MODEL[1:],
        ),
        Layout(
            "edm",
            _has("map_layer0.", "enc.", "dec."),
            lambda found, options: settings.edm(found.tensors),
            _of_edm,
            _edm,
            _filters,
            (*_MODEL[1:], "preconditioning", "weights"),
            _preconditioning,
        ),
        Layout(
            "flax",
            _has("GaussianFourierProjection_0/", "ResnetBlockBigGANpp_0/"),
            lambda found, options: settings.flax(found.tensors, options),
            lambda found, options: conventions.of_kind(options["kind"]),
            _flax,
            _frequencies,
            (*_MODEL, "side", "attention", "weights"),
            lambda found: _KIND | _SIDE | _ATTENTION,
        ),
    )
}
"""The layouts by name."""
