"""Losses treat the samples of a batch alike and each alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmcore import distances, losses, recipes, solvers

# imm compares the samples of groups with each other.
NAMES = (
    "denoising",
    "training",
    "distillation-euler",
    "distillation-heun",
    *(n for n in recipes.names() if n != "imm"),
)


class Net:
    """A network that mixes the coordinates of a sample, but not samples."""

    def __init__(self, xp):
        self.xp = xp

    def __call__(self, x, c_noise, c_end=None):
        out = self.xp.sin(x) * (1.0 + c_noise[:, None]) + 0.3 * self.xp.mean(x, axis=1, keepdims=True)
        return out if c_end is None else out + 0.1 * c_end[:, None]

    def log_weight(self, c_noise, c_end=None):
        return 0.1 * c_noise


def per_sample_loss(lib, name, x0, z, tau):
    """The loss of each sample as float64 on the host."""
    recipe = recipes.get(name) if name in recipes.names() else None
    if recipe and recipe.needs_jvp and not lib.backend.trainable:
        pytest.skip("the loss takes a derivative, which this library has none of")
    x0, z, tau = (lib.asarray(v, "float64") for v in (x0, z, tau))
    net = Net(lib.xp)
    if recipe:
        scalars = {key: lib.asarray(value, "float64") for key, value in recipe.scalars(500, 1000).items()}
        nets = {"online": net, "target": net, "teacher": net}
        draws = {draw: tau ** (i + 1) for i, draw in enumerate(recipe.draws)}
        return lib.to_numpy(recipe.loss(nets, x0, z, draws, scalars, {}))
    t, r = 0.5 + tau, 0.4 * tau + 0.1
    if name == "denoising":
        return lib.to_numpy(losses.denoising(net, x0, z, t))
    options = {}
    if name != "training":
        step = solvers.euler if name.endswith("euler") else solvers.heun
        options = {"denoiser": net, "step": step, "distance": distances.PseudoHuber(0.03)}
    return lib.to_numpy(losses.consistency(net, net, x0, z, t, r, **options))


def batch(seed):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((5, 3)), rng.standard_normal((5, 3)), rng.uniform(0.05, 0.95, 5)


# tests/cross_backend/test_agreement.py compares its losses with the others'.
@pytest.mark.spares_tinygrad
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=2)
@given(seed=st.integers(0, 10**6), order=st.permutations(range(5)))
def test_permuting_the_batch_permutes_the_losses(lib, name, seed, order):
    given_batch = batch(seed)
    loss = per_sample_loss(lib, name, *given_batch)
    assert loss.shape == (5,)
    permuted = per_sample_loss(lib, name, *(v[order] for v in given_batch))
    np.testing.assert_allclose(permuted, loss[order], rtol=1e-9)


# sct-vr takes its target from the whole batch.
@pytest.mark.spares_tinygrad
@pytest.mark.parametrize("name", [name for name in NAMES if name != "sct-vr"])
@settings(max_examples=2)
@given(seed=st.integers(0, 10**6), changed=st.integers(0, 4))
def test_a_sample_does_not_see_its_neighbours(lib, name, seed, changed):
    given_batch = batch(seed)
    loss = per_sample_loss(lib, name, *given_batch)
    for which in range(3):
        other = [v.copy() for v in given_batch]
        other[which][changed] *= 0.9
        new = per_sample_loss(lib, name, *other)
        untouched = np.arange(5) != changed
        np.testing.assert_allclose(new[untouched], loss[untouched], rtol=1e-9)
        # cmt starts in pure noise, without data.
        assert which == 2 or (name, which) == ("cmt", 0) or new[changed] != loss[changed]
