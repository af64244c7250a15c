"""The loss by time: what a step tells of its samples, and the table that a run makes of it."""

import csv

import numpy as np
import pytest
from toy import make_data

import cmcore as cm
from cmcore.networks import ResidualMLP
from cmcore.run.by_time import BUCKETS, LossByTime, _times, edges
from cmcore.run.config import Config
from cmcore.run.report import Progress
from cmcore.run.train import train
from cmcore.training import Trainer, TrainSpec, drawn


@pytest.mark.parametrize("parts", [1, 2])
def test_a_step_tells_each_samples_loss_and_tau(trainable, parts):
    """The loss is known without the network: tau plus the sample."""

    def loss(nets, x0, z, tau, scalars, cond):
        nothing = 0.0 * nets["online"](x0, 0.0 * tau)
        return tau + x0[:, 0] + nothing[:, 0]

    if trainable.name == "tinygrad" and parts == 1:
        pytest.skip("is ten seconds of small programs, and a batch of two parts contains it")
    spec = TrainSpec(loss, compiled=trainable.name == "jax", accumulate=parts)
    net = trainable.network(ResidualMLP((2,), width=2, blocks=1, features=2))
    trainer = Trainer(trainable, net, spec)
    x = np.arange(8, dtype=np.float32).reshape(4, 2)
    for index in range(3):
        mean = trainer.step(index, trainable.asarray(x), {"lr": 0.0, "ema_decay": 0.5})
        seen = [tuple(map(trainable.to_numpy, pair)) for pair in trainer.seen]
        losses = np.concatenate([each.reshape(-1) for each, _ in seen])
        tau = np.concatenate([t.reshape(-1) for _, t in seen])
        assert losses.shape == tau.shape == (4,)
        assert len({*tau.tolist()}) == 4
        np.testing.assert_allclose(losses, tau + x[:, 0], rtol=1e-6)
        np.testing.assert_allclose(losses.mean(), float(trainable.to_numpy(mean)), rtol=1e-6)


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_rows_are_means_over_the_samples_of_each_time(tmp_path):
    recipe = cm.recipes.get("ect")
    scalars = recipe.scalars(0, 100)
    limits = edges(recipe, 100)
    log = LossByTime(tmp_path / "t.csv", recipe, 100, 0, log_every=8)
    rng = np.random.default_rng(0)
    sums, counts = np.zeros(BUCKETS), np.zeros(BUCKETS)
    for index in range(3):
        losses, tau = rng.random(64), rng.standard_normal(64).astype(np.float32)
        log.keep(index, [(losses[:32], tau[:32]), (losses[32:], tau[32:])], scalars)
        for value, t in zip(losses, np.exp(-1.1 + 2.0 * tau), strict=True):  # ect's log-normal times
            bucket = min(max(sum(t >= edge for edge in limits) - 1, 0), BUCKETS - 1)
            sums[bucket] += value
            counts[bucket] += 1
    assert counts.min() > 5
    log.add(3, np.asarray)
    (row,) = table(tmp_path / "t.csv")
    assert row.pop("step") == "3"
    np.testing.assert_allclose([float(v) for v in row.values()], sums / counts, rtol=1e-12)
    assert log.add(4, np.asarray) == {}


@pytest.mark.parametrize("name", cm.recipes.names())
def test_every_recipe_has_intervals_of_equal_share(name):
    recipe = cm.recipes.get(name)
    limits = edges(recipe, 1000)
    if name == "cmt":  # which knows one time only
        assert limits == [80.0, 80.0]
        return
    assert limits == sorted(set(limits))
    assert len(limits) >= 4
    rng, times = np.random.default_rng(1), []
    draw = {"uniform": rng.random, "normal": rng.standard_normal}
    for step in range(0, 1000, 50):
        tau = drawn(recipe.draws, 400, lambda law, shape: draw[law](shape).astype(np.float32))
        times.append(_times(recipe, tau, recipe.scalars(step, 1000)))
    t = np.concatenate(times)
    share = np.histogram(np.clip(t, limits[0], limits[-1]), limits)[0] / len(t)
    # tcm sets a quarter at one time.
    assert share.max() < 0.45


class BreakingOff(Progress):
    def __init__(self, at):
        self.at = at

    def advance(self, done):
        if done == self.at:
            raise KeyboardInterrupt


CONFIG = {"backend": "torch", "compiled": False, "recipe": "ect", "width": 4, "blocks": 1, "batch": 16, "save_every": 3}


def test_a_resumed_run_has_the_same_table(tmp_path):
    pytest.importorskip("torch")
    config = Config(**CONFIG, steps=7, sample_every=7)
    train(config, make_data(), out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(config, make_data(), out=tmp_path / "broken", progress=BreakingOff(5))
    train(config, make_data(), out=tmp_path / "broken", resume=True)
    # The table went on after the state that the run resumed from.
    whole, broken = ((tmp_path / name / "loss_by_time.csv").read_bytes() for name in ("whole", "broken"))
    assert whole == broken
    rows, logged = table(tmp_path / "whole" / "loss_by_time.csv"), table(tmp_path / "whole" / "log.csv")
    assert [r["step"] for r in rows] == [r["step"] for r in logged] == list("1234567")
    for row, log in zip(rows, logged, strict=True):
        means = [float(v) for k, v in row.items() if k != "step" and v]
        assert min(means) <= float(log["loss"]) <= max(means)


def test_runs_of_backends_that_do_not_tell_have_no_table(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr(Trainer, "seen", ())
    train(Config(**CONFIG, steps=2), make_data(), out=tmp_path / "run")
    assert not (tmp_path / "run" / "loss_by_time.csv").exists()
