"""Same weights, inputs and noise: every backend gives the loss, the gradient and the samples that the others give."""

from dataclasses import replace
from functools import wraps

import numpy as np
import pytest
from conftest import CHOSEN

import cmcore as cm
from cmcore.testing import CONV, MLP, random_weights

pytestmark = pytest.mark.usefixtures("x64")
TOLERANCE = {"float64": 1e-10, "float32": 1e-5}
ARCHITECTURES = {"mlp": MLP, "conv": CONV}
# Early, when the two times of a pair are far apart: a small difference of the two answers magnifies rounding.
STEP = 10
# The networks and both precisions are tried with these; the other recipes differ from them in formulas alone.
BASIC = ("edm", "cd", "ct", "ect")
PAIRS = [(a, b) for i, a in enumerate(CHOSEN) for b in CHOSEN[i + 1 :]]
_known = {}


def once(compute):
    """Keep what a backend computed: each takes part in several pairs."""

    def cached(*key):
        if (compute, *key) not in _known:
            _known[compute, *key] = compute(*key)
        return _known[compute, *key]

    return cached


def quick(backend, compute):
    """Compute at once in JAX, which operation by operation compiles each of them."""
    return (backend.compile(compute) if backend.name == "jax" else compute)()


def setting(name, recipe_name, kind, dtype):
    backend, recipe, plain = cm.load(name), cm.recipes.get(recipe_name), ARCHITECTURES[kind]
    architecture = replace(plain, two_times=recipe.two_times, log_weight=recipe.learned_weight)
    rng = np.random.default_rng(0)
    x0, z = 0.5 * rng.standard_normal((3, *architecture.shape)), rng.standard_normal((3, *architecture.shape))
    tau = np.array([0.15, 0.55, 0.85])
    if recipe.draws > 1:
        tau = np.stack([np.roll(tau, i) for i in range(recipe.draws)], axis=1)
    net, teacher = (backend.network(a, random_weights(a, s), dtype=dtype) for a, s in ((architecture, 0), (plain, 1)))
    place = [backend.asarray(v.astype("float32"), dtype) for v in (x0, z, tau)]
    scalars = {k: backend.asarray(v, dtype) for k, v in recipe.scalars(STEP, 1000).items()}

    def loss(online):
        nets = {"online": online, "target": online, "teacher": teacher}
        return recipe.loss(nets, *place, scalars, {})

    return backend, recipe, net, loss


@once
def loss_and_gradient_of(name, recipe_name, kind, dtype):
    backend, _, net, loss = setting(name, recipe_name, kind, dtype)
    if not backend.trainable:
        return float(loss(net).mean()), None
    value, found = quick(backend, lambda: backend.value_and_grad(lambda n: backend.xp.mean(loss(n)))(net))
    gradient = [backend.to_numpy(found[key]).astype("float64").ravel() for key in sorted(found)]
    return float(backend.to_numpy(value)), np.concatenate(gradient)


@once
def samples_of(name, recipe_name, kind, dtype):
    backend, recipe, net, _ = setting(name, recipe_name, kind, dtype)
    shape = ARCHITECTURES[kind].shape

    def noise(i):
        return backend.asarray(cm.sampling.seeded_noise(7, range(2), shape, i + 1), dtype)

    z = backend.asarray(cm.sampling.seeded_noise(7, range(2), shape), dtype)
    samples = quick(backend, lambda: recipe.sample(net, z, recipe.times(2), noise))
    return backend.to_numpy(samples).astype("float64")


def agree(one, two, dtype):
    assert np.isfinite(one).all()
    assert np.abs(one).max() > 0
    assert np.abs(one - two).max() <= TOLERANCE[dtype] * np.abs(one).max()


CASES = [(r, kind, dtype) for r in BASIC for kind in ARCHITECTURES for dtype in TOLERANCE]
CASES += [(r, "mlp", "float64") for r in cm.recipes.names() if r not in BASIC]
every = [
    pytest.mark.parametrize(("recipe", "kind", "dtype"), CASES),
    pytest.mark.parametrize(("one", "two"), PAIRS),
]


def everywhere(test):
    @wraps(test)
    def run(one, two, recipe, kind, dtype):
        if "tinygrad" in (one, two) and (kind, dtype) == ("conv", "float32") and recipe in ("edm", "ct"):
            pytest.skip("tinygrad compiles long; these two have no part that cd and ect lack")
        test(one, two, recipe, kind, dtype)

    for mark in every:
        run = mark(run)
    return run


@everywhere
def test_loss_and_gradient(one, two, recipe, kind, dtype):
    if cm.recipes.get(recipe).needs_jvp and "numpy" in (one, two):
        pytest.skip("the loss takes a derivative, which numpy has none of")
    (value, gradient), (other_value, other_gradient) = (
        loss_and_gradient_of(n, recipe, kind, dtype) for n in (one, two)
    )
    agree(np.array(value), np.array(other_value), dtype)
    if gradient is not None and other_gradient is not None:
        agree(gradient, other_gradient, dtype)


@everywhere
def test_samples(one, two, recipe, kind, dtype):
    agree(samples_of(one, recipe, kind, dtype), samples_of(two, recipe, kind, dtype), dtype)
