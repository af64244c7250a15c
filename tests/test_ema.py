"""Averages of the weights: published decays, what their profiles weigh, averages put together afterwards."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmcore import ema, recipes


def averaged(schedule, trajectory):
    """The average after each step, from the recursion, starting far from the weights."""
    average, averages = 1e3 * np.ones_like(trajectory[0]), []
    for k, weights in enumerate(trajectory):
        beta = schedule.decay(k)
        average = beta * average + (1 - beta) * weights
        averages.append(average)
    return averages


def walk(steps, seed=0, size=5):
    return np.cumsum(np.random.default_rng(seed).standard_normal((steps, size)), axis=0)


@pytest.mark.parametrize(
    ("images", "batch", "decay"),
    [(0.5e6, 512, 0.9992904691), (50e6, 4096, 0.9999432190)],
)
def test_half_lives_of_published_runs(images, batch, decay):
    assert ema.HalfLife(images, batch, ramp_up=None).decay(0) == pytest.approx(decay, abs=5e-11)
    long_after = ema.HalfLife(images, batch)
    assert long_after.decay(10**9) == pytest.approx(decay, abs=5e-11)
    # The ramp-up: half of what was seen a twentieth of the run ago.
    assert long_after.decay(100) == pytest.approx(0.5 ** (1 / 5), rel=1e-12)
    assert long_after.decay(0) == 0


def test_a_half_life_is_what_it_says():
    decay = ema.HalfLife(100.0, ramp_up=None).decay(7)
    assert decay**100 == pytest.approx(0.5, rel=1e-12)


def test_a_constant_decay_is_shortened_at_first():
    assert [ema.Constant(0.5).decay(k) for k in (0, 3, 8, 100)] == [0.1, 4 / 13, 0.5, 0.5]
    assert ema.Constant(0.5, shortened=False).decay(0) == 0.5


def test_the_warm_up_power_form():
    # k-diffusion's documentation: powers that reach these decays at 31.6 and 215.4 thousand steps.
    assert ema.WarmupPower(power=2 / 3).decay(31_600) == pytest.approx(0.999, abs=1e-6)
    assert ema.WarmupPower(power=2 / 3).decay(1_000_000) == pytest.approx(0.9999, abs=1e-8)
    assert ema.WarmupPower(power=3 / 4).decay(10_000) == pytest.approx(0.999, abs=1e-6)
    assert ema.WarmupPower(power=3 / 4).decay(215_400) == pytest.approx(0.9999, abs=1e-7)
    assert ema.WarmupPower(inv_gamma=10.0, power=1.0).decay(10) == pytest.approx(0.5)
    assert ema.WarmupPower(low=0.2, high=0.9).decay(0) == 0.2
    assert ema.WarmupPower(low=0.2, high=0.9).decay(10**6) == 0.9


def test_with_power_one_it_is_the_mean():
    trajectory = walk(50)
    np.testing.assert_allclose(averaged(ema.WarmupPower(), trajectory)[-1], trajectory.mean(0), rtol=1e-10)


@pytest.mark.parametrize(("sigma_rel", "gamma"), [(0.05, 16.9722), (0.10, 6.9372)])
def test_published_widths(sigma_rel, gamma):
    assert ema.gamma_of(sigma_rel) == pytest.approx(gamma, abs=5e-5)
    assert ema.PowerFunction.of_width(sigma_rel).sigma_rel == pytest.approx(sigma_rel, rel=1e-12)


@given(st.floats(0.001, 0.288))
def test_width_and_exponent_are_inverse(sigma_rel):
    assert ema.PowerFunction(ema.gamma_of(sigma_rel)).sigma_rel == pytest.approx(sigma_rel, rel=1e-9)


def test_the_widest_average_is_the_mean():
    assert ema.gamma_of(math.sqrt(1 / 12)) == pytest.approx(0.0, abs=1e-9)
    trajectory = walk(50)
    np.testing.assert_allclose(averaged(ema.PowerFunction(0.0), trajectory)[-1], trajectory.mean(0), rtol=1e-10)


@pytest.mark.parametrize("sigma_rel", [0.05, 0.1, 0.2])
def test_the_average_weighs_as_a_power_function(sigma_rel):
    """What each step counts, from the recursion, has the width it is named after and forgets the initial weights."""
    steps = 4000
    schedule = ema.PowerFunction.of_width(sigma_rel)
    shares = averaged(schedule, np.eye(steps))[-1]
    assert shares.sum() == pytest.approx(1.0, rel=1e-12)
    place = np.arange(1, steps + 1) / steps
    mean = shares @ place
    assert math.sqrt(shares @ (place - mean) ** 2) == pytest.approx(sigma_rel, rel=2e-3)
    np.testing.assert_allclose(
        shares[steps // 2] / shares[-1], 0.5**schedule.gamma, rtol=10 * schedule.gamma**2 / steps, atol=1e-12
    )


def snapshots(trajectory, widths, every):
    made = []
    for width in widths:
        schedule = ema.PowerFunction.of_width(width)
        for step, average in enumerate(averaged(schedule, trajectory), start=1):
            if step % every == 0:
                made.append(ema.Snapshot(ema.Profile(step, schedule.gamma), {"w": average, "b": average[:2] + 1}))
    return made


@pytest.mark.parametrize("at", [2000, 1000])
@pytest.mark.parametrize("width", [0.05, 0.1])
def test_a_stored_average_is_reconstructed_exactly(at, width):
    stored = snapshots(walk(2000), (0.05, 0.1), 250)
    (expected,) = [s.weights for s in stored if s.profile == (at, ema.gamma_of(width))]
    got = ema.reconstruct(stored, at, width)
    assert got.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-7)


@pytest.mark.parametrize(
    ("widths", "target", "share"),
    [((0.05, 0.1), 0.07, 5e-4), ((0.05, 0.1), 0.15, 5e-4), ((0.05,), 0.1, 0.1), ((0.1,), 0.05, 0.05)],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_other_averages_are_reconstructed_nearly(widths, target, share, seed):
    """Against the recursion itself, run with the other width over the same random trajectory.

    What is left is a share of the distance to the nearest stored average: tiny with two widths, some with one.
    """
    trajectory = walk(4000, seed, size=200)
    stored = snapshots(trajectory, widths, 125)
    expected = averaged(ema.PowerFunction.of_width(target), trajectory)[-1]
    got = ema.reconstruct(stored, 4000, target)["w"]
    nearest = min(np.linalg.norm(s.weights["w"] - expected) for s in stored)
    assert np.linalg.norm(got - expected) < share * nearest


def test_the_fit_is_the_least_squares_one():
    """Against profiles on a fine grid and NumPy's least squares, the last factor being 1 less the others; the error too."""
    stored = [ema.Profile(500, 7.0), ema.Profile(1000, 7.0), ema.Profile(800, 17.0)]
    target = ema.Profile(900, 10.0)
    tau = (np.arange(200_000) + 0.5) / 200

    def profile(p):
        return np.where(tau <= p.step, (p.gamma + 1) * (tau / p.step) ** p.gamma / p.step, 0.0)

    columns = np.stack([profile(p) for p in stored], axis=1)
    rest = columns[:, -1]
    expected = np.linalg.lstsq(columns[:, :-1] - rest[:, None], profile(target) - rest, rcond=None)[0]
    expected = np.append(expected, 1 - expected.sum())
    got = ema.fit(stored, target)
    np.testing.assert_allclose(got.factors, expected, rtol=1e-4)
    miss = np.linalg.norm(columns @ expected - profile(target)) / np.linalg.norm(profile(target))
    assert got.error == pytest.approx(miss, rel=1e-4)


