"""Fashion-MNIST (Xiao et al. 2017), 28 x 28 grey images of clothes, from the four IDX files it is published as."""

from __future__ import annotations

import os
from pathlib import Path

from cmcore.errors import Error
from cmcore.run.data import idx
from cmcore.run.data.convert import Raw, Size

FOLDER = "/usr/share/datasets/fashion-mnist"
NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def read(_size: Size | None = None) -> Raw:
    """Return the 60,000 training images, (N, 1, 28, 28), with the 10,000 test images held out."""
    folder = Path(os.environ.get("CMCORE_FASHION_MNIST", FOLDER))
    train = idx.read(_file(folder, "train-images-idx3-ubyte"))
    test = idx.read(_file(folder, "t10k-images-idx3-ubyte"))
    return Raw(train.x, held_out=test.x, labels=train.labels, names=NAMES)


def _file(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise Error(
        f"{folder} holds no {name} or {name}.gz; install Debian's package dataset-fashion-mnist, "
        "or set CMCORE_FASHION_MNIST to the folder that holds the four IDX files."
    )
