"""Every recipe, with the teacher it needs, trains, is interrupted, resumes and samples."""

import numpy as np
import pytest
from conftest import TRAINABLE
from test_train import Notes, make_config, same_weights
from toy import make_data

import cmcore as cm
from cmcore.run.generate import generate
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
