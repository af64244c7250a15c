"""Every recipe, with the teacher it needs, trains, is interrupted, resumes and samples; so does one from elsewhere."""

import importlib

import numpy as np
import pytest
from conftest import TRAINABLE, write_distribution
from test_train import Notes, make_config, same_weights
from toy import make_data

import cmcore as cm
from cmcore.generate import generate
from cmcore.run.train import train

FIRST = TRAINABLE[0] if TRAINABLE else ""
DATA = make_data(classes=2)
_teachers = {}


def configured(name, **changes):
    return make_config(FIRST, recipe=name, steps=5, save_every=2, classes=True, network="mlp", **changes)


def teacher_for(recipe):
    """Any run that the recipe accepts as its teacher."""
    if not recipe.teachers:
        return None
    name = recipe.teachers[0]
    if name not in _teachers:
        _teachers[name] = train(configured(name), DATA)
    return _teachers[name]


THEIRS = """
from dataclasses import dataclass
import cmcore as cm
from cmcore.grids import TimePair

@dataclass(frozen=True)
class FlowMatching(cm.recipes.StraightFlowMap):
    name = "flow-matching"
    summary = "Velocities, and nothing else."
    citation = "@article{lipman2022, title={Flow matching for generative modeling}}"

    def pair(self, draws, scalars):
        return TimePair(draws["t"], draws["t"], 0.0 * draws["t"])

    def per_sample(self, nets, batch, times):
        x = self.path.perturb(batch.x0, batch.z, times.t)
        u = self.function(nets["online"]).velocity(x, times.t, times.t, **batch.cond)
        return cm.distances.squared_l2(u, batch.z - batch.x0)
"""


@pytest.fixture
def theirs(tmp_path_factory, monkeypatch):
    """A distribution of somebody else's with a recipe, and entry points that are none."""
    place = tmp_path_factory.mktemp("theirs")
    module = "flow_for_cmcore"
    objects = {name: "FlowMatching" for name in ("flow-matching", "other-name", "cd")} | {"none": "TimePair"}
    points = "".join(f"{name} = {module}:{found}\n" for name, found in objects.items())
    write_distribution(place, module, f"[cmcore.recipes]\n{points}", module, THEIRS)
    monkeypatch.syspath_prepend(place)
    importlib.invalidate_caches()
    cm.recipes._others.cache_clear()
    yield
    cm.recipes._others.cache_clear()


def test_a_recipe_from_elsewhere_is_known(theirs):
    assert cm.recipes.names()[-3:] == ("flow-matching", "none", "other-name")
    assert cm.recipes.names().count("cd") == 1
    recipe = cm.recipes.get("flow-matching", lr=1e-2)
    assert recipe.optimizer.lr == 1e-2
    assert cm.recipes.cite("flow-matching") == recipe.citation
    assert type(cm.recipes.get("cd")).__module__.startswith("cmcore.")
    for name in ("none", "other-name"):
        with pytest.raises(TypeError, match=rf"The entry point 'flow_for_cmcore:.* whose name is '{name}'"):
            cm.recipes.get(name)


@pytest.mark.skipif(not TRAINABLE, reason="no backend that can train takes part")
def test_a_recipe_from_elsewhere_trains_resumes_and_samples(theirs, tmp_path):
    test_it_trains_resumes_and_samples("flow-matching", tmp_path)


@pytest.mark.skipif(not TRAINABLE, reason="no backend that can train takes part")
@pytest.mark.parametrize("name", cm.recipes.names())
def test_it_trains_resumes_and_samples(name, tmp_path):
    teacher = teacher_for(cm.recipes.get(name))
    whole = train(configured(name), DATA, teacher=teacher)
    with pytest.raises(KeyboardInterrupt):
        train(configured(name), DATA, teacher=teacher, out=tmp_path / "broken", progress=Notes(interrupt_after=3))
    assert same_weights(train(configured(name), DATA, out=tmp_path / "broken", resume=True), whole)
    samples = generate(whole, 5, seed=1, backend=cm.load(FIRST))
    assert samples.shape == (5, *DATA.shape)
    assert np.isfinite(samples).all()
