"""What comes with the package: models, ``cmcore sample fashion`` works right after installing it, and classifiers to judge by."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

_FOLDER = Path(__file__).parent
_CLASSIFIER = ".classifier.safetensors"


def names() -> tuple[str, ...]:
    """Return the names of the models that come with the package."""
    return tuple(sorted(f.stem for f in _FOLDER.glob("*.safetensors") if not f.name.endswith(_CLASSIFIER)))


def path(name: str | PathLike[str]) -> Path | None:
    """Return the file of the model of that name, or None where no such model comes with the package."""
    return _FOLDER / f"{name}.safetensors" if str(name) in names() else None


def classifier(data: str) -> Path | None:
    """Return the file of the classifier of the data of that name, or None where none comes with the package."""
    return next((f for f in _FOLDER.glob(f"*{_CLASSIFIER}") if f.name == f"{data}{_CLASSIFIER}"), None)
