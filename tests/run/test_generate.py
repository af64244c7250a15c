from functools import cache

import numpy as np
import pytest
from conftest import CHOSEN
from toy import make_data

import cmcore as cm
from cmcore import grids, metrics
from cmcore.generate import Sampler, generate
from cmcore.model import DataFacts, Model
from cmcore.networks import ResidualMLP
from cmcore.run import evaluate as evaluation
from cmcore.run.evaluate import evaluate, search_times
from cmcore.run.figures import to_table


@cache
def make_model(recipe="ct", classes=0):
    architecture = ResidualMLP((1, 4, 4), width=16, blocks=2, classes=classes)
    rng = np.random.default_rng(0)
    weights = {k: w + 0.1 * rng.standard_normal(w.shape, np.float32) for k, w in architecture.init(0).items()}
    return Model(
        cm.recipes.get(recipe), architecture, weights, DataFacts("toy", (1, 4, 4), True, tuple("abc")[:classes])
    )


# Few steps of the ODE would multiply differences in rounding.
CASES = [("ct", 1), ("ct", 3), ("ect", 2), ("edm", 6)]


@pytest.mark.parametrize(("recipe", "steps"), CASES)
def test_sample_i_does_not_depend_on_the_batch(backend, recipe, steps):
    model = make_model(recipe)
    one = generate(model, 7, steps=steps, seed=3, backend=backend, batch=7)
    for batch in (1, 3):
        assert np.abs(generate(model, 7, steps=steps, seed=3, backend=backend, batch=batch) - one).max() <= 1e-6
    assert one.dtype == np.float32
    assert len(np.unique(one[:, 0, 0, 0])) == 7
    assert np.abs(generate(model, 7, steps=steps, seed=4, backend=backend) - one).max() > 0.01


@pytest.mark.parametrize(("recipe", "steps"), CASES)
def test_all_backends_make_the_same_samples(recipe, steps):
    made = [generate(make_model(recipe), 5, steps=steps, seed=1, backend=cm.load(name)) for name in CHOSEN]
    for other in made[1:]:
        assert np.abs(other - made[0]).max() <= 1e-5


def test_compiled_samples_are_the_same(trainable, monkeypatch):
    monkeypatch.setattr(type(trainable), "compile_from", 1000)
    eager = generate(make_model(), 12, steps=3, backend=trainable, batch=4)
    monkeypatch.setattr(type(trainable), "compile_from", 1)
    compiled = generate(make_model(), 12, steps=3, backend=trainable, batch=4)
    assert np.abs(compiled - eager).max() <= 1e-5


@pytest.mark.skipif("torch" not in CHOSEN, reason="the others remember nothing unasked")
def test_what_a_gradient_would_need_is_not_remembered():
    import torch

    kept = []
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda x: x):
        generate(make_model(), 3, steps=2, backend=cm.load("torch"))
    assert not kept


def test_labels(backend):
    model = make_model(classes=3)
    cycled = generate(model, 7, backend=backend, batch=4)
    given = generate(model, 7, backend=backend, labels=[0, 1, 2, 0, 1, 2, 0])
    assert np.abs(cycled - given).max() <= 1e-6
    ones = generate(model, 7, backend=backend, labels=[1] * 7)
    same = [np.abs(a - b).max() <= 1e-6 for a, b in zip(ones, cycled, strict=True)]
    assert same == [i % 3 == 1 for i in range(7)]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"n": 0}, "at least 1"),
        ({"n": 2, "batch": 0}, "batch size"),
        ({"n": 2, "steps": 2, "times": [80.0]}, "not both"),
        ({"n": 2, "steps": 0}, "at least one step"),
        ({"n": 2, "times": [1.0, 2.0]}, "must decrease"),
        ({"n": 2, "seed": -1}, "seed"),
        ({"n": 2, "labels": [0, 0]}, "without classes"),
    ],
)
def test_bad_requests_are_sentences(arguments, match):
    with pytest.raises(ValueError, match=match):
        generate(make_model(), backend=cm.load("numpy"), **arguments)


