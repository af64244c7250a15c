"""Which features an evaluation compares, by name or file."""

from __future__ import annotations

from pathlib import Path

from cmcore import shipped
from cmcore._words import choice
from cmcore.backend import Backend
from cmcore.errors import Error
from cmcore.features import Features, Pixels, load_classifier

NAMES = ("pixels", "classifier", "inception", "dinov2")


def chosen(name: str | None, weights: str | None, data: str, shape: tuple[int, ...], backend: Backend) -> Features:
    """Return the features of that name, or of a classifier's .safetensors or an .onnx file; by default the best there are.

    The best are those of a classifier that comes with the package for data of that name and shape, else the values themselves.
    ``weights`` are those of published networks. What cannot be had is an `Error`.
    """
    if weights is not None and name not in ("inception", "dinov2"):
        raise Error("--weights are those of --features inception or --features dinov2; give one of these too.")
    path = shipped.classifier(data)
    if name is None or name == "classifier":
        if path is not None:
            own = load_classifier(path, backend)
            if own.architecture.shape == tuple(shape):
                return own
        if name is None:
            return Pixels()
        raise Error(
            f"No classifier for {data} comes with cmcore; train one with cmcore classifier --data DATA --out FILE.safetensors, "
            "and give that file as --features."
        )
    if name == "pixels":
        return Pixels()
    if name in ("inception", "dinov2"):
        from cmcore.interchange.published_features import DinoV2, Inception

        return (Inception if name == "inception" else DinoV2)(weights or f"{name}'s weights")
    if Path(name).suffix == ".onnx":
        from cmcore.interchange.onnx_features import OnnxFeatures

        return OnnxFeatures(name)
    if Path(name).suffix == ".safetensors":
        return load_classifier(name, backend)
    those = choice(name, NAMES, "choose one of", ", or give a .safetensors or .onnx file")
    raise Error(f"Unknown features {name!r}; {those}")
