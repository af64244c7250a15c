"""Labelled pictures that a classifier is tested on and never trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cmcore.errors import Error
from cmcore.run.data.dataset import Dataset
from cmcore.run.data.held_out import part_of, parted, share_of
from cmcore.run.data.load import load


def kept_for_testing(
    data: Dataset, test: str, settings: Mapping[str, Any]
) -> tuple[Dataset, tuple[np.ndarray, np.ndarray]]:
    """Return what to train on, and pictures to test on with their labels: a share of the data, or another source.

    The other source, read with the same ``settings``, has the same classes by name, or as many where one of the two has numbers for
    names; else it is an `Error`.
    """
    assert data.labels is not None
    share = share_of(test)
    if share is not None:
        rows, others = parted(len(data), share, data.name)
        rest = Dataset(part_of(data.samples, rows), data.labels[rows], data.classes, None, data.name, data.images)
        return rest, (part_of(data.samples, others).whole(), data.labels[others])
    found = load(test, **{**settings, "size": data.shape[1:], "channels": data.shape[0]})
    numbers = any(all(name.isdecimal() for name in names) for names in (data.classes, found.classes))
    if found.classes != data.classes and not (numbers and len(found.classes) == len(data.classes)):
        raise Error(f"{test} has other classes than {data.name}; test on pictures of the same.")
    assert found.labels is not None
    return data, (found.x, found.labels)