@pytest.mark.parametrize(
    ("labels", "match"), [([0], "2 whole"), ([0.5, 1], "2 whole"), ([0, 3], "0 to 2"), ([-1, 0], "0 to 2")]
)
def test_bad_labels_are_sentences(labels, match):
    with pytest.raises(ValueError, match=match):
        generate(make_model(classes=3), 2, labels=labels, backend=cm.load("numpy"))


def test_progress_counts_samples():
    seen = []
    Sampler(make_model(), cm.load("numpy"), batch=4)(10, progress=seen.append)
    assert seen == [4, 8, 10]


def test_evaluation_has_a_row_for_each_number_of_steps_and_the_floor():
    rows = evaluate(make_model(), make_data(), steps=(1, 3), n=20, backend=cm.load("numpy"))
    assert [(row.name, row.nfe) for row in rows] == [("1 step", 1), ("3 steps", 3), ("real data", None)]
    assert all(row.ms > 0 for row in rows[:2])
    assert rows[2].frechet < min(rows[0].frechet, rows[1].frechet)
    lines = to_table(rows).splitlines()
    assert len(lines) == 5
    assert lines[2].split()[:3] == ["1", "step", "1"]
    with pytest.raises(ValueError, match="shape"):
        evaluate(make_model(), make_data((1, 2, 2)), steps=(1,), n=20)


def test_times_are_searched_for_on_the_training_data():
    """The best of all pairs on the grid for a metric with one valley, as it is here, and what evaluation then uses."""
    model, data, settings = make_model(), make_data(), {"n": 20, "seed": 3, "backend": cm.load("numpy")}
    found = search_times(model, data, 2, **settings)
    grid = grids.karras_host(40, model.recipe.t_min, model.recipe.t_max)[1:]
    assert set(found.times) <= set(grid)
    assert found.times[0] == model.recipe.t_max

    def distance(times):
        x = generate(model, 20, times=times, seed=4, backend=settings["backend"])
        return metrics.frechet_distance(x, data.x)

    assert found.value == pytest.approx(distance(found.times), rel=1e-9)
    assert found.value <= min(distance((80.0, t)) for t in grid[[0, 12, 25, -2]]) * (1 + 1e-9)
    rows = evaluate(model, data, steps=(1,), times=found.times, **settings)
    assert [row.nfe for row in rows] == [1, 2, None]
    assert rows[1].name == " ".join(f"{t:.3g}" for t in found.times)
    x = generate(model, 20, times=found.times, seed=3, backend=settings["backend"])
    assert rows[1].frechet == pytest.approx(metrics.frechet_distance(x, data.held_out), rel=1e-9)


def test_times_are_searched_for_where_the_network_was_trained(monkeypatch):
    asked = []
    monkeypatch.setattr(evaluation, "greedy", lambda metric, steps, candidates: asked.append(candidates))
    for recipe, lowest in (("tcm", 1.0), ("ct", 0.002)):
        search_times(make_model(recipe), make_data(), 2, n=4, backend=cm.load("numpy"))
        assert lowest < asked[-1][0] < 2.0 * lowest
        assert asked[-1][-1] == 80.0


def test_times_are_not_searched_for_where_there_are_none():
    with pytest.raises(cm.Error, match="'edm' does not use"):
        search_times(make_model(recipe="edm"), make_data(), 2, n=20, backend=cm.load("numpy"))


@pytest.mark.parametrize("recipe", ["edm", "ct"])
def test_times_must_decrease(recipe):
    with pytest.raises(ValueError, match="must decrease"):
        generate(make_model(recipe), 2, times=(1.0, 80.0), backend=cm.load(CHOSEN[0]))


@pytest.mark.parametrize("name", [name for name in CHOSEN if name in ("torch", "jax")])
def test_samples_can_be_computed_in_bfloat16(name):
    """Nearly the same samples, float32, and not quite."""
    model, backend = make_model(), cm.load(name)
    narrow = Sampler(model, backend, compute="bfloat16")(6, seed=1)
    exact = Sampler(model, backend)(6, seed=1)
    assert narrow.dtype == np.float32
    assert 0 < np.abs(narrow - exact).max() < 0.02 * np.abs(exact).max()
    with pytest.raises(cm.Error, match="cannot compute in 'float8'"):
        Sampler(model, backend, compute="float8")
