"""A small data set to train on."""

import numpy as np

from cmcore.run.data import Dataset


def make_data(shape=(1, 4, 4), n=40, classes=0, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (n, *shape)).astype(np.float32)
    labels = np.arange(n) % classes if classes else None
    names = tuple(f"class {i}" for i in range(classes))
    return Dataset(x, labels, names, x[:10] * 0.9, "toy", len(shape) == 3)
