"""Augmentation that a network is told of: what is told is what was done, and a run with it is resumed exactly."""

import math

import numpy as np
import pytest
from conftest import TRAINABLE
from scipy import stats
from toy import make_data

import cmcore as cm
from cmcore import Error
from cmcore.generate import generate
from cmcore.run.augment import SHIFT, augmented
from cmcore.run.config import Config
from cmcore.run.plan import make_plan
from cmcore.run.resample import mapped
from cmcore.run.train import train

N = 400
TINY = {"multipliers": "1", "blocks": 1, "attention": "", "width": 8}


def wave(x, y):
    """A smooth picture over pixels from the middle, that neither a turn nor a flip leaves as it is."""
    return 0.4 * np.sin(0.45 * x + 0.3) + 0.3 * np.cos(0.3 * y - 0.7) + 0.2 * np.sin(0.25 * x + 0.35 * y)


SIDE = (24, 28)
ROWS, COLUMNS = (np.arange(n) - (n - 1) / 2 for n in SIDE)
PICTURE = np.broadcast_to(wave(*np.meshgrid(COLUMNS, ROWS)), (N, 2, *SIDE)).astype(np.float32)


def undone(told, x, y):
    """Where in the picture the place (x, y) of its augmentation comes from, by what is told alone, step by step."""
    left, upside, scale, cos, sin, along, across, dx, dy = map(float, told)
    x, y = x - dx * SHIFT * SIDE[1], y - dy * SHIFT * SIDE[0]
    size, axis = math.hypot(along, across), math.atan2(across, along)
    u, v = x * math.cos(axis) + y * math.sin(axis), -x * math.sin(axis) + y * math.cos(axis)
    u, v = u / 2 ** (0.2 * size), v * 2 ** (0.2 * size)
    x, y = u * math.cos(axis) - v * math.sin(axis), u * math.sin(axis) + v * math.cos(axis)
    angle = math.atan2(sin, cos + 1)
    x, y = x * math.cos(angle) + y * math.sin(angle), -x * math.sin(angle) + y * math.cos(angle)
    x, y = x / 2 ** (0.2 * scale), y / 2 ** (0.2 * scale)
    return (-x if left else x), (-y if upside else y)


def worst(picture, told):
    """The largest error where the picture and its surroundings were inside."""
    x, y = undone(told, *np.meshgrid(COLUMNS, ROWS))
    inside = (np.abs(x) < SIDE[1] / 2 - 4) & (np.abs(y) < SIDE[0] / 2 - 4)
    return np.abs(picture - wave(x, y))[:, inside].max(initial=0), inside.sum()


@pytest.mark.parametrize("p", [0.3, 1.0])
def test_what_is_told_is_what_was_done(p):
    pictures, told = augmented(PICTURE, 0, 5, p)
    seen = 0
    for picture, numbers in zip(pictures, told.astype(np.float64), strict=True):
        # A shrinkage along an axis is told as a stretch along its opposite, so that these numbers have two readings.
        shrunk = numbers.copy()
        shrunk[5], shrunk[6] = -numbers[6], numbers[5]
        error, inside = min(worst(picture, reading) for reading in (numbers, shrunk))
        assert error < 0.03
        seen += inside
    assert seen > N * 50


def test_what_is_not_augmented_keeps_its_bits():
    pictures, told = augmented(PICTURE, 0, 5, 0.2)
    for picture, numbers in zip(pictures, told, strict=True):
        if not numbers[2:].any():
            same = PICTURE[0, :, :: -1 if numbers[1] else 1, :: -1 if numbers[0] else 1]
            assert picture.tobytes() == same.tobytes()
    assert (~told[:, 2:].any(axis=1)).sum() > N / 4
    assert pictures.dtype == told.dtype == np.float32


