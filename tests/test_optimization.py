"""The schedules of the learning rate and of the average's decay, number by number, and settings that cannot be."""

import math

import numpy as np
import pytest
from conftest import CHOSEN

from cmcore.optimization import Optimizer, radam_factors


def rates(optimizer, steps, total):
    return [optimizer.scalars(step, total)["lr"] for step in steps]


def test_the_rate_is_constant_unless_told_otherwise():
    assert rates(Optimizer(lr=0.25), (0, 1, 99, 200), 100) == [0.25] * 4


def test_the_rate_rises_linearly_from_the_first_step():
    assert rates(Optimizer(lr=0.5, warmup=4), range(7), 100) == [0.125, 0.25, 0.375, 0.5, 0.5, 0.5, 0.5]


def test_the_rate_falls_along_half_a_cosine_after_the_warm_up():
    # 1/2 (1 + cos(pi u)) at u = 0, 1/3, 1/2, 2/3, 1 is 1, 3/4, 1/2, 1/4, 0; beyond the run's end it stays at 0.
    got = rates(Optimizer(lr=2.0, warmup=4, decay=True), (0, 3, 4, 6, 7, 8, 10, 15), 10)
    assert got == pytest.approx([0.5, 2.0, 2.0, 1.5, 1.0, 0.5, 0.0, 0.0], abs=1e-15)
    assert rates(Optimizer(lr=2.0, decay=True), (0, 2, 3, 6), 6) == pytest.approx([2.0, 1.5, 1.0, 0.0], abs=1e-15)


def test_a_run_that_ends_with_its_warm_up_still_has_a_rate():
    # Nothing is left to fall over: the step after the warm-up is the end.
    assert rates(Optimizer(lr=1.0, warmup=4, decay=True), (3, 4, 5), 4) == pytest.approx([1.0, 1.0, 0.0], abs=1e-15)


def test_the_value_is_this_one():
    assert Optimizer().scalars(0, 1).keys() == {"lr"}


def test_the_settings_unless_told_otherwise():
    usual = Optimizer("radam", 1e-3, (0.9, 0.999), 1e-8, weight_decay=0.0, warmup=0, decay=False, clip=0.0)
    assert Optimizer() == usual


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"algorithm": "sgd"}, "Unknown optimiser 'sgd'; choose one of radam, adam, adamw."),
        ({"lr": 0.0}, "learning rate must be positive, got 0.0"),
        ({"lr": float("nan")}, "learning rate must be positive, got nan"),
        ({"lr": float("inf")}, "lr must be finite, got inf"),
        ({"eps": 0.0}, "eps must be positive, got 0.0"),
        ({"clip": -1.0}, "gradient norm must be at least 0, got -1.0"),
        ({"clip": float("nan")}, "gradient norm must be at least 0, got nan"),
        ({"warmup": -1}, "warm-up steps must be at least 0, got -1"),
        ({"algorithm": "adamw", "weight_decay": -0.1}, "weight decay must be at least 0, got -0.1"),
        ({"betas": (0.9, 1.0)}, r"two numbers in \[0, 1\), such as .*, got \(0.9, 1.0\)"),
        ({"betas": (-0.1, 0.9)}, r"two numbers in \[0, 1\)"),
        ({"betas": 0.9}, r"two numbers in \[0, 1\)"),
        ({"betas": (0.9,)}, r"two numbers in \[0, 1\)"),
        ({"weight_decay": 0.1}, "Weight decay belongs to adamw, not to radam"),
    ],
)
def test_settings_that_cannot_be_are_a_sentence(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        Optimizer(**settings)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, "a number") for name in ("lr", "eps", "clip", "weight_decay")),
        ("warmup", "a whole number"),
        ("decay", "True or False"),
    ],
)
def test_a_setting_of_another_kind_is_a_sentence(name, kind):
    with pytest.raises(TypeError, match=f"The optimiser's {name} must be {kind}, got '0.1'."):
        Optimizer("adamw", **{name: "0.1"})


def test_rectified_adam_adapts_once_its_variance_is_tractable():
    betas = (0.9, 0.999)
    assert [radam_factors(step, betas)[1] > 0 for step in range(1, 8)] == [False] * 5 + [True] * 2
    assert [radam_factors(step, betas)[0] for step in (1, 2)] == pytest.approx([10.0, 1 / 0.19])
    # After many steps it is Adam, and on the way there it grows.
    factors = [radam_factors(step, betas)[1] / math.sqrt(1 - 0.999**step) for step in (6, 60, 600, 6000, 10**6)]
    assert factors == sorted(factors)
    assert factors[-1] == pytest.approx(1.0)


@pytest.mark.skipif("torch" not in CHOSEN, reason="torch does not take part")
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.9), (0.9, 0.6)])
def test_rectified_adam_is_pytorchs(betas):
    """With 0.6 the variance is never tractable; with 0.9 it is from the ninth step on."""
    import torch

    p, gradients = torch.tensor([2.0], dtype=torch.float64), np.random.default_rng(0).normal(size=30)
    optimizer, m, v = torch.optim.RAdam([p], lr=0.1, betas=betas, eps=1e-8), 0.0, 0.0
    for step, g in enumerate(gradients, start=1):
        before, p.grad = float(p), torch.tensor([g], dtype=torch.float64)
        optimizer.step()
        m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g**2
        first, second = radam_factors(step, betas)
        expected = 0.1 * first * m * (second / (math.sqrt(v) + 1e-8) if second else 1.0)
        assert before - float(p) == pytest.approx(expected, rel=1e-12), step
