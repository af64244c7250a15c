"""Where the weights of `cmcore.networks.UNet` are, in the words of `cmcore.interchange.names`."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from cmcore.interchange.names import Frame, Place
from cmcore.networks import Dropout, UNet, leaves

_SINGLE = {
    "time_in": Place("embed", "time0"),
    "time_out": Place("embed", "time1"),
    "label": Place("embed", "label"),
    "label_bias": Place("embed", "label_bias"),
    "augment": Place("embed", "augment"),
    "stem": Place("stem", "conv"),
    "norm": Place("out", "norm"),
    "head": Place("out", "conv"),
}
_LEADS = {"enc": "down", "dec": "up"}
_BLOCK = re.compile(r"(enc|dec)\.(\d+)\.(lead|aux|blocks\.(\d+))\.(\w+)|mid\.(\d)\.(\w+)")


def place_of(path: str) -> Place:
    """Return the place of a layer of ours, by its path in the network; `KeyError` for one that published networks lack."""
    if path in _SINGLE:
        return _SINGLE[path]
    found = _BLOCK.fullmatch(path)
    if found is None:
        raise KeyError(path)
    way, level, where, index, part, middle, middle_part = found.groups()
    if middle:
        return Place("mid", middle_part, 0, int(middle))
    if index:
        return Place(way, part, int(level), int(index))
    return Place("aux" if where == "aux" else _LEADS[way], part, int(level))


def published(network: UNet) -> UNet:
    """Return the network without what only training needs, as files have it."""
    return network.with_options(two_times=network.two_times, log_weight=False)


def frame_of(network: UNet) -> Frame:
    """Return what the published names count."""
    places = [place_of(path) for path, layer in leaves(network.part()) if layer.layout()]
    return Frame.of(len(network.multipliers), network.blocks, network.shape[1], places, song=network.skip_conv)


def frequencies_of(network: UNet) -> np.ndarray:
    """Return the numbers of the time's random Fourier features, float32, of which the features have 2 pi times as many."""
    if network.fourier:
        return np.asarray(network.fourier, np.float32)
    phi: Any = next(layer for path, layer in leaves(network.part()) if path == "phi")
    return (np.asarray(phi.frequencies) / (2 * np.pi)).astype(np.float32)


def same(one: UNet, other: UNet) -> bool:
    """Whether two networks compute the same function of the same weights, dropout aside."""
    layers = [{p: layer for p, layer in leaves(n.part()) if not isinstance(layer, Dropout)} for n in (one, other)]
    settings = [(n.shape, n.skip_scale, n.scale_shift, n.sine_first) for n in (one, other)]
    return layers[0] == layers[1] and settings[0] == settings[1]
