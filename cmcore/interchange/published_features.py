"""The features that published figures are of: torch-fidelity's Inception and DINOv2, of weights that the user has.

Extras: ``pip install "cmcore[metrics]"``. Nothing is downloaded. Inception's weights are torch-fidelity's own file, read by torch's
reader of plain tensors; DINOv2's a folder of transformers' layout (config.json and safetensors).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, final

import numpy as np

from cmcore.errors import Error
from cmcore.run.pictures import to_uint8

BATCH = 50


@final
class Inception:
    """The 2,048 features of the Inception network of FID, as torch-fidelity computes them, of its file of weights.

    Pictures become RGB bytes, as evaluators read them from files.
    """

    name = "Inception (torch-fidelity)"

    def __init__(self, weights: str | Path) -> None:
        _there(weights, "inception", "torch-fidelity's weights-inception-2015-12-05-6726825d.pth")
        theirs = _library("torch_fidelity.feature_extractor_inceptionv3")
        with _held_by(weights, "torch-fidelity's Inception"):
            self._net = theirs.FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(weights)
            ).eval()

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the features of pictures, (N, 2048) float32."""
        torch: Any = import_module("torch")
        with torch.no_grad():
            parts = [self._net(torch.from_numpy(part))[0].numpy() for part in _rgb_bytes(x)]
        return np.concatenate(parts)


@final
class DinoV2:
    """The class token of DINOv2 after its last norm, of a folder that transformers reads (Stein et al., 2023, arXiv:2306.04675).

    Pictures are made 224 x 224 RGB, bicubically, and standardised as ImageNet's.
    """

    name = "DINOv2"

    def __init__(self, weights: str | Path) -> None:
        _there(weights, "dinov2", "a folder with DINOv2's config.json and model.safetensors")
        theirs = _library("transformers")
        with _held_by(weights, "DINOv2"):
            net = theirs.Dinov2Model.from_pretrained(str(weights), local_files_only=True, use_safetensors=True)
            self._net = net.eval()

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the features of pictures, (N, d) float32."""
        torch: Any = import_module("torch")
        side = min(224, int(self._net.config.image_size))
        mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        parts = []
        with torch.no_grad():
            for part in _rgb_bytes(x):
                shown = torch.from_numpy(part).float() / 255
                shown = torch.nn.functional.interpolate(
                    shown, size=(side, side), mode="bicubic", antialias=True, align_corners=False
                )
                parts.append(self._net((shown.clamp(0, 1) - mean) / std).pooler_output.numpy())
        return np.concatenate(parts)


def _rgb_bytes(x: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(x), BATCH):
        part = to_uint8(x[start : start + BATCH])
        yield np.repeat(part, 3, axis=1) if part.shape[1] == 1 else part


def _there(weights: str | Path, name: str, what: str) -> None:
    if not Path(weights).exists():
        raise Error(
            f"--features {name} needs weights that you have, and there is no {weights}: give {what} with --weights."
        )


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as missing:
        raise Error(
            f'These features need {missing.name}, which is not installed: pip install "cmcore[metrics]"'
        ) from missing


@contextmanager
def _held_by(weights: str | Path, what: str) -> Iterator[None]:
    """Say of whatever a foreign file makes of its reader that the file does not hold what it should."""
    try:
        yield
    except Exception as broken:
        raise Error(f"{weights} does not hold {what} ({str(broken).splitlines()[0][:200]}).") from broken
