"""Where gradients flow: into the network at the later time, never into the target or the teacher."""

import inspect
from dataclasses import replace

import numpy as np
import pytest

import cmcore as cm
from cmcore import losses, solvers
from cmcore.networks import ResidualMLP
from cmcore.parametrization import EDM, Boundary, ConsistencyFunction
from cmcore.testing import CONV, MLP, random_weights

pytestmark = pytest.mark.usefixtures("x64")
NAMES = ("cd", "ct", "ect")


def batch(backend, architecture, dtype="float64"):
    rng = np.random.default_rng(0)
    x0, z = rng.standard_normal((2, 4, *architecture.shape))
    return tuple(backend.asarray(v, dtype) for v in (x0, z, np.array([0.1, 0.4, 0.6, 0.9])))


def scalars(backend, recipe, dtype="float64"):
    return {name: backend.asarray(value, dtype) for name, value in recipe.scalars(300, 1000).items()}


def gradients(backend, recipe, architecture, nets):
    """The gradient of the recipe's loss by the online network; ``nets(online)`` says what the others are."""
    x0, z, tau = batch(backend, architecture)
    values = scalars(backend, recipe)

    def mean_loss(net):
        return backend.xp.mean(recipe.loss(nets(net), x0, z, dict.fromkeys(recipe.draws, tau), values, {}))

    net = backend.network(architecture, random_weights(architecture), dtype="float64")
    value, found = backend.value_and_grad(mean_loss)(net)
    return float(backend.to_numpy(value)), {name: backend.to_numpy(g) for name, g in found.items()}


@pytest.mark.parametrize("name", NAMES)
def test_no_gradient_flows_through_the_target(trainable, name):
    # With a separate copy as the target nothing can flow there: the gradient must be the same, and is not zero.
    if name == "cd" and trainable.name != "torch":
        pytest.skip("its target is stopped where the others' are, and its teacher compiles long")
    recipe = cm.recipes.get(name)
    copy = trainable.network(MLP, random_weights(MLP), dtype="float64")
    teacher = trainable.network(MLP, random_weights(MLP, 1), dtype="float64")
    shared_value, shared = gradients(
        trainable, recipe, MLP, lambda net: {"online": net, "target": net, "teacher": teacher}
    )
    apart_value, apart = gradients(
        trainable, recipe, MLP, lambda net: {"online": net, "target": copy, "teacher": teacher}
    )
    assert shared_value == pytest.approx(apart_value, rel=1e-12)
    for key, g in shared.items():
        np.testing.assert_allclose(g, apart[key], rtol=1e-9, atol=1e-12 * np.abs(g).max())
        assert np.abs(g).max() > 0


def test_no_gradient_flows_through_the_teacher(trainable):
    # Were the network its own teacher, or a target of fixed weights its pupil, the gradient would be the same.
    recipe = cm.recipes.get("cd", solver="heun")
    fixed = trainable.network(MLP, random_weights(MLP), dtype="float64")
    _, own = gradients(trainable, recipe, MLP, lambda net: {"online": net, "target": fixed, "teacher": net})
    _, other = gradients(trainable, recipe, MLP, lambda net: {"online": net, "target": fixed, "teacher": fixed})
    for key, g in own.items():
        np.testing.assert_allclose(g, other[key], rtol=1e-9, atol=1e-12 * np.abs(g).max())


def test_a_network_that_is_only_target_and_teacher_gets_no_gradient(trainable):
    fixed = trainable.network(MLP, random_weights(MLP, 1), dtype="float64")
    recipe = cm.recipes.get("cd")
    _, found = gradients(trainable, recipe, MLP, lambda net: {"online": fixed, "target": net, "teacher": net})
    assert all((g == 0).all() for g in found.values())


SHORT = {"ctm": {"reach": 2}, "cmt": {"steps": 2}, "imm": {"gap_exponent": 4.0}}
SMALL = ResidualMLP(shape=(2,), width=3, blocks=1, features=2)


def by_parameters_of(role, backend, recipe):
    """The gradient of a recipe's loss by the parameters of the networks of one role, those of the others being others."""
    told = replace(SMALL, two_times=recipe.two_times, log_weight=recipe.learned_weight)
    kinds = {"online": told, "target": told, "teacher": SMALL}
    nets = {r: backend.network(a, random_weights(a, i), dtype="float64") for i, (r, a) in enumerate(kinds.items())}
    x0, z, first = batch(backend, SMALL)
    draws = {}
    for i, (name, law) in enumerate(recipe.draws.items()):  # in another order each, so that t and s differ
        u = backend.xp.concat([first[i % 4 :], first[: i % 4]], axis=0)
        draws[name] = u if law == "uniform" else 2.0 * u - 1.0
    values = scalars(backend, recipe)

    def mean_loss(net):
        return backend.xp.mean(recipe.loss({**nets, role: net}, x0, z, draws, values, {}))

    _, found = backend.value_and_grad(mean_loss)(nets[role])
    return {name: backend.to_numpy(g) for name, g in found.items()}


