"""A newcomer's backend (`boxed`): it passes the whole kit, trains and samples by the program, and is caught when it is wrong."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import boxed
import numpy as np
import pytest
from conftest import write_distribution
from PIL import Image

import cmcore as cm
from cmcore import testing
from cmcore.model import load_model


@pytest.fixture
def newcomer():
    cm.register(boxed.BACKEND)
    yield boxed.BACKEND
    cm.backend.unregister("boxed")


@pytest.mark.parametrize("check", testing.CHECKS, ids=lambda check: check.__name__)
def test_it_passes_the_kit(check, newcomer):
    check(newcomer)


def test_its_own_namespace_comes_before_what_an_array_says_of_itself(monkeypatch):
    x = boxed.asarray([1.0, 2.0])
    assert x.__array_namespace__() is np
    monkeypatch.delitem(sys.modules, "boxed")
    assert cm.namespace(x) is not boxed.xp
    cm.register(boxed.BACKEND)
    try:
        assert cm.namespace(x) is boxed.xp
        assert cm.backend.of(x) is boxed.BACKEND
        assert cm.namespace(x, 2.0 * x) is boxed.xp
    finally:
        cm.backend.unregister("boxed")


def without(function, keyword):
    """The function as it would be without that keyword."""

    def call(*args, **kwargs):
        if keyword in kwargs:
            raise TypeError(f"full() got an unexpected keyword argument {keyword!r}")
        return function(*args, **kwargs)

    return call


def step_with(change):
    """A train step that is given other conditions."""
    right = boxed.TrainStep.__call__
    return lambda self, index, x0, scalars, cond: right(self, index, x0, scalars, change(cond))


def mean_unchecked(self, nets, *batch):
    return boxed.xp.mean(self.loss(nets, *batch))


WRONG = {
    "zeros knows no device": (
        boxed.xp,
        "zeros",
        without(boxed.xp.zeros, "device"),
        "check_namespace",
        "zeros cannot be called",
    ),
    "no tan": (boxed.xp, "tan", None, "check_namespace", "tan cannot be called as the core calls it"),
    "streams of one type": (
        boxed.Stream,
        "normal",
        lambda self, shape, dtype="float32": boxed.asarray(self.rng.standard_normal(shape)),
        "check_float_types",
        "A stream asked for float32 drew float64",
    ),
    "steps without dropout": (
        boxed.TrainStep,
        "__call__",
        step_with(lambda cond: {}),
        "check_trainer_dropout",
        "does not hand on cond",
    ),
    "steps of one dropout": (
        boxed.TrainStep,
        "__call__",
        step_with(lambda cond: {name: np.array(1, np.int32) for name in cond}),
        "check_trainer_dropout",
        "not the step's own",
    ),
    "frozen networks that drop": (
        cm.training,
        "_without_dropout",
        lambda net: net,
        "check_trainer_dropout",
        "A frozen network is given the key",
    ),
    "losses of any shape": (
        cm.TrainSpec,
        "mean_loss",
        mean_unchecked,
        "check_trainer_loss_shape",
        "must raise ValueError",
    ),
    "nothing restored": (
        boxed.TrainStep,
        "restore",
        lambda self, state: None,
        "check_program",
        "broken off and resumed: .* has changed",
    ),
    "no gradient stopped": (
        boxed.Backend,
        "stop_gradient",
        lambda self, x: x,
        "check_jvp",
        r"through stop_gradient\(\)",
    ),
}


@pytest.mark.parametrize(("place", "name", "wrong", "check", "sentence"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_found(place, name, wrong, check, sentence, newcomer, monkeypatch):
    (run,) = (c for c in testing.CHECKS if c.__name__ == check)
    monkeypatch.setattr(place, name, wrong)
    with pytest.raises(AssertionError, match=sentence):
        run(newcomer)


@pytest.fixture
def installed(tmp_path):
    """The backend as an installed distribution, and the environment in which it is found."""
    place = tmp_path / "site"
    place.mkdir()
    code = Path(boxed.__file__).read_text()
    write_distribution(place, "boxed", "[cmcore.backends]\nboxed = boxed:BACKEND\n", "boxed", code)
    here = [str(place), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, here))}


@pytest.mark.slow
def test_it_trains_and_samples_by_the_command(installed, tmp_path):
    data, out = tmp_path / "pictures.npz", tmp_path / "run"
    x = np.random.default_rng(0).integers(0, 256, (30, 4, 4), np.uint8)
    np.savez(data, x=x)

    def command(*arguments):
        return [sys.executable, "-m", "cmcore", *map(str, arguments)]

    def run(*arguments):
        done = subprocess.run(
            command(*arguments), capture_output=True, text=True, env=installed, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    assert "boxed" in run("backends")
    settings = ["--data", data, "--recipe", "ect", "--backend", "boxed", "--steps", "200", "--batch", "8"]
    settings += ["--network", "mlp", "--width", "4", "--blocks", "1", "--save-every", "5", "--sample-every", "40"]
    process = subprocess.Popen(
        command("train", *settings, "--out", out), stderr=subprocess.PIPE, text=True, env=installed
    )
    until = time.monotonic() + 60
    while not (out / "model.safetensors").exists() or load_model(out).step == 0:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 130, err
    assert 0 < load_model(out).step < 200
    assert "Going on after step" in run("train", "--out", out, "--resume")
    assert load_model(out).step == 200
    assert Image.open(out / "samples" / "step-00000200.png").width > 16
    run("sample", out, "--n", "5", "--backend", "boxed", "--out", tmp_path / "samples.npz")
    run("sample", out, "--n", "5", "--backend", "numpy", "--out", tmp_path / "others.npz")
    ours, others = (np.load(tmp_path / name)["x"] for name in ("samples.npz", "others.npz"))
    assert ours.shape == (5, 1, 4, 4)
    np.testing.assert_allclose(ours, others, atol=1e-5)
