"""The mathematics under each framework's compiler and transformations; a curriculum compiles once."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import CHOSEN
from exact import gaussian_denoiser

import cmcore as cm
from cmcore import grids, losses, solvers
from cmcore.parametrization import EDM, Boundary, ConsistencyFunction, Prediction, TrigFlow
from cmcore.testing import MLP, random_weights

X0, Z = np.array([[0.3, -1.2], [0.8, 0.1]]), np.array([[1.1, 0.2], [-0.7, 1.6]])
TAU = np.array([0.3, 0.8])


def net(x, c_noise):
    return 0.3 * x + c_noise[:, None]


def every_formula(x0, z, tau, n):
    """What the mathematics computes from arrays alone, n being a curriculum's value; a tuple of arrays."""
    pair = grids.uniform_pair(tau, n)
    ect = grids.ect_pair(grids.lognormal_time(tau), n)
    out = [*pair, *ect]
    elsewhere = (cm.paths.Trigonometric(), cm.paths.Linear(), cm.paths.VP(), cm.paths.Cosine())
    for path, t in ((cm.paths.VE(), pair.t), *((path, tau) for path in elsewhere)):
        x = path.perturb(x0, z, t)
        out += [path.velocity(x, t, z), path.score(x, t, z), path.denoiser_from_velocity(x, t, z)]
    for p in (Boundary(), EDM(), TrigFlow()):
        f = ConsistencyFunction(net, p)
        out += [losses.consistency(f, f, x0, z, pair.t, pair.r), losses.denoising(f, x0, z, ect.t)]
    denoiser = gaussian_denoiser(0.1, 0.6)
    steps = (solvers.euler, solvers.heun, solvers.dpm2, solvers.dpmpp_2s)
    out += [step(denoiser, x0, pair.t, pair.r) for step in steps]
    out += [step(denoiser, x0, pair.t, 0.0 * pair.r) for step in steps[1:]]
    methods = (solvers.dpmpp_2m, solvers.lms, solvers.Ancestral(lambda i: z), solvers.Churn(lambda i: z, s_churn=1.0))
    out += [solvers.solve(method, denoiser, x0, (3.0, 2.0, 0.9, 0.0)) for method in methods]
    for weighting in cm.recipes.WEIGHTINGS.values():
        out.append(weighting(pair, 0.5))
    for distance in cm.recipes.DISTANCES.values():
        out.append(distance(x0, z))
    out.append(cm.sampling.multistep(ConsistencyFunction(net, Boundary()), z, (80.0, 0.8), lambda i: x0))
    out.append(cm.sampling.gamma(lambda x, t, s: (0.9 * s / t) * x, z, (80.0, 0.8, 0.1), lambda i: x0, 0.5))
    for path in (cm.paths.Linear(), cm.paths.VP()):
        f = ConsistencyFunction(net, Prediction(path, "velocity"))
        out += [losses.denoising(f, x0, z, tau, path=path), losses.consistency(f, f, x0, z, tau, 0.5 * tau, path=path)]
        out += [losses.consistency(f, f, x0, z, tau, 0.5 * tau, denoiser=denoiser, path=path)]
        out += [
            solvers.solve(method, denoiser, x0, (0.9, 0.5, 0.1), path=path)
            for method in (steps[1], methods[0], methods[2])
        ]
        out.append(cm.sampling.multistep(f, z, (0.9, 0.5), lambda i: x0, path=path))
        out.append(
            cm.sampling.gamma(lambda x, t, s: (0.9 * s / t) * x, z, (0.9, 0.5, 0.1), lambda i: x0, 0.5, path=path)
        )
    return tuple(out)


def test_the_compiled_mathematics_is_the_same(trainable):
    if trainable.name == "torch":
        pytest.skip("its compiler takes long; TestTorch compares what it is given to compile")

    def arguments(n):
        return [trainable.asarray(v, "float32") for v in (X0, Z, TAU, n)]

    compiled = trainable.compile(every_formula)
    for n in (18.0, 19.0, 5.0, 2.0):
        for got, expected in zip(compiled(*arguments(n)), every_formula(X0, Z, TAU, n), strict=True):
            np.testing.assert_allclose(trainable.to_numpy(got), expected, rtol=2e-3, atol=1e-4)


