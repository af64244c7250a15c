"""Same weights, inputs and noise: every backend gives the loss, the gradient and the samples that the others give."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from conftest import CHOSEN, TRAINABLE

import cmcore as cm
from cmcore.testing import CONV, MLP, random_weights

pytestmark = [
    pytest.mark.usefixtures("x64"),
    pytest.mark.skipif(len(TRAINABLE) < 2, reason="there are no two backends that can train to compare"),
]
TOLERANCE = {"float64": 1e-10, "float32": 1e-5}
ARCHITECTURES = {"mlp": MLP, "conv": CONV}
# Early, when the two times of a pair are far apart: a small difference of the two answers magnifies rounding.
STEP = 10
# Every recipe in the sharper precision; two are enough for the other and for convolutions: test_network_numbers.py has all networks.
CASES = [(r, "mlp", "float64") for r in cm.recipes.names()]
CASES += [("cd", "mlp", "float32"), ("cd", "conv", "float64"), ("ect", "conv", "float32")]
# Teachers that are followed a little way: each step more is compiled.
SHORT = {"ctm": {"reach": 2}, "cmt": {"steps": 2}}


def quick(backend, compute):
    """Compute at once in JAX, which operation by operation compiles each of them."""
    return (backend.compile(compute) if backend.name == "jax" else compute)()


def setting(name, recipe_name, kind, dtype):
    backend, plain = cm.load(name), ARCHITECTURES[kind]
    recipe = cm.recipes.get(recipe_name, **SHORT.get(recipe_name, {}))
    architecture = replace(plain, two_times=recipe.two_times, log_weight=recipe.learned_weight)
    rng = np.random.default_rng(0)
    x0, z = 0.5 * rng.standard_normal((4, *architecture.shape)), rng.standard_normal((4, *architecture.shape))
    tau = np.array([0.15, 0.55, 0.85, 0.35])
    rolled = [np.roll(tau, i) for i in range(len(recipe.draws))]
    net, teacher = (backend.network(a, random_weights(a, s), dtype=dtype) for a, s in ((architecture, 0), (plain, 1)))
    x0, z, *rolled = (backend.asarray(v.astype("float32"), dtype) for v in (x0, z, *rolled))
    draws = dict(zip(recipe.draws, rolled, strict=True))
    scalars = {k: backend.asarray(v, dtype) for k, v in recipe.scalars(STEP, 1000).items()}

    def loss(online):
        nets = {"online": online, "target": online, "teacher": teacher}
        return recipe.loss(nets, x0, z, draws, scalars, {})

    return backend, recipe, net, loss


def loss_and_gradient_of(name, recipe_name, kind, dtype):
    backend, _, net, loss = setting(name, recipe_name, kind, dtype)
    if not backend.trainable:
        return float(loss(net).mean()), None
    value, found = quick(backend, lambda: backend.value_and_grad(lambda n: backend.xp.mean(loss(n)))(net))
    gradient = [backend.to_numpy(found[key]).astype("float64").ravel() for key in sorted(found)]
    return float(backend.to_numpy(value)), np.concatenate(gradient)


def samples_of(name, recipe_name, kind, dtype):
    backend, recipe, net, _ = setting(name, recipe_name, kind, dtype)
    shape = ARCHITECTURES[kind].shape

    def noise(i):
        return backend.asarray(cm.sampling.seeded_noise(7, range(2), shape, i + 1), dtype)

    z = backend.asarray(cm.sampling.seeded_noise(7, range(2), shape), dtype)
    samples = quick(backend, lambda: recipe.sample(net, z, recipe.times(2), noise))
    return backend.to_numpy(samples).astype("float64")


def agree(results, dtype):
    """Every backend's result, by its name, is near every other's, relative to the largest number in it."""
    for (one, a), (two, b) in combinations(results.items(), 2):
        assert np.isfinite(a).all()
        assert np.abs(a).max() > 0
        assert np.abs(a - b).max() <= TOLERANCE[dtype] * np.abs(a).max(), f"{one} and {two} differ"


@pytest.mark.parametrize(("recipe", "kind", "dtype"), CASES)
def test_loss_and_gradient(recipe, kind, dtype):
    able = [n for n in CHOSEN if n in TRAINABLE or not cm.recipes.get(recipe).needs_jvp]
    found = {name: loss_and_gradient_of(name, recipe, kind, dtype) for name in able}
    assert len(found) > 1
    agree({name: np.array(loss) for name, (loss, _) in found.items()}, dtype)
    agree({name: gradient for name, (_, gradient) in found.items() if gradient is not None}, dtype)


@pytest.mark.parametrize(("recipe", "kind", "dtype"), CASES)
def test_samples(recipe, kind, dtype):
    agree({name: samples_of(name, recipe, kind, dtype) for name in CHOSEN}, dtype)
