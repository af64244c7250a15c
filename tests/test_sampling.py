"""The multistep sampler against the variances it must leave, exactly: it is linear for Gaussian data, so unit noises suffice."""

import math

import numpy as np
import pytest
from exact import close, dtypes

from cmcore import sampling

STD, EPS = 0.5, 0.002


def consistency(error):
    """The exact consistency function of N(0, STD^2), times 1 + error."""
    return lambda x, t: (1 + error) * math.sqrt((STD**2 + EPS**2) / (STD**2 + t**2)) * x


def standard_deviation(lib, error, times):
    # Sample i of this batch is fed the noise number i only; the squares of the answers add up to the variance.
    unit = np.eye(len(times))[:, :, None]
    z, *noises = (lib.asarray(unit[i], "float64") for i in range(len(times)))
    x = sampling.multistep(consistency(error), z, times, lambda i: noises[i], t_min=EPS)
    return math.sqrt((lib.to_numpy(x) ** 2).sum())


@pytest.mark.parametrize("tau", [0.2, 0.821, 5.0])
def test_an_exact_function_keeps_the_variance_of_the_data(lib, tau):
    # Fails if the noise has the standard deviation tau.
    start = math.sqrt(STD**2 + 80**2)  # from here on x is distributed as the process is
    assert standard_deviation(lib, 0.0, (start, tau, tau * 0.999)) == pytest.approx(math.hypot(STD, EPS), rel=5e-5)
    one = standard_deviation(lib, 0.0, (80.0,))
    assert standard_deviation(lib, 0.0, (80.0, tau)) == pytest.approx(
        math.sqrt((one**2 + tau**2 - EPS**2) * (STD**2 + EPS**2) / (STD**2 + tau**2)), rel=1e-12
    )


@pytest.mark.parametrize(
    ("tau", "distances"),
    [
        (0.821, [0.0250, 0.0313, 0.0329, 0.0332]),
        (5.0, [0.0250, 0.0252, 0.0252]),
        (0.2, [0.0250, 0.0454, 0.0619, 0.0752]),
    ],
)
def test_a_relative_error_grows_as_known(tau, distances):
    from conftest import Library

    import cmcore as cm

    numpy = Library("numpy", cm.load("numpy"))
    for steps, expected in enumerate(distances, start=1):
        # The published numbers repeat one time, which a sampler's times may not: shrink it by less than they show.
        times = (80.0, *(tau * (1 - 1e-7) ** i for i in range(steps - 1)))
        w2 = abs(standard_deviation(numpy, -0.05, times) - math.hypot(STD, EPS))
        assert w2 == pytest.approx(expected, abs=5.1e-5)


@dtypes
def test_one_step_is_the_multistep_sampler_with_one_time(lib, dtype):
    z = lib.asarray([[0.3, -1.0], [2.0, 0.4]], dtype)
    one = sampling.onestep(consistency(0.0), z)
    close(lib, one, consistency(0.0)(80.0 * lib.to_numpy(z), 80.0), dtype)
    many = sampling.multistep(consistency(0.0), z, (80.0,), lambda i: pytest.fail("one step adds no noise"))
    assert np.array_equal(lib.to_numpy(one), lib.to_numpy(many))


@dtypes
def test_the_function_sees_these_points_and_times(lib, dtype):
    seen = []

    def f(x, t, label):
        seen.append((lib.to_numpy(x), t, label))
        return 0.5 * x

    z = lib.asarray([[1.0], [-2.0]], dtype)
    noises = [lib.asarray([[0.5], [0.25]], dtype), lib.asarray([[-1.0], [3.0]], dtype)]
    got = []
    x = sampling.multistep(f, z, (40.0, 2.0, 0.5), noises.__getitem__, 0.1, lambda i, y: got.append((i, y)), label="7")

    points = [40 * np.array([[1.0], [-2.0]])]
    for noise, t in zip(noises, (2.0, 0.5), strict=True):
        points.append(0.5 * points[-1] + math.sqrt(t**2 - 0.01) * lib.to_numpy(noise))
    assert [(t, label) for _, t, label in seen] == [(40.0, "7"), (2.0, "7"), (0.5, "7")]
    for (point, _, _), expected in zip(seen, points, strict=True):
        np.testing.assert_allclose(point, expected, rtol=1e-6)
    assert [i for i, _ in got] == [0, 1, 2]
    for (_, answer), point in zip(got, points, strict=True):
        np.testing.assert_allclose(lib.to_numpy(answer), 0.5 * point, rtol=1e-6)
    assert got[-1][1] is x


def test_the_noise_is_that_above_the_papers_t_min_unless_told_otherwise():
    x = sampling.multistep(
        lambda x, t: 0.0 * x if t == 80.0 else x, np.ones((1, 1)), (80.0, 0.003), lambda i: np.ones((1, 1))
    )
    assert x[0, 0] == pytest.approx(math.sqrt(0.003**2 - 0.002**2), rel=1e-12)


def test_an_image_gets_the_same_noise_in_any_batch():
    shape = (2, 3)
    together = sampling.seeded_noise(5, range(6), shape)
    assert together.shape == (6, 2, 3)
    assert together.dtype == np.float32
    for i in range(6):
        assert np.array_equal(sampling.seeded_noise(5, [i], shape)[0], together[i])
    assert np.array_equal(sampling.seeded_noise(5, [4, 1], shape), together[[4, 1]])


def test_seed_image_and_draw_each_change_the_noise():
    noises = [sampling.seeded_noise(s, [i], (4,), d) for s in (0, 1) for i in (0, 1) for d in (0, 1)]
    assert len({n.tobytes() for n in noises}) == 8
    assert np.array_equal(sampling.seeded_noise(1, [1], (4,)), sampling.seeded_noise(1, [1], (4,), draw=0))


def test_seeded_noise_is_standard_normal():
    noise = sampling.seeded_noise(0, range(2000), (10,))
    assert noise.mean() == pytest.approx(0, abs=4 / math.sqrt(noise.size))
    assert noise.var() == pytest.approx(1, abs=4 * math.sqrt(2 / noise.size))
    assert np.abs(np.corrcoef(noise[:1000].ravel(), noise[1000:].ravel())[0, 1]) < 0.04


@pytest.mark.parametrize(
    ("times", "sentence"),
    [
        ((), "at least one time"),
        ((80.0, 80.0), "must decrease"),
        ((1.0, 2.0), "must decrease"),
        ((80.0, 0.002), "greater than t_min"),
        ((80.0, -1.0), "greater than t_min"),
        ((math.nan,), "greater than t_min"),
        ((math.inf, 1.0), "greater than t_min"),
    ],
)
def test_times_that_cannot_be_are_a_sentence(times, sentence):
    with pytest.raises(ValueError, match=sentence):
        sampling.multistep(consistency(0.0), np.zeros((1, 1)), times, lambda i: np.zeros((1, 1)))


def test_noise_that_does_not_fit_is_an_error(lib):
    z = lib.asarray(np.zeros((2, 3)), "float32")
    with pytest.raises(ValueError, match="must have the same shape"):
        sampling.multistep(consistency(0.0), z, (80.0, 1.0), lambda i: lib.asarray(np.zeros((1, 3)), "float32"))
