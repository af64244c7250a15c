"""Latents as images, by the decoder of a diffusers AutoencoderKL."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from cmcore._files import placed
from cmcore.backend import Backend, available, load
from cmcore.data_facts import DataFacts
from cmcore.errors import Error

PIXELS = 2**18
"""How many pixels are decoded at once; an image of more is decoded by itself."""

LARGEST_CONFIG = 2**20
"""A config.json of more bytes than this is none."""


class Decoder:
    """The decoder of an AutoencoderKL's folder, or of the ``vae`` of a pipeline's: latents (N, c, h, w) to images in [-1, 1].

    Latents are taken as diffusers' pipelines have them, and its training scripts: ``(z - shift_factor) * scaling_factor`` of the
    autoencoder's own z, or ``(z - latents_mean) * scaling_factor / latents_std`` where its config.json has these. With ``raw`` they
    are z itself. What is no such folder is an `Error`, and so is a missing package.
    """

    def __init__(self, folder: str | PathLike[str], *, raw: bool = False, backend: Backend | None = None) -> None:
        place = Path(folder)
        self.folder = place / "vae" if (place / "vae" / "config.json").is_file() else place
        config = _config(self.folder)
        try:
            self._latent = int(config.get("latent_channels", 4))
            self._channels = int(config.get("out_channels", 3))
            self._factor = 2 ** (len(config.get("block_out_channels", (64,))) - 1)
            self._scale, self._shift = (1.0, 0.0) if raw else _scaling(config)
        except (TypeError, ValueError) as wrong:
            raise Error(f"The autoencoder {self.folder} cannot be used: {wrong}.") from wrong
        self._decode = getattr(_decoding(backend), "image_decoder")(self.folder)  # noqa: B009
        self._raw = raw

    def facts(self, latents: DataFacts) -> DataFacts:
        """Return what is known of the images that latents become; `ValueError` for what it does not decode."""
        if latents.images:
            raise ValueError("The model's samples are images already, so it takes no decoder.")
        if len(latents.shape) != 3 or latents.shape[0] != self._latent:
            raise ValueError(
                f"The autoencoder {self.folder} decodes latents of {self._latent} channels, (C, H, W); "
                f"the model's samples have the shape {latents.shape}."
            )
        shape = (self._channels, *(side * self._factor for side in latents.shape[1:]))
        return replace(latents, shape=shape, images=True, center=(), scale=())

    def __call__(self, latents: np.ndarray) -> np.ndarray:
        """Return latents as images (N, C, H, W) float32, clipped to [-1, 1], a few at a time."""
        z = np.asarray(latents / self._scale + self._shift, np.float32)
        each = math.prod(z.shape[2:]) * self._factor**2
        size = max(1, PIXELS // each)
        return np.concatenate([self._decode(z[i : i + size]) for i in range(0, len(z), size)]).clip(-1, 1)

    def fingerprint(self) -> str:
        """Return a digest of all that images depend on."""
        digest = hashlib.sha256(repr(self._raw).encode())
        for path in (self.folder / "config.json", *sorted(self.folder.glob("*.safetensors"))):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()[:16]


def _config(folder: Path) -> Mapping[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise Error(f"{folder} is no autoencoder: it has no config.json; give the folder of a diffusers AutoencoderKL.")
    with placed(path), path.open("rb") as file:
        text = file.read(LARGEST_CONFIG + 1)
    try:
        config = json.loads(text) if len(text) <= LARGEST_CONFIG else None
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise Error(f"{path} is damaged: it holds no settings in JSON.")
    if (kind := config.get("_class_name")) != "AutoencoderKL":
        raise Error(f"{folder} holds {kind or 'something else'}; give the folder of a diffusers AutoencoderKL.")
    return config


def _scaling(config: Mapping[str, Any]) -> tuple[np.ndarray | float, np.ndarray | float]:
    """What latents are divided by, and what is then added: numbers, or one for each channel, (c, 1, 1)."""
    scaling = config.get("scaling_factor")
    factor = 0.18215 if scaling is None else float(scaling)
    if not (math.isfinite(factor) and factor > 0):
        raise ValueError(f"its scaling_factor is {factor}")
    mean, deviation = config.get("latents_mean"), config.get("latents_std")
    if mean is None or deviation is None:
        return factor, float(config.get("shift_factor") or 0.0)
    each, shift = (np.reshape(np.asarray(v, np.float64), (-1, 1, 1)) for v in (deviation, mean))
    if not (np.isfinite(each).all() and np.isfinite(shift).all() and (each > 0).all()):
        raise ValueError(f"its latents_std are {deviation} and its latents_mean {mean}")
    return factor / each, shift


def _decoding(backend: Backend | None) -> Backend:
    """The backend itself, if it knows autoencoders, so that its device is used; else the first that does."""
    for one in ([] if backend is None else [backend]) + [load(name) for name in available()]:
        if hasattr(one, "image_decoder"):
            return one
    raise Error('None of the installed backends decodes latents: pip install "cmcore[latents]".')
