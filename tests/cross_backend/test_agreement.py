"""Same weights, inputs and noise: every backend gives the loss, the gradient and the samples that the others give."""

import numpy as np
import pytest
from conftest import CHOSEN

import cmcore as cm
from cmcore.testing import CONV, MLP, random_weights

pytestmark = pytest.mark.usefixtures("x64")
TOLERANCE = {"float64": 1e-10, "float32": 1e-5}
ARCHITECTURES = {"mlp": MLP, "conv": CONV}
PAIRS = [(a, b) for i, a in enumerate(CHOSEN) for b in CHOSEN[i + 1 :]]
_known = {}


def once(compute):
    """Keep what a backend computed: each takes part in several pairs."""

    def cached(*key):
        if (compute, *key) not in _known:
            _known[compute, *key] = compute(*key)
        return _known[compute, *key]

    return cached


def setting(name, recipe_name, kind, dtype):
    backend, recipe, architecture = cm.load(name), cm.recipes.get(recipe_name), ARCHITECTURES[kind]
    rng = np.random.default_rng(0)
    x0, z = 0.5 * rng.standard_normal((3, *architecture.shape)), rng.standard_normal((3, *architecture.shape))
    tau = np.array([0.15, 0.55, 0.85])
    net, teacher = (backend.network(architecture, random_weights(architecture, s), dtype=dtype) for s in (0, 1))
    place = [backend.asarray(v.astype("float32"), dtype) for v in (x0, z, tau)]
    scalars = {k: backend.asarray(v, dtype) for k, v in recipe.scalars(300, 1000).items()}

    def loss(online):
        nets = {"online": online, "target": online, "teacher": teacher}
        return recipe.loss(nets, *place, scalars, {})

    return backend, recipe, net, loss


@once
def loss_of(name, recipe_name, kind, dtype):
    backend, _, net, loss = setting(name, recipe_name, kind, dtype)
    return backend.to_numpy(loss(net)).astype("float64")


@once
def gradient_of(name, recipe_name, kind, dtype):
    backend, _, net, loss = setting(name, recipe_name, kind, dtype)
    _, found = backend.value_and_grad(lambda n: backend.xp.mean(loss(n)))(net)
    return np.concatenate([backend.to_numpy(found[key]).astype("float64").ravel() for key in sorted(found)])


@once
def samples_of(name, recipe_name, kind, dtype):
    backend, recipe, net, _ = setting(name, recipe_name, kind, dtype)
    shape = ARCHITECTURES[kind].shape

    def noise(i):
        return backend.asarray(cm.sampling.seeded_noise(7, range(2), shape, i + 1), dtype)

    z = backend.asarray(cm.sampling.seeded_noise(7, range(2), shape), dtype)
    steps = 4 if recipe_name == "edm" else 2
    return backend.to_numpy(recipe.sample(net, z, recipe.times(steps), noise)).astype("float64")


def agree(one, two, dtype):
    assert np.isfinite(one).all()
    assert np.abs(one).max() > 0
    assert np.abs(one - two).max() <= TOLERANCE[dtype] * np.abs(one).max()


every = [
    pytest.mark.parametrize("dtype", ["float64", "float32"]),
    pytest.mark.parametrize("kind", ARCHITECTURES),
    pytest.mark.parametrize("recipe", cm.recipes.names()),
    pytest.mark.parametrize(("one", "two"), PAIRS),
]


def everywhere(test):
    for mark in every:
        test = mark(test)
    return test


@everywhere
def test_loss(one, two, recipe, kind, dtype):
    agree(loss_of(one, recipe, kind, dtype), loss_of(two, recipe, kind, dtype), dtype)


@everywhere
def test_gradient(one, two, recipe, kind, dtype):
    if "numpy" in (one, two):
        pytest.skip("NumPy has no gradients")
    agree(gradient_of(one, recipe, kind, dtype), gradient_of(two, recipe, kind, dtype), dtype)


@everywhere
def test_samples(one, two, recipe, kind, dtype):
    agree(samples_of(one, recipe, kind, dtype), samples_of(two, recipe, kind, dtype), dtype)
