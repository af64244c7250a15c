"""What a trainer is given: mistakes are sentences before anything is built."""

import numpy as np
import pytest

import cmcore as cm


def test_a_spec_says_what_it_cannot_be():
    for wrong, sentence in (
        ({"loss": None}, "The loss must be a function of nets"),
        ({"loss": max, "optimizer": "adam"}, "The optimizer must be an Optimizer"),
        ({"loss": max, "draws": 1.5}, "draws must be a whole number"),
        ({"loss": max, "seed": "a"}, "seed must be a whole number"),
    ):
        with pytest.raises(TypeError, match=sentence):
            cm.TrainSpec(**wrong)


def test_a_trainer_says_what_it_is_given(trainable):
    net = trainable.network(cm.networks.ResidualMLP((2,), width=4, blocks=1, features=2))
    with pytest.raises(TypeError, match=r"given a cmcore\.TrainSpec"):
        cm.Trainer(trainable, net, max)
    number = cm.Trainer(trainable, net, cm.TrainSpec(lambda *_: 1.0, compiled=False))
    scalars, x0 = {"lr": 0.1, "ema_decay": 0.5}, np.zeros((2, 2), np.float32)
    with pytest.raises(TypeError, match="must be an array, one number per sample, got float"):
        number.step(0, x0, scalars)
    with pytest.raises(TypeError, match=r"cond must be a mapping such as"):
        number.step(0, x0, scalars, x0)


def test_conditions_are_a_mapping(lib):
    x = lib.asarray(np.zeros((2, 2)))
    with pytest.raises(TypeError, match=r"cond must be a mapping such as"):
        cm.losses.denoising(lambda x, t, **cond: x, x, x, 1.0, cond=x)


def test_times_beyond_a_paths_end_are_refused_by_the_losses(lib):
    x = lib.asarray(np.ones((2, 2)))
    for path in (cm.paths.VP(), cm.paths.Linear(), cm.paths.Cosine()):
        with pytest.raises(ValueError, match=r"are at most 1\.0, got 80\.0"):
            cm.losses.denoising(lambda x, t: x, x, x, 80.0, path=path)