def test_the_draws_have_the_papers_distributions():
    x = np.zeros((20_000, 1, 2, 2), np.float32)
    told = augmented(x, 1, 0, 1.0)[1].astype(np.float64)
    for column in (0, 1):
        assert abs(told[:, column].mean() - 0.5) < 0.02
    for column in (2, 7, 8):
        assert stats.kstest(told[:, column], "norm").pvalue > 1e-3
    assert stats.kstest(np.arctan2(told[:, 4], told[:, 3] + 1), stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 1e-3
    assert stats.kstest(np.hypot(told[:, 5], told[:, 6]), stats.halfnorm.cdf).pvalue > 1e-3
    assert abs((told[:, 6] == 0).mean() - 0.5) < 0.02
    few = augmented(x, 1, 0, 0.12)[1]
    assert abs(few[:, 0].mean() - 0.5) < 0.02
    assert abs(few[:, 1].mean() - 0.06) < 0.01
    for column in (2, 3, 5, 7):
        assert abs((few[:, column] != 0).mean() - 0.12) < 0.015


def test_the_draws_depend_on_seed_step_and_place_alone():
    first = augmented(PICTURE, 3, 7, 0.5)
    for whole, part in zip(first, augmented(PICTURE[:9], 3, 7, 0.5), strict=True):
        np.testing.assert_allclose(part, whole[:9], atol=1e-6)
    assert augmented(PICTURE, 3, 7, 0.5)[0].tobytes() == first[0].tobytes()
    for other in ((3, 8), (4, 7)):
        assert (augmented(PICTURE, *other, 0.5)[1] != first[1]).any(axis=1).mean() > 0.9


def test_pictures_reflect_beyond_their_edges():
    shift = np.array([[[1.0, 0, 6], [0, 1.0, -4]]])
    out = mapped(PICTURE[:1], shift)[0, 0]
    columns = np.abs((np.arange(SIDE[1]) + 6 + SIDE[1] - 1) % (2 * SIDE[1] - 2) - (SIDE[1] - 1))
    rows = np.abs(np.arange(SIDE[0]) - 4)
    # The edges are kinks, which are smoothed.
    np.testing.assert_allclose(out, PICTURE[0, 0][np.ix_(rows, columns)], atol=0.08)
    assert np.abs(out - PICTURE[0, 0][np.ix_(rows, columns)]).mean() < 0.005


@pytest.mark.parametrize(
    ("config", "data", "told"),
    [
        ({"network": "mlp"}, (1, 8, 8), "one of the kind unet"),
        ({"network": "conv"}, (1, 16, 16), "one of the kind unet"),
        ({"network": "unet", "network_settings": {"augment": 3}}, (1, 16, 16), "one of the kind unet"),
        ({}, (4,), "is for pictures"),
        (
            {"network": "unet", "network_settings": {"multipliers": "1", "attention": ""}},
            (1, 1, 16),
            "at least 2 pixels",
        ),
    ],
)
def test_networks_that_cannot_be_told_are_refused(config, data, told):
    with pytest.raises(Error, match=told):
        make_plan(Config(augment=0.1, **config), make_data(data))


@pytest.mark.skipif(not TRAINABLE, reason="no backend that can train takes part")
def test_a_student_is_augmented_as_its_teacher_was():
    data = make_data((1, 8, 8))
    small = {"network": "unet", "network_settings": TINY}
    quick = {"steps": 1, "batch": 2, "compiled": False, "backend": TRAINABLE[0]}
    plain, told = (train(Config(recipe="edm", augment=p, **small, **quick), data) for p in (0.0, 0.1))
    assert make_plan(Config(recipe="cd", augment=0.1), data, told).architecture.augment == 9
    with pytest.raises(Error, match="leave out --augment"):
        make_plan(Config(recipe="cd", augment=0.1, **small), data, plain)


@pytest.mark.parametrize("p", [-0.1, 1.5, float("nan")])
def test_a_probability_is_one(p):
    with pytest.raises(ValueError, match="is a probability"):
        Config(augment=p)


# Another backend makes no other pictures, and compiling such a network takes a minute.
@pytest.mark.parametrize("name", TRAINABLE[:1])
def test_an_augmented_run_is_resumed_exactly_and_samples(name, tmp_path, monkeypatch):
    data = make_data((1, 8, 8), n=20)
    config = Config(
        recipe="ect",
        augment=0.5,
        network="unet",
        network_settings=TINY,
        steps=6,
        batch=4,
        save_every=1,
        sample_every=9,
        compiled=False,
        backend=name,
    )
    whole = train(config, data)
    calls = []

    def stopped(x, seed, step, p, rows):
        calls.append(step)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return augmented(x, seed, step, p, rows)

    monkeypatch.setattr("cmcore.run.loop.augmented", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(config, data, out=tmp_path / "run")
    resumed = train(config, data, out=tmp_path / "run", resume=True)
    assert calls == [0, 1, 1, 2, 3, 4, 5]
    assert whole.weights["augment.weight"].any()  # it began with zeros
    for name, weight in whole.weights.items():
        assert weight.tobytes() == resumed.weights[name].tobytes()
    assert np.isfinite(generate(resumed, 2, backend=cm.load("numpy"))).all()