@pytest.mark.skipif("torch" not in CHOSEN, reason="torch does not take part")
class TestTorch:
    def test_the_mathematics_is_one_graph(self):
        import torch

        torch._dynamo.reset()
        graphs = []

        def backend(graph, example_inputs):
            graphs.append(graph)
            return graph.forward

        compiled = torch.compile(every_formula, fullgraph=True, backend=backend)
        for n in (18.0, 19.0, 151.0):
            out = compiled(*(torch.tensor(v) for v in (X0, Z, TAU, n)))
            for got, expected in zip(out, every_formula(X0, Z, TAU, n), strict=True):
                np.testing.assert_allclose(got.numpy(), expected, rtol=1e-9, atol=1e-12)
        assert len(graphs) == 1

    def test_functional_transformations(self):
        import torch

        x0, z, t = (torch.tensor(v) for v in (X0, Z, np.array([1.5, 0.7])))
        f = ConsistencyFunction(net, Boundary())

        def one(x, noise, time):
            return losses.consistency(f, f, x[None], noise[None], time[None], 0.8 * time[None])[0]

        expected = losses.consistency(f, f, x0, z, t, 0.8 * t)
        assert torch.allclose(torch.func.vmap(one)(x0, z, t), expected)
        slopes = torch.func.vmap(torch.func.grad(one))(x0, z, t)
        _, along = torch.func.jvp(lambda x: losses.consistency(f, f, x, z, t, 0.8 * t), (x0,), (torch.ones_like(x0),))
        assert torch.allclose(slopes.sum(1), along)
        h = 1e-6
        assert not torch.allclose(
            along,
            (losses.consistency(f, f, x0 + h, z, t, 0.8 * t) - losses.consistency(f, f, x0 - h, z, t, 0.8 * t)) / 2 / h,
        )  # the target's share is stopped
        _, along = torch.func.jvp(lambda x, s: f(x, s), (x0, t), (z, torch.ones_like(t)))
        difference = (f(x0 + h * z, t + h) - f(x0 - h * z, t - h)) / (2 * h)
        assert torch.allclose(along, difference, atol=1e-8)

    def test_it_runs_where_there_are_no_values(self):
        import torch

        out = every_formula(*(torch.tensor(v, device="meta", dtype=torch.float32) for v in (X0, Z, TAU, 18.0)))
        assert {o.device.type for o in out} == {"meta"}
        assert {o.dtype for o in out} == {torch.float32}


@pytest.mark.skipif("jax" not in CHOSEN, reason="jax does not take part")
class TestJax:
    def test_functional_transformations(self, x64):
        import jax

        x0, z, t = (jax.numpy.asarray(v) for v in (X0, Z, np.array([1.5, 0.7])))
        f = ConsistencyFunction(net, Boundary())

        def one(x, noise, time):
            return losses.consistency(f, f, x[None], noise[None], time[None], 0.8 * time[None])[0]

        expected = losses.consistency(f, f, x0, z, t, 0.8 * t)
        np.testing.assert_allclose(jax.jit(jax.vmap(one))(x0, z, t), expected, rtol=1e-12)
        slopes = jax.vmap(jax.grad(one))(x0, z, t)
        _, along = jax.jvp(lambda x: losses.consistency(f, f, x, z, t, 0.8 * t), (x0,), (jax.numpy.ones_like(x0),))
        np.testing.assert_allclose(slopes.sum(1), along, rtol=1e-12)

    def test_no_value_is_asked_for_and_no_type_promoted(self):
        import jax

        arguments = [jax.numpy.asarray(v, "float32") for v in (X0, Z, TAU, 18.0)]
        with jax.numpy_dtype_promotion("strict"), jax.transfer_guard_device_to_host("disallow"):
            shapes = jax.eval_shape(every_formula, *arguments)
        assert {s.dtype.name for s in shapes} == {"float32"}

    def test_a_grid_at_traced_indices(self):
        import jax

        times = jax.jit(grids.karras_time)(jax.numpy.arange(18.0), 18.0)
        np.testing.assert_allclose(times, grids.karras_host(18), rtol=2e-5)
        assert times[0] == np.float32(0.002)
        assert times[-1] == 80


def count_traces(backend, calls):
    """How often a program has been made from the loss; torch.compile would see, and act on, a counter of ours."""
    if backend.name != "torch":
        return len(calls)
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]


@pytest.mark.parametrize("name", ["ct", "ect"])
def test_a_curriculum_never_recompiles_the_train_step(trainable, name):
    """N, mu, the stage, the learning rate and the averages' decays change at every step here."""
    recipe, calls = cm.recipes.get(name, warmup=10), []

    def counted_loss(*args):
        calls.append(1)
        return recipe.loss(*args)

    if trainable.name == "torch":
        import torch

        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
    loss = recipe.loss if trainable.name == "torch" else counted_loss
    spec = replace(recipe.train_spec(), loss=loss)
    trainer = cm.Trainer(trainable, trainable.network(MLP, random_weights(MLP)), spec)
    x0 = trainable.asarray(0.5 * np.random.default_rng(0).standard_normal((4, 3)), "float32")
    steps = [0, 1, 100, 200, 400, 600, 800, 999]
    values = [recipe.scalars(k, 1000) for k in steps]
    assert len({v.get("n", v.get("stage")) for v in values}) > 4
    counts = []
    for k, scalars in zip(steps, values, strict=True):
        assert np.isfinite(trainable.to_numpy(trainer.step(k, x0, scalars)))
        counts.append(count_traces(trainable, calls))
    assert counts[-1] in ((1, 2) if trainable.name == "tinygrad" else (1,))  # TinyJit traces at the second call
    assert counts[-1] == counts[1]
