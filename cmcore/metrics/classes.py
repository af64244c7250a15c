"""Whether samples come from every class as often as they should."""

from __future__ import annotations

import numpy as np

from cmcore._arrays import to_host
from cmcore._options import check_count
from cmcore.backend import Array


def class_deviation(found: Array, expected: Array, classes: int) -> float:
    """Return the largest difference between the shares of a class, in [0, 1]; labels are (N,) integers below ``classes``.

    ``found`` are those that a classifier gives samples, ``expected`` those that the samples should have, any number of them.
    """
    check_count("classes", classes, 1)
    shares = []
    for name, labels in (("found", found), ("expected", expected)):
        numbers = to_host(labels, name)
        if numbers.ndim != 1 or not numbers.size:
            raise ValueError(f"{name} must hold labels, (N,), got shape {numbers.shape}.")
        if (numbers != np.floor(numbers)).any() or numbers.min() < 0 or numbers.max() >= classes:
            raise ValueError(f"{name} must hold whole numbers in [0, {classes}).")
        shares.append(np.bincount(numbers.astype(np.int64), minlength=classes) / len(numbers))
    return float(np.abs(shares[0] - shares[1]).max())