@pytest.mark.parametrize("sigma_rel", [0.03, 0.1, 0.25])
def test_what_training_does_not_change_stays_as_it_is(sigma_rel):
    fixed = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    profiles = [ema.Profile(step, ema.gamma_of(0.1)) for step in range(100, 5001, 100)]
    got = ema.reconstruct([ema.Snapshot(p, {"w": fixed}) for p in profiles], 4321, sigma_rel)
    assert np.array_equal(got["w"], fixed)


def test_weights_are_added_up_in_double_precision_and_keep_their_dtype():
    first, second = {"w": np.float32([1.0, 2.0])}, {"w": np.float32([1.0, 2.0 - 1e-6])}
    got = ema.combine([1e6, 1 - 1e6], iter([first, second]))
    assert got["w"].dtype == np.float32
    np.testing.assert_array_equal(
        got["w"], (1e6 * first["w"].astype(float) + (1 - 1e6) * second["w"].astype(float)).astype("f4")
    )


@pytest.mark.parametrize("factors", [[0.5], [0.5, 0.2, 0.3]])
def test_each_average_needs_its_factor(factors):
    with pytest.raises(ValueError, match="one factor for each"):
        ema.combine(factors, iter([{"w": np.zeros(2)}, {"w": np.zeros(2)}]))


