"""Scikit-learn's handwritten digits: 1,797 grey images of 8 x 8 pixels with 17 levels."""

from __future__ import annotations

import numpy as np

from cmcore.errors import Error
from cmcore.run.data.convert import Raw, Size
from cmcore.run.data.dataset import split

HELD_OUT = 897


def read(_size: Size | None = None) -> Raw:
    """Return 900 digits to train on and 897 held out, (N, 1, 8, 8): levels 0 to 16 become -1 to 1."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise Error('The digits come with scikit-learn; install it with pip install "cmcore[digits]".') from error
    pixels, labels = load_digits(return_X_y=True)
    x = (pixels / 8 - 1).astype(np.float32).reshape(-1, 1, 8, 8)
    train, held_out = split(len(x), HELD_OUT)
    return Raw(x[train], held_out=x[held_out], labels=labels[train], names=tuple("0123456789"))
