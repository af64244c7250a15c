"""Runs that store power-function averages: at which steps, the same after an interruption, and new averages from them."""

import signal

import numpy as np
import pytest
from conftest import TRAINABLE
from toy import make_data

import cmcore as cm
from cmcore import ema
from cmcore.model import load_model
from cmcore.run import averaging, loop
from cmcore.run.config import Config
from cmcore.run.folder import RunFolder
from cmcore.run.report import Progress
from cmcore.run.train import train

pytestmark = pytest.mark.skipif(not TRAINABLE, reason="no backend that can train takes part")
DATA = make_data()


def config(backend, **changes):
    settings = {"recipe": "ct", "steps": 20, "batch": 8, "width": 8, "blocks": 1, "save_every": 6, "sample_every": 20}
    options = {"lr": 3e-3, "ema_std": 0.1} | changes.pop("options", {})
    return Config(backend=backend, compiled=backend != "torch", options=options, **settings, **changes)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A run of some backend with its folder."""
    name = TRAINABLE[0]
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(config(name), DATA, out=folder)
    return RunFolder(folder)


def steps_of(folder):
    return sorted(int(p.stem.removeprefix("step-")) for p in RunFolder(folder).averages.glob("*"))


def test_averages_are_stored_at_every_save(stored):
    assert steps_of(stored.path) == [6, 12, 18, 20]
    last, model = load_model(stored.averages / "step-00000020.safetensors"), load_model(stored.model)
    assert last.step == 20
    for name, weights in model.weights.items():
        assert np.array_equal(last.weights[name], weights)
    earlier = load_model(stored.averages / "step-00000012.safetensors").weights
    assert any(not np.array_equal(earlier[name], weights) for name, weights in model.weights.items())


def test_the_trained_average_is_the_recursions(trainable, tmp_path, monkeypatch):
    """Over the online weights after each step, in double precision."""
    schedule, average = ema.PowerFunction.of_width(0.1), {}

    def step(self, index):
        original(self, index)
        beta = schedule.decay(index)
        for name, w in self._trainer.weights("online").items():
            average[name] = beta * average.get(name, 0.0) + (1 - beta) * w.astype(np.float64)

    original = loop.Run._step
    monkeypatch.setattr(loop.Run, "_step", step)
    model = train(config(trainable.name), DATA)
    for name, weights in model.weights.items():
        np.testing.assert_allclose(weights, average[name], rtol=2e-5, atol=2e-6)


def test_an_interrupted_run_stores_the_same_averages(trainable, tmp_path, monkeypatch):
    """Stopped by Ctrl-C between two saves, then between the average and the state of a save, and resumed each time."""
    train(config(trainable.name), DATA, out=tmp_path / "whole")
    run = tmp_path / "broken"

    class Pressing(Progress):
        def advance(self, done):
            if done == 9:
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(config(trainable.name), DATA, out=run, progress=Pressing())
    assert steps_of(run) == [6]

    class Killed(BaseException):
        pass

    def kill(*args):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_state", kill)
        with pytest.raises(Killed):
            train(config(trainable.name), DATA, out=run, resume=True)
    assert steps_of(run) == [6, 12]

    # A half-written file, and another step's weights in place of those that the lost steps will give again.
    (run / "averages" / f".step-00000018.safetensors.{0:032x}.tmp").write_bytes(b"half")
    (run / "averages" / "step-00000012.safetensors").write_bytes(
        (run / "averages" / "step-00000006.safetensors").read_bytes()
    )
    train(config(trainable.name), DATA, out=run, resume=True)
    files = sorted(p.name for p in (tmp_path / "whole" / "averages").iterdir())
    assert sorted(p.name for p in (run / "averages").iterdir()) == files
    for name in files:
        assert (run / "averages" / name).read_bytes() == (tmp_path / "whole" / "averages" / name).read_bytes()


def test_the_runs_own_width_gives_its_own_weights(stored):
    for at in (None, 12):
        model, error = averaging.average(stored, 0.1, at)
        expected = load_model(stored.averages / f"step-{at or 20:08d}.safetensors")
        assert model.step == (at or 20)
        assert error < 1e-6
        for name, weights in expected.weights.items():
            np.testing.assert_allclose(model.weights[name], weights, rtol=1e-5, atol=1e-6)
            assert model.weights[name].dtype == weights.dtype


def test_another_width_is_the_librarys_reconstruction(stored):
    model, error = averaging.average(stored, 0.15)
    gamma = ema.gamma_of(0.1)
    snapshots = [
        ema.Snapshot(ema.Profile(s, gamma), load_model(stored.averages / f"step-{s:08d}.safetensors").weights)
        for s in (6, 12, 18, 20)
    ]
    expected = ema.reconstruct(snapshots, 20, 0.15)
    for name, weights in model.weights.items():
        assert np.array_equal(weights, expected[name])
        if not np.any(snapshots[0].weights[name] != snapshots[-1].weights[name]):
            assert np.array_equal(weights, snapshots[0].weights[name])  # a fixed frequency, or the like
    assert 0 < error < 0.5
    assert model.recipe.average.ema_std == 0.15
    assert model.about["averages"] == 4


def test_the_command_writes_a_model_that_samples(stored, tmp_path, capsys):
    from cmcore.run.cli import main

    out = tmp_path / "new" / "model.safetensors"
    assert main(["average", str(stored.path), "--std", "0.15", "--out", str(out)]) == 0
    assert "% off" in capsys.readouterr().err
    assert main(["sample", str(out), "--n", "4", "--backend", "numpy", "--out", str(tmp_path / "x.npz")]) == 0
    before = out.read_bytes()
    assert main(["average", str(stored.path), "--std", "0.2", "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--std", "0.5", "--out", "{new}.safetensors"], "at most 0.2887"),
        (["--std", "0.1", "--at", "21", "--out", "{new}.safetensors"], "the last is at 20"),
        (["--std", "0.1", "--at", "5", "--out", "{new}.safetensors"], "no average up to step 5"),
        (["--std", "0.1", "--out", "{new}.npz"], "safetensors"),
        (["--out", "{new}.safetensors"], "--std"),
    ],
)
def test_what_cannot_be_averaged_is_a_sentence(stored, arguments, match, tmp_path, capsys):
    from cmcore.run.cli import main

    new = tmp_path / "new"
    try:
        status = main(["average", str(stored.path), *(a.format(new=new) for a in arguments)])
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert match in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_run_without_averages_is_a_sentence(tmp_path):
    name = TRAINABLE[0]
    train(config(name, options={"ema_std": 0.0}), DATA, out=tmp_path / "run")
    assert not (tmp_path / "run" / "averages").exists()
    with pytest.raises(cm.Error, match="--set ema_std"):
        averaging.average(RunFolder(tmp_path / "run"), 0.1)


def test_weights_that_are_not_finite_are_not_stored(tmp_path, monkeypatch):
    name = TRAINABLE[0]
    real = loop.Run._model

    def broken(self, done):
        model = real(self, done)
        if done:
            first = next(iter(model.weights))
            model.weights[first][...] = np.nan
        return model

    monkeypatch.setattr(loop.Run, "_model", broken)
    with pytest.raises(cm.Error, match="before step 6"):
        train(config(name), DATA, out=tmp_path / "run")
    assert steps_of(tmp_path / "run") == []
    assert load_model(tmp_path / "run").step == 0


def test_two_averages_at_once_are_a_sentence(tmp_path, capsys):
    from cmcore.run.cli import main

    options = ["--set", "ema=0.9", "--set", "ema_std=0.1", "--steps", "1", "--width", "8", "--no-compile"]
    assert main(["train", "--data", "digits", "--out", str(tmp_path / "run"), *options]) == 2
    assert "only one of ema and ema_std" in capsys.readouterr().err
