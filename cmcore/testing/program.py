"""The program: what `cmcore train` and `cmcore sample` do with the backend, on tiny pictures made up here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from cmcore import recipes
from cmcore.backend import Backend, load, register, registry, unregister
from cmcore.errors import Error
from cmcore.networks import ResidualMLP
from cmcore.testing._tools import if_trainable, random_weights, refuses, require, same_weights

if TYPE_CHECKING:
    from cmcore.run.config import Config
    from cmcore.run.data import Dataset

# The modules of the program are imported where they are used: they need more packages than the mathematics does.


def check_program_samples(backend: Backend, dtype: str = "float32") -> None:
    """A model's samples are those that NumPy makes of it; a backend without gradients that is to train is a `cmcore.Error`."""
    if dtype != "float32":  # in which the program computes
        return
    from cmcore.generate import generate
    from cmcore.model import DataFacts, Model
    from cmcore.run.train import train

    architecture = ResidualMLP(shape=(1, 4, 4), width=4, blocks=1, features=4, classes=2)
    facts = DataFacts("made up", (1, 4, 4), images=True, classes=("a", "b"))
    for name, steps in (("ect", 2), ("edm", 2)):
        model = Model(recipes.get(name), architecture, random_weights(architecture), facts)
        with _known(backend) as known:
            got, expected = (generate(model, 3, steps=steps, batch=2, backend=b) for b in (known, load("numpy")))
        require(got.shape == (3, 1, 4, 4) and got.dtype == np.float32, f"Samples are {got.dtype} of shape {got.shape}.")
        error, size = float(np.abs(got - expected).max()), float(np.abs(expected).max())
        require(error <= 1e-4 * size, f"Samples of the recipe {name} differ by {error} from those that NumPy makes.")
    if not backend.trainable:
        with _known(backend):
            refuses(
                Error, lambda: train(_config(backend, "ct"), _pictures()), "training on a backend without gradients"
            )


@if_trainable
def check_program(backend: Backend, dtype: str = "float32") -> None:
    """A run of `cmcore train` makes pictures; one that is broken off ends, once resumed, with the same weights; both sample."""
    if dtype != "float32":
        return
    from cmcore.generate import generate
    from cmcore.model import load_model
    from cmcore.run.report import Progress
    from cmcore.run.train import train

    class BreakingOff(Progress):
        def advance(self, done: int) -> None:
            if done == 2:
                raise KeyboardInterrupt

    with TemporaryDirectory() as place, _known(backend) as known:
        whole, broken = Path(place, "whole"), Path(place, "broken")
        config, data = _config(backend, "ct"), _pictures()
        train(config, data, out=whole)
        try:
            train(config, data, out=broken, progress=BreakingOff())
        except KeyboardInterrupt:
            train(config, data, out=broken, resume=True)
        for run in (whole, broken):
            require((run / "samples" / "step-00000002.png").is_file(), "A run did not make its picture of samples.")
        model, resumed = load_model(whole), load_model(broken)
        same_weights(resumed.weights, model.weights, "The weights of a run that was broken off and resumed")
        require(
            any((model.weights[n] != w).any() for n, w in model.architecture.init().items()), "Nothing was learned."
        )
        require(
            bool(np.isfinite(generate(model, 2, backend=known)).all()), "Samples of a trained model are not finite."
        )


@if_trainable
def check_program_jvp(backend: Backend, dtype: str = "float32") -> None:
    """`cmcore train` takes a step of a method whose loss has a Jacobian-vector product."""
    if dtype != "float32":
        return
    from cmcore.run.train import train

    with _known(backend):
        model = train(_config(backend, "ct-continuous", steps=1), _pictures())
    require(all(np.isfinite(w).all() for w in model.weights.values()), "A step with a jvp() gives what is not finite.")


def _config(backend: Backend, recipe: str, steps: int = 2) -> Config:
    from cmcore.run.config import Config

    settings: dict[str, Any] = {
        "batch": 4,
        "network": "mlp",
        "width": 4,
        "blocks": 1,
        "save_every": 1,
        "sample_every": 2,
    }
    # Eagerly, which is faster than to compile so few steps.
    return Config(None, recipe, {}, backend.name, backend.device, steps, compiled=False, classes=True, **settings)


def _pictures() -> Dataset:
    from cmcore.run.data import Dataset

    x = np.random.default_rng(0).uniform(-1, 1, (12, 1, 4, 4)).astype(np.float32)
    return Dataset(x, np.arange(12) % 2, ("a", "b"), None, "made up", images=True)


@contextmanager
def _known(backend: Backend) -> Iterator[Backend]:
    """Register the backend for a while, and give it as a user gets it: by its name."""
    before = load(backend.name) if registry.is_registered(backend.name) else None
    register(backend)
    try:
        yield load(backend.name).on(backend.device)
    finally:
        if before is None:
            unregister(backend.name)
        else:
            register(before)
