"""A score model that is not of EDM's kind teaches every method that distils, and starts those of its kind."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import TRAINABLE
from test_train import Notes, make_config
from toy import make_data

import cmcore as cm
from cmcore.generate import generate
from cmcore.model import DataFacts, Model, load_model, save_model
from cmcore.networks import Adapted, ResidualConv, UNet
from cmcore.run.plan import make_plan
from cmcore.run.train import train
from cmcore.testing import random_weights

DATA = make_data(classes=2)
INNER = ResidualConv((1, 4, 4), width=8, multipliers=(1,), blocks=1, groups=2, features=8, classes=2)
KINDS = {
    "epsilon": Adapted(INNER, "noise", "linear", (50, 1e-3, 0.3)),
    "v": Adapted(INNER, "velocity", "squaredcos_cap_v2", (50,)),
    "x0": Adapted(INNER, "denoiser", "linear", (50, 1e-3, 0.3)),
    "ve": Adapted(INNER, "minus_noise", "log", (1.0, -0.69)),
}


def teacher(kind):
    weights = {f"net.{name}": 0.3 * w for name, w in random_weights(INNER).items()}
    facts = DataFacts("elsewhere", INNER.shape, True, DATA.classes)
    return Model(cm.recipes.get("edm", t_max=20.0), KINDS[kind], weights, facts)


def distilled(recipe, model, progress=None, **changes):
    config = make_config(TRAINABLE[0], recipe=recipe, steps=2, batch=4, classes=True, network=None, **changes)
    return train(config, DATA, teacher=model, progress=progress)


@pytest.mark.skipif(not TRAINABLE, reason="no backend that trains is installed")
@pytest.mark.parametrize(
    ("recipe", "kind"),
    [("cd", "epsilon"), ("scd", "v"), ("ayf", "epsilon"), ("ctm", "ve"), ("cmt", "x0"), ("pd", "epsilon")],
)
def test_every_method_that_distils_takes_it(recipe, kind, tmp_path):
    notes = Notes()
    student = distilled(recipe, teacher(kind), notes)
    # A method whose network has other scalings takes the network alone, without its weights.
    inherits = recipe in ("cd", "ctm", "cmt", "pd")
    assert isinstance(student.architecture, Adapted) == inherits
    assert any("starts from the teacher's weights" in note for note in notes.notes) == inherits
    save_model(student, tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors")
    assert again.architecture == student.architecture
    assert np.isfinite(generate(again, 2, backend=cm.load(TRAINABLE[0]))).all()


def test_a_network_that_is_told_another_time_has_other_frequencies_for_it():
    unet = UNet((1, 4, 4), width=8, multipliers=(1,), blocks=1, attention=(), times="sinusoidal", classes=2)
    model = replace(teacher("epsilon"), architecture=Adapted(unet, "noise", "linear", (50, 1e-3, 0.3)))
    config = make_config("torch", recipe="ayf", classes=True, width=None, blocks=None)
    assert make_plan(config, DATA, model).architecture == replace(unet, times="ladder", two_times=True)
    kept = make_plan(replace(config, recipe="cd"), DATA, model).architecture
    assert kept == model.architecture


@pytest.mark.skipif(not TRAINABLE, reason="no backend that trains is installed")
def test_a_student_of_another_size_needs_no_adapting():
    student = distilled("cd", teacher("epsilon"), width=16)
    assert student.architecture.network.width == 16
    plain = train(
        make_config(TRAINABLE[0], recipe="cd", steps=1, batch=4, classes=True, network="mlp"),
        DATA,
        teacher=teacher("epsilon"),
    )
    assert plain.architecture.kind == "mlp"
