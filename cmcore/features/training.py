"""Training the classifier, in whatever framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cmcore._arrays import device_of
from cmcore.backend import Array, Backend, namespace
from cmcore.ema import Average
from cmcore.features.classifier import Classifier
from cmcore.features.network import ClassifierNetwork
from cmcore.optimization import Optimizer
from cmcore.training import Trainer, TrainSpec, pays_to_compile

if TYPE_CHECKING:
    from cmcore.run.data import Dataset


def train_classifier(
    data: Dataset,
    backend: Backend,
    *,
    tested: tuple[np.ndarray, np.ndarray],
    epochs: int = 12,
    batch: int = 128,
    seed: int = 0,
    flip: bool = False,
    compute: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Classifier:
    """Return a classifier of labelled pictures; ``tested`` are held-out pictures and their labels, for its accuracy.

    Pictures are moved by up to a pixel, and with ``flip`` turned left to right, at random. ``progress`` is told the steps done and
    their number. Data without labels, or with one class, are a `ValueError`.
    """
    if data.labels is None or len(data.classes) < 2:
        raise ValueError(f"A classifier is trained on pictures of at least two classes; {data.name} has no labels.")
    architecture = ClassifierNetwork(tuple(data.shape), len(data.classes))
    steps = max(1, epochs * len(data) // batch)
    optimizer = Optimizer("adamw", lr=2e-3, weight_decay=0.02, warmup=min(200, steps // 10), decay=True)
    average = Average(0.999)
    trainer = Trainer(
        backend,
        backend.network(architecture, seed=seed, compute=compute),
        TrainSpec(_cross_entropy(architecture.width), optimizer, seed=seed, compiled=pays_to_compile(backend, steps)),
    )
    for step in range(steps):
        x, labels = data.batch(seed, step, batch)
        assert labels is not None
        moved = _moved(x, np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, step)))), flip)
        scalars = optimizer.scalars(step, steps) | average.scalars(step)
        trainer.step(step, moved, scalars, {"label": labels.astype(np.int32)})
        if progress is not None:
            progress(step + 1, steps)
    weights = trainer.weights("ema")
    found = Classifier(architecture, weights, tuple(data.classes), data.name, 0.0, len(tested[0]), backend)
    return replace(found, accuracy=float(np.mean(found.labels(tested[0]) == tested[1])))


def _cross_entropy(width: int) -> Callable[..., Array]:
    def loss(
        nets: Mapping[str, Any],
        x0: Array,
        z: Array,
        tau: Array,
        scalars: Mapping[str, Array],
        cond: Mapping[str, Array],
    ) -> Array:
        xp = namespace(x0)
        logits = nets["online"](x0, x0[:, 0, 0, 0])[:, width:]
        logits = logits - xp.max(logits, axis=1, keepdims=True)
        classes = xp.arange(logits.shape[1], dtype=cond["label"].dtype, device=device_of(x0))
        own = xp.sum(xp.where(cond["label"][:, None] == classes[None, :], logits, xp.zeros_like(logits)), axis=1)
        return xp.log(xp.sum(xp.exp(logits), axis=1)) - own

    return loss


def _moved(x: np.ndarray, rng: np.random.Generator, flip: bool, most: int = 1) -> np.ndarray:
    """Pictures moved by up to ``most`` pixels, each on its own, the edge repeated; and half of them turned left to right."""
    padded = np.pad(x, ((0, 0), (0, 0), (most, most), (most, most)), mode="edge")
    rows, columns = rng.integers(0, 2 * most + 1, (2, len(x)))
    height, width = x.shape[2:]
    i = rows[:, None] + np.arange(height)
    j = columns[:, None] + np.arange(width)
    if flip:
        turned = rng.random(len(x)) < 0.5
        j = np.where(turned[:, None], j[:, ::-1], j)
    return np.ascontiguousarray(
        padded[np.arange(len(x))[:, None, None], :, i[:, :, None], j[:, None, :]].transpose(0, 3, 1, 2)
    )