@pytest.mark.parametrize("name", cm.recipes.names())
def test_gradients_reach_the_online_network_alone(trainable, name):
    if trainable.name == "tinygrad" and name not in NAMES:
        pytest.skip("compiles for minutes; tests/cross_backend compares its gradients with PyTorch's, of all recipes")
    recipe = cm.recipes.get(name, **SHORT.get(name, {}))
    for role in ("target", *(["teacher"] if recipe.needs_teacher else [])):
        if (name, role) == ("ctm", "target"):
            continue  # see the next test
        reached = by_parameters_of(role, trainable, recipe)
        assert not any(g.any() for g in reached.values()), role
    if trainable.name == "torch":  # tests/cross_backend compares the others' with it
        assert all(g.any() for g in by_parameters_of("online", trainable, recipe).values())


def test_the_target_of_ctm_is_always_a_copy():
    """Its gradient goes through the target to the point that it is asked about; to the target's weights, nothing may."""
    assert all(cm.recipes.get("ctm", mu=mu).keep_target for mu in (0.0, 0.999))
    assert cm.recipes.get("ctm", mu=0.0).curriculum(0, 10) == {"target_decay": 0.0}


@pytest.mark.parametrize("name", cm.recipes.names())
def test_times_depend_on_nothing_that_is_trained(name):
    assert [*inspect.signature(cm.recipes.get(name).pair).parameters] == ["draws", "scalars"]


@pytest.mark.parametrize("architecture", [MLP, CONV], ids=["mlp", "conv"])
def test_the_gradient_is_that_of_the_difference_to_a_constant(trainable, architecture):
    # ... so it is 2 (f - target) df / dtheta, here by finite differences of f with the target's value held.
    if architecture is CONV and trainable.name != "torch":
        pytest.skip("compiles long; tests/cross_backend has its networks' gradients")
    x0, z, _ = batch(trainable, architecture)
    t, r, h = 1.5, 1.2, 1e-6
    weights = random_weights(architecture)

    def f(net):
        return ConsistencyFunction(net, Boundary())

    def loss(net):
        return trainable.xp.mean(losses.consistency(f(net), f(net), x0, z, t, r))

    _, found = trainable.value_and_grad(loss)(trainable.network(architecture, weights, dtype="float64"))
    x_t, x_r = x0 + t * z, x0 + r * z
    held = trainable.to_numpy(f(trainable.network(architecture, weights, dtype="float64"))(x_r, r))
    rng = np.random.default_rng(3)
    along = {name: rng.standard_normal(w.shape) for name, w in weights.items()}

    def at(sign):
        moved = {name: w.astype("float64") + sign * h * along[name] for name, w in weights.items()}
        net = trainable.network(architecture, moved, dtype="float64")
        return ((trainable.to_numpy(f(net)(x_t, t)) - held) ** 2).mean()

    slope = sum((trainable.to_numpy(found[name]) * along[name]).sum() for name in weights)
    assert slope == pytest.approx((at(1) - at(-1)) / (2 * h), rel=1e-6)


def test_denoising_has_the_whole_gradient(trainable):
    # Nothing is stopped in the teacher's loss: it agrees with finite differences in every direction.
    recipe = cm.recipes.get("edm")
    x0, z, tau = batch(trainable, MLP)
    weights, h = random_weights(MLP), 1e-6
    _, found = gradients(trainable, recipe, MLP, lambda net: {"online": net, "target": net})
    along = {name: np.random.default_rng(4).standard_normal(w.shape) for name, w in weights.items()}

    def at(sign):
        moved = {name: w.astype("float64") + sign * h * along[name] for name, w in weights.items()}
        net = trainable.network(MLP, moved, dtype="float64")
        return trainable.to_numpy(recipe.loss({"online": net}, x0, z, dict.fromkeys(recipe.draws, tau), {}, {})).mean()

    slope = sum((found[name] * along[name]).sum() for name in weights)
    assert slope == pytest.approx((at(1) - at(-1)) / (2 * h), rel=1e-6)


def test_solvers_let_gradients_through(trainable):
    # Editing and guidance differentiate samplers; only the losses stop gradients.
    x = trainable.asarray([[0.5, -1.0, 2.0]], "float64")
    net = trainable.network(MLP, random_weights(MLP), dtype="float64")
    tangent = trainable.xp.ones_like(x)

    def step(y):  # Heun's begins with Euler's
        return solvers.heun(ConsistencyFunction(net, EDM()), y, 2.0, 1.0)

    _, slope = trainable.jvp(step, (x,), (tangent,))
    h = 1e-6
    up, down = (trainable.to_numpy(step(x + sign * h)) for sign in (1, -1))
    np.testing.assert_allclose(trainable.to_numpy(slope), (up - down) / (2 * h), rtol=1e-6, atol=1e-8)


def test_the_gradient_of_a_heun_step_to_time_zero_is_eulers(trainable):
    # The slope at 0 is not used there, and must not bring 0 / 0 into the gradient either.
    x0, _, _ = batch(trainable, MLP)
    net = trainable.network(MLP, random_weights(MLP), dtype="float64")

    def end(step):
        def mean_square(n):
            return trainable.xp.mean(step(ConsistencyFunction(n, EDM()), x0, 1.5, 0.0 * x0[:, 0]) ** 2)

        return trainable.value_and_grad(mean_square)(net)[1]

    euler, heun = end(solvers.euler), end(solvers.heun)
    for name, gradient in heun.items():
        np.testing.assert_allclose(trainable.to_numpy(gradient), trainable.to_numpy(euler[name]), rtol=1e-9, atol=1e-12)
