"""Golden values of the papers and of the authors' programs, exact end points, and traceable indices."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from exact import close, dtypes
from hypothesis import given
from hypothesis import strategies as st

import cmcore as cm
from cmcore import grids

KARRAS_18 = [
    80, 57.585985, 40.7856, 28.3746, 19.3525, 12.9101, 8.40094, 5.31519, 3.25682, 1.92334, 1.08817, 0.585348123,
    0.296442284, 0.139516, 0.0599473, 0.0229345, 0.00752801996, 0.002,
]  # fmt: skip


def test_karras_grid_has_the_published_values():
    np.testing.assert_allclose(grids.karras_host(18)[::-1], KARRAS_18, rtol=5e-6)
    descending = grids.karras_host(40)[::-1]
    np.testing.assert_allclose(
        descending[[1, 17, 18, 22, 38]], [69.450946, 4.3655617, 3.5196988, 1.382368, 0.0036765892], rtol=4e-8
    )
    assert grids.karras_host(151)[::-1][62] == pytest.approx(5.24850323, rel=1e-9)
    assert grids.karras_host(201)[::-1][106] == pytest.approx(1.91284362, rel=2e-9)


@given(
    n=st.integers(2, 2000),
    t_min=st.floats(1e-4, 1.0),
    span=st.floats(1.5, 1e5),
    rho=st.floats(0.5, 10.0),
)
def test_karras_grid_increases_between_exact_end_points(n, t_min, span, rho):
    grid = grids.karras_host(n, t_min, t_min * span, rho)
    assert grid.shape == (n,)
    assert grid.dtype == np.float64
    assert (grid[0], grid[-1]) == (t_min, t_min * span)
    assert np.all(np.diff(grid) > 0)


@dtypes
def test_karras_grid_lies_beside_its_companion(lib, dtype):
    grid = grids.karras(18, like=lib.asarray([0.0], dtype))
    close(lib, grid, grids.karras_host(18), dtype)
    host = lib.to_numpy(grid)
    assert host[0] == np.dtype(dtype).type(0.002)
    assert host[-1] == 80


def test_karras_grid_without_companion_is_float32_of_the_default_backend(lib):
    with cm.using(lib.backend.name):
        grid = grids.karras(5)
    assert lib.backend.owns(grid)
    assert lib.to_numpy(grid).dtype == np.float32
    close(lib, grid, grids.karras_host(5), "float32")


@dtypes
def test_every_grid_takes_its_own_range_and_exponent(lib, dtype):
    ends, n = (0.1, 10.0, 3.0), 6
    grid = (0.1 ** (1 / 3) + np.arange(n) / (n - 1) * (10 ** (1 / 3) - 0.1 ** (1 / 3))) ** 3
    close(lib, grids.karras(n, *ends, like=lib.asarray([0.0], dtype)), grid, dtype)
    close(lib, grids.karras_time(lib.asarray(np.arange(float(n)), dtype), n, *ends), grid, dtype)
    pair = grids.uniform_pair(lib.asarray((np.arange(n - 1) + 0.5) / (n - 1), dtype), n, *ends)
    close(lib, pair.r, grid[:-1], dtype)
    close(lib, pair.t, grid[1:], dtype)


@dtypes
def test_time_at_an_index_agrees_with_the_grid_and_is_exact_at_its_ends(lib, dtype):
    index = lib.asarray(np.arange(18.0), dtype)
    close(lib, grids.karras_time(index, 18), grids.karras_host(18), dtype)
    close(lib, grids.karras_time(index, lib.asarray(18.0, dtype)), grids.karras_host(18), dtype)
    ends = lib.to_numpy(grids.karras_time(lib.asarray([0.0, 17.0], dtype), 18))
    assert list(ends) == [np.dtype(dtype).type(0.002), 80]


@dtypes
def test_time_at_a_fractional_index_follows_the_formula(lib, dtype):
    index = np.array([0.25, 3.5, 16.9])
    low, high = 0.002 ** (1 / 7), 80 ** (1 / 7)
    expected = (low + index / 17 * (high - low)) ** 7
    close(lib, grids.karras_time(lib.asarray(index, dtype), 18), expected, dtype)


@dtypes
def test_uniform_pair_gives_every_interval_its_share(lib, dtype):
    n = 6
    u = (np.arange(1000) + 0.5) / 1000
    pair = grids.uniform_pair(lib.asarray(u, dtype), lib.asarray(float(n), dtype))
    grid = grids.karras_host(n)
    interval = np.floor(u * (n - 1)).astype(int)
    close(lib, pair.r, grid[interval], dtype)
    close(lib, pair.t, grid[interval + 1], dtype)
    close(lib, pair.gap, np.diff(grid)[interval], dtype)
    assert np.bincount(interval).tolist() == [200] * 5


@dtypes
def test_uniform_pair_stays_on_the_grid_for_random_numbers_rounded_to_one(lib, dtype):
    below_one = np.nextafter(np.dtype(dtype).type(1), np.dtype(dtype).type(0))
    for n in (2.0, 18.0, 1281.0):
        t, r, gap = (lib.to_numpy(v) for v in grids.uniform_pair(lib.asarray([0.0, below_one, 1.0], dtype), n))
        assert r[0] == np.dtype(dtype).type(0.002)
        assert t[1] == t[2] == 80
        assert r[1] == r[2] < 80
        assert (gap > 0).all()


def test_lognormal_pmf_has_the_published_values():
    expected = [0.062633, 0.181737, 0.245501, 0.213494, 0.142446, 0.080605, 0.041080, 0.019580, 0.008944, 0.003980]
    np.testing.assert_allclose(grids.lognormal_index_pmf(11), expected, atol=5e-7)


def test_lognormal_pmf_is_a_law_with_the_published_moments():
    pmf = grids.lognormal_index_pmf(1281)
    assert pmf.shape == (1280,)
    assert pmf.sum() == pytest.approx(1.0, abs=1e-14)
    logs = np.log(grids.karras_host(1281))
    middle = (logs[1:] + logs[:-1]) / 2
    mean = (pmf * middle).sum()
    assert mean == pytest.approx(-1.088, abs=1e-3)
    assert math.sqrt((pmf * (middle - mean) ** 2).sum()) == pytest.approx(1.934, abs=1e-3)


@dtypes
def test_lognormal_times(lib, dtype):
    normal = np.array([-2.0, 0.0, 1.5])
    close(lib, grids.lognormal_time(lib.asarray(normal, dtype)), np.exp(-1.2 + 1.2 * normal), dtype)
    close(lib, grids.lognormal_time(lib.asarray(normal, dtype), -1.1, 2.0), np.exp(-1.1 + 2.0 * normal), dtype)


ECT_R = {
    1.0: [0, 0.212117, 0.606059, 0.803029, 0.901515, 0.950757, 0.975379, 0.987689],
    5.0: [2.366143, 3.683071, 4.341536, 4.670768, 4.835384, 4.917692, 4.958846, 4.979423],
    80.0: [40, 60, 70, 75, 77.5, 78.75, 79.375, 79.6875],
}


@dtypes
def test_ect_pair_has_the_published_values(lib, dtype):
    t = lib.asarray(list(ECT_R), dtype)
    for stage in (0, 1, 2, 7):
        pair = grids.ect_pair(t, lib.asarray(float(stage), dtype))
        expected = np.array([r[stage] for r in ECT_R.values()])
        np.testing.assert_allclose(lib.to_numpy(pair.r), expected, atol=1e-6, rtol=1e-6)
        np.testing.assert_allclose(lib.to_numpy(pair.gap), np.array(list(ECT_R)) - expected, atol=1e-6, rtol=1e-6)


def test_ect_pair_by_other_factors():
    t = np.array([1.0, 80.0])
    np.testing.assert_allclose(grids.ect_pair(t, 1.0, q=4.0).r[0], 0.803029, atol=5e-7)
    np.testing.assert_allclose(grids.ect_pair(t, 0.0, q=256.0).r, [0.987689, 79.6875], atol=5e-7)
    for stage in range(4):  # q = 4 does in one stage what q = 2 does in two
        np.testing.assert_allclose(grids.ect_pair(t, stage, q=4.0).r, grids.ect_pair(t, 2 * stage + 1).r, rtol=1e-14)
    np.testing.assert_allclose(grids.ect_pair(t, 1.0, k=0.0).r, 0.75 * t, rtol=1e-15)  # the constant map


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_ect_gap_has_no_cancellation_in_single_precision(lib, stage):
    t = np.geomspace(0.002, 80, 33)
    exact = t * (1 + 8 / (1 + np.exp(t))) / 256.0 ** (stage + 1)
    pair = grids.ect_pair(lib.asarray(t, "float32"), float(stage), q=256.0)
    np.testing.assert_allclose(lib.to_numpy(pair.gap), exact, rtol=2e-6)
    assert np.all(lib.to_numpy(pair.r) <= lib.to_numpy(pair.t))


def test_progressive_curriculum_has_the_published_sizes():
    curriculum = grids.Progressive(2, 150, 0.9)
    steps = {0: 2, 1: 3, 1000: 6, 100_000: 54, 400_000: 107, 800_000: 151}
    assert {k: curriculum(k, 800_000)["n"] for k in steps} == steps


def test_progressive_curriculum_from_another_size():
    # By hand: at 3/32 of training the root is that of 64. A start of 2, whose square is its double, would not tell.
    sizes = {0: 5, 3: 8, 16: 16, 32: 21}
    assert {k: grids.Progressive(5, 20)(k, 32)["n"] for k in sizes} == sizes


def test_progressive_curriculum_of_one_interval():
    assert [grids.Progressive(1, 1)(k, 10)["n"] for k in (0, 5, 10)] == [2, 2, 2]


@pytest.mark.parametrize(
    ("s1", "mu0", "total", "step", "n", "mu_code"),
    [
        (200, 0.95, 800_000, 0, 2, 0.9025),
        (200, 0.95, 800_000, 800, 7, 0.98304757),
        (200, 0.95, 800_000, 8000, 21, 0.9948838),
        (200, 0.95, 800_000, 80_000, 64, 0.99837297),
        (200, 0.95, 800_000, 400_000, 143, 0.99927782),
        (200, 0.95, 800_000, 800_000, 201, 0.9994872),
        (150, 0.95, 1_000_000, 1000, 6, 0.97969173),
        (150, 0.95, 1_000_000, 500_000, 107, 0.99903267),
        (150, 0.9, 800_000, 800, 6, 0.95873152),
        (150, 0.9, 800_000, 80_000, 48, 0.99552661),
        (150, 0.9, 800_000, 800_000, 151, 0.99859618),
    ],
)
def test_progressive_curriculum_by_the_authors_programs(s1, mu0, total, step, n, mu_code):
    values = grids.Progressive(2, s1, mu0, convention="code")(step, total)
    assert values == {"n": n, "target_decay": pytest.approx(mu_code, abs=6e-9)}


def test_progressive_curriculum_as_printed():
    curriculum = grids.Progressive(2, 200, 0.95)
    expected = {0: 0.95, 1: 0.95 ** (2 / 3), 400_000: 0.99928287, 800_000: 0.99948975}
    for step, mu in expected.items():
        assert curriculum(step, 800_000)["target_decay"] == pytest.approx(mu, abs=6e-9)


def test_progressive_curriculum_with_fixed_mu():
    curriculum = grids.Progressive(2, 150, 0.9, adaptive=False)
    assert [curriculum(k, 800_000)["target_decay"] for k in (0, 800_000)] == [0.9, 0.9]


@pytest.mark.parametrize(
    "curriculum",
    [grids.Progressive(), grids.Progressive(convention="code"), grids.Doubling(), grids.Stages(), grids.Halving(8)],
)
def test_a_curriculum_stays_where_it_ended(curriculum):
    assert curriculum(5000, 1000) == curriculum(1000, 1000)


def test_doubling_curriculum_has_the_published_sizes():
    sizes = [grids.Doubling()(50_000 * i, 400_000)["n"] for i in range(8)]
    assert sizes == [11, 21, 41, 81, 161, 321, 641, 1281]
    assert grids.Doubling()(49_999, 400_000)["n"] == 11
    assert grids.Doubling()(400_000, 400_000)["n"] == 1281


def test_doubling_curriculum_rounds_as_printed():
    # floor(1279 / 10) = 127 intervals' worth of doublings: K' = floor(8000 / (log2(127) + 1)) = 1001.
    assert [grids.Doubling(10, 1279)(k, 8000)["n"] for k in (1000, 1001)] == [11, 21]


def test_doubling_curriculum_of_a_run_shorter_than_its_doublings():
    assert [grids.Doubling()(k, 3)["n"] for k in range(4)] == [11, 21, 41, 81]


def test_stages_are_equally_long():
    assert [grids.Stages(4)(k, 100)["stage"] for k in range(100)] == [*[0] * 25, *[1] * 25, *[2] * 25, *[3] * 25]


def test_there_are_eight_stages_unless_told_otherwise():
    assert grids.Stages()(999, 1000) == {"stage": 7.0}


def test_the_least_curricula():
    assert grids.Fixed(2, 1.0)(0, 1) == {"n": 2.0, "target_decay": 1.0}
    assert [grids.Doubling(1, 1)(k, 1)["n"] for k in (0, 1)] == [2.0, 2.0]
    assert grids.Stages(1)(0, 1) == {"stage": 0.0}
    assert grids.Halving(2)(0, 1) == {"n": 1.0, "target_decay": 0.0}


def test_fixed_curriculum_does_not_depend_on_the_step():
    assert grids.Fixed()(7, 100) == {"n": 18.0, "target_decay": 0.0}
    assert grids.Fixed(40, 0.95)(7, 100) == {"n": 40.0, "target_decay": 0.95}


@pytest.mark.parametrize(
    "make",
    [
        lambda: grids.karras_host(1),
        lambda: grids.karras_host(18, 0.0),
        lambda: grids.karras_host(18, 80.0, 0.002),
        lambda: grids.karras_host(18, 80.0, 80.0),
        lambda: grids.karras_host(18, rho=0.0),
        lambda: grids.karras_host(18, math.nan),
        lambda: grids.karras_time(np.array([1.0]), 18, t_max=math.inf),
        lambda: grids.karras_time(np.array([1.0]), 18, rho=0.0),
        lambda: grids.Progressive(s0=0),
        lambda: grids.Progressive(s0=20, s1=10),
        lambda: grids.Progressive(mu0=1.0),
        lambda: grids.Progressive(convention="report"),
        lambda: grids.Progressive()(5, 0),
        lambda: grids.Progressive()(-1, 10),
        lambda: grids.Fixed(1),
        lambda: grids.Fixed(mu=1.5),
        lambda: grids.Doubling(0),
        lambda: grids.Doubling(10, 5),
        lambda: grids.Doubling()(5, 0),
        lambda: grids.Halving()(5, 0),
        lambda: grids.Stages(0),
        lambda: grids.Stages()(5, -1),
    ],
)
def test_a_grid_that_cannot_be_is_a_sentence(make):
    with pytest.raises(ValueError, match=r"^[A-Z\"a-z].* got .*\.$"):
        make()


def test_lognormal_pairs_have_the_probabilities_of_their_law(lib):
    """The intervals that evenly spread uniform numbers fall into, for an N below the size of the table."""
    n, count = 11, 20000
    u = (np.arange(count) + 0.5) / count
    pair = grids.lognormal_index_pair(lib.asarray(u, "float64"), lib.asarray(float(n), "float64"), 41)
    t, r = lib.to_numpy(pair.t), lib.to_numpy(pair.r)
    grid = grids.karras_host(n)
    index = np.abs(grid - t[:, None]).argmin(axis=1) - 1  # the nearest: a library may round a time up
    np.testing.assert_allclose(t, grid[index + 1], rtol=1e-12)
    np.testing.assert_allclose(r, grid[index], rtol=1e-12)
    share = np.bincount(index, minlength=n - 1) / count
    np.testing.assert_allclose(share, grids.lognormal_index_pmf(n), atol=1.0 / count)


def test_lognormal_pairs_of_another_law():
    """And of a grid as large as the table."""
    n, count, law = 6, 20000, {"mean": -0.4, "std": 0.7, "t_min": 0.1, "t_max": 5.0}
    u = (np.arange(count) + 0.5) / count
    t = grids.lognormal_index_pair(u, float(n), n, **law).t
    grid = grids.karras_host(n, 0.1, 5.0)
    cdf = np.array([NormalDist(-0.4, 0.7).cdf(math.log(point)) for point in grid])
    share = np.array([np.isclose(t, point).mean() for point in grid[1:]])
    np.testing.assert_allclose(share, np.diff(cdf) / (cdf[-1] - cdf[0]), atol=1.0 / count)


def test_lognormal_pairs_stay_on_the_grid(lib):
    u = lib.asarray(np.array([0.0, np.nextafter(np.float32(1), np.float32(0))]), "float32")
    pair = grids.lognormal_index_pair(u, lib.asarray(3.0, "float32"), 11)
    np.testing.assert_allclose(lib.to_numpy(pair.r), grids.karras_host(3)[:2], rtol=1e-5)


def test_heavy_tailed_times_follow_the_truncated_student_law(lib):
    from scipy import stats

    law = stats.t(df=0.01, loc=0.0, scale=0.2)
    low, high = law.cdf(np.log(1.0)), law.cdf(np.log(80.0))
    u = np.array([0.0, 0.01, 0.1, 0.3, 0.5, 0.8, 0.99])
    t = lib.to_numpy(grids.heavy_tailed_time(lib.asarray(u, "float64"), 1.0, 80.0))
    np.testing.assert_allclose((law.cdf(np.log(t)) - low) / (high - low), u, atol=2e-4)
    assert t.min() >= 1.0
    assert t.max() <= 80.0


def test_logistic_times(lib):
    got = lib.to_numpy(grids.logistic_time(lib.asarray(np.array([-1.0, 0.0, 2.0]), "float64"), -0.4, 1.5))
    np.testing.assert_allclose(got, 1 / (1 + np.exp(-(-0.4 + 1.5 * np.array([-1.0, 0.0, 2.0])))), rtol=1e-13)
    standard = lib.to_numpy(grids.logistic_time(lib.asarray(np.array([0.0, 2.0]), "float64")))
    np.testing.assert_allclose(standard, [0.5, 1 / (1 + math.exp(-2.0))], rtol=1e-12)


def test_the_middle_and_the_slope_of_the_grid(lib):
    grid = grids.karras_host(5)
    t, r = lib.asarray(grid[4:], "float64"), lib.asarray(grid[2:3], "float64")
    np.testing.assert_allclose(lib.to_numpy(grids.karras_midpoint(t, r)), grid[3:4], rtol=1e-12)
    u = np.array([0.2, 0.7])
    at = [lib.to_numpy(grids.karras_time(lib.asarray(u + h, "float64"), 2)) for h in (-1e-6, 0.0, 1e-6)]
    slope = lib.to_numpy(grids.karras_slope(lib.asarray(at[1], "float64")))
    np.testing.assert_allclose(slope, (at[2] - at[0]) / 2e-6, rtol=1e-7)


def test_halving_ends_at_one_step_and_hands_over_between_stages():
    values = [grids.Halving(8)(k, 12) for k in range(12)]
    assert [v["n"] for v in values] == [4.0] * 4 + [2.0] * 4 + [1.0] * 4
    assert [v["target_decay"] for v in values] == ([1.0] * 3 + [0.0]) * 3
    with pytest.raises(ValueError, match="power of 2"):
        grids.Halving(12)


@pytest.mark.parametrize("stage", [0.0, 9.0])
def test_the_gap_of_ect_has_a_lower_bound_where_asked_for(lib, stage):
    t = lib.asarray(np.array([0.1, 80.0]), "float64")
    got = lib.to_numpy(grids.ect_pair(t, stage, k=0.0, min_gap=0.004).gap)
    np.testing.assert_allclose(got / np.array([0.1, 80.0]), max(2.0 ** -(stage + 1), 0.004), rtol=1e-12)
