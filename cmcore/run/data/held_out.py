"""Samples that are kept from training: a share of them, drawn by their order alone, or those of another folder."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cmcore.run.data.dataset import split
from cmcore.run.data.samples import Samples


def share_of(held_out: float | str | None) -> float | None:
    """Return what of a ``--held-out`` is a share; None if it is another source, or nothing. A share out of range is a `ValueError`."""
    try:
        share = float(held_out) if held_out is not None else None
    except ValueError:
        return None
    if share is not None and not 0 < share < 1:
        raise ValueError(
            f"--held-out is a share above 0 and below 1, such as 0.1, or a folder or file; got {held_out}."
        )
    return share


def parted(n: int, share: float, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows to train on and a share of all n that is held out: always the same ones, and at least one."""
    out = max(1, round(n * share))
    if n - out < 2:
        raise ValueError(
            f"--held-out {share:g} leaves {n - out} of the {n} samples of {name} to train on; hold out fewer."
        )
    return split(n, out)


def part_of(samples: Samples, rows: np.ndarray) -> Samples:
    """Return some of the samples, which stay where they are stored."""
    return replace(samples, rows=rows if samples.rows is None else samples.rows[rows], known=None)