def test_networks_that_differ_cannot_be_combined():
    with pytest.raises(ValueError, match="different networks"):
        ema.combine([0.5, 0.5], [{"w": np.zeros(2)}, {"w": np.zeros(3)}])


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: ema.Constant(1.0), r"\[0, 1\)"),
        (lambda: ema.HalfLife(0.0), "must be positive"),
        (lambda: ema.HalfLife(5.0, batch=0), "must be positive"),
        (lambda: ema.HalfLife(5.0, ramp_up=0.0), "ramp-up"),
        (lambda: ema.WarmupPower(power=0.0), "must be positive"),
        (lambda: ema.WarmupPower(power=-1.0), "must be positive"),
        (lambda: ema.WarmupPower(inv_gamma=0.0), "must be positive"),
        (lambda: ema.WarmupPower(high=1.5), "low <= high"),
        (lambda: ema.WarmupPower(low=0.5, high=0.4), "low <= high"),
        (lambda: ema.PowerFunction(-0.5), "at least 0"),
        (lambda: ema.gamma_of(0.3), "at most 0.2887"),
        (lambda: ema.gamma_of(0.0), "at least 1e-06"),
        (lambda: ema.gamma_of(1e-200), "at least 1e-06"),
        (lambda: ema.fit([], ema.Profile(1, 1.0)), "no stored averages"),
        (lambda: ema.fit([ema.Profile(5, 1.0)], ema.Profile(6, 1.0)), "the last is at 5"),
        (lambda: ema.fit([ema.Profile(0, 1.0)], ema.Profile(1, 1.0)), "at least one step"),
        (lambda: ema.fit([ema.Profile(float("inf"), 1.0)], ema.Profile(1, 1.0)), "got Profile"),
        (lambda: ema.fit([ema.Profile(5, 1.0)], ema.Profile(5, float("nan"))), "got Profile"),
        (lambda: ema.fit([ema.Profile(float("nan"), 1.0)], ema.Profile(1, 1.0)), "got Profile"),
        (lambda: ema.fit([ema.Profile(5, float("inf"))], ema.Profile(5, 1.0)), "got Profile"),
        (lambda: ema.Average(ema=1.0), r"must be in \[0, 1\), got 1.0"),
        (lambda: ema.Average(ema=-0.1), r"must be in \[0, 1\), got -0.1"),
        (lambda: ema.Average(ema_std=0.5), "at most 0.2887"),
        (lambda: ema.Average(ema_halflife=-1.0), "must be positive"),
        (lambda: ema.Average(ema_power=-1.0), "must be positive"),
        (lambda: recipes.get("ct", ema_std=0.05, ema_halflife=10.0), "only one of ema_halflife and ema_std"),
    ],
)
def test_what_cannot_be_is_a_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


def test_the_least_that_can_be():
    assert ema.HalfLife(0.5).decay(10_000) == pytest.approx(0.25)
    assert ema.WarmupPower(low=0.3, high=0.3).decay(50) == 0.3
    np.testing.assert_allclose(ema.fit([ema.Profile(1, 0.0)], ema.Profile(1, 0.0)).factors, [1.0])


@pytest.mark.parametrize("stored", [None, 5, iter([ema.Profile(5, 1.0)]), ema.Profile(5, 1.0), [(5, 1.0)], ["5"]])
def test_what_describes_no_averages_is_a_sentence(stored):
    with pytest.raises(TypeError, match=r"a Profile\(step, gamma\), got|a list of Profile\(step, gamma\), got"):
        ema.fit(stored, ema.Profile(5, 1.0))


@pytest.mark.parametrize("name", ["ema", "ema_halflife", "ema_power", "ema_std"])
def test_a_setting_of_another_kind_is_a_sentence(name):
    with pytest.raises(TypeError, match=f"The average's {name} must be a number, got '0.1'."):
        ema.Average(**{name: "0.1"})


def test_the_settings_of_an_average():
    assert ema.Average() == ema.Average(0.999, ema_halflife=0.0, ema_power=0.0, ema_std=0.0)
    assert [ema.Average(0.9).scalars(k) for k in (0, 2, 500)] == [{"ema_decay": d} for d in (0.1, 0.25, 0.9)]
    assert ema.Average(0.0).scalars(100) == {"ema_decay": 0.0}
    for settings, schedule in (
        ({"ema_halflife": 30.0}, ema.HalfLife(30.0)),
        ({"ema_power": 0.75}, ema.WarmupPower(power=0.75)),
        ({"ema_std": 0.1}, ema.PowerFunction.of_width(0.1)),
    ):
        average = ema.Average(**settings)
        assert average.schedule() == schedule
        assert average.scalars(40) == {"ema_decay": schedule.decay(40)}
