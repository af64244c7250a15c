"""The distances against their formulas in NumPy."""

import numpy as np
import pytest
from exact import close, dtypes

from cmcore import distances

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((3, 2, 5)), RNG.standard_normal((3, 2, 5))
NORM = np.sqrt(((X - Y) ** 2).sum((1, 2)))


@dtypes
def test_l1_and_squared_l2_are_means_over_coordinates(lib, dtype):
    x, y = lib.asarray(X, dtype), lib.asarray(Y, dtype)
    close(lib, distances.l1(x, y), np.abs(X - Y).mean((1, 2)), dtype)
    close(lib, distances.squared_l2(x, y), ((X - Y) ** 2).mean((1, 2)), dtype)


@dtypes
def test_pseudo_huber_is_of_the_norm_of_the_sample(lib, dtype):
    x, y = lib.asarray(X, dtype), lib.asarray(Y, dtype)
    close(lib, distances.PseudoHuber(0.3)(x, y), np.sqrt(NORM**2 + 0.09) - 0.3, dtype)
    c = 0.00054 * np.sqrt(10)
    close(lib, distances.PseudoHuber()(x, y), np.sqrt(NORM**2 + c**2) - c, dtype)
    close(lib, distances.PseudoHuber(1e-12)(x, y), NORM, dtype)


@pytest.mark.parametrize(("shape", "c"), [((3, 32, 32), 0.0299298380), ((3, 64, 64), 0.0598596759)])
def test_pseudo_hubers_default_constant(shape, c):
    x = np.full((1, *shape), 0.1)
    norm = 0.1 * np.sqrt(x.size)
    assert distances.PseudoHuber()(x, np.zeros_like(x))[0] == pytest.approx(np.hypot(norm, c) - c, rel=1e-9)
    assert distances.PseudoHuber()(x, np.zeros_like(x))[0] != pytest.approx(np.hypot(norm, 1.1 * c) - 1.1 * c, rel=1e-5)


@dtypes
def test_elementwise_pseudo_huber_is_the_other_form(lib, dtype):
    x, y = lib.asarray(X, dtype), lib.asarray(Y, dtype)
    got = distances.ElementwisePseudoHuber(0.3)(x, y)
    close(lib, got, (np.sqrt((X - Y) ** 2 + 0.09) - 0.3).mean((1, 2)), dtype)
    assert distances.ElementwisePseudoHuber() == distances.ElementwisePseudoHuber(0.03)


@pytest.mark.parametrize("distance", [distances.PseudoHuber(0.03), distances.ElementwisePseudoHuber(0.03)])
def test_pseudo_hubers_do_not_cancel_at_small_distances(lib, distance):
    x, y = lib.asarray([[1e-5]], "float32"), lib.asarray([[0.0]], "float32")
    np.testing.assert_allclose(lib.to_numpy(distance(x, y)), 1e-10 / 0.06, rtol=1e-5)


ALL = [distances.l1, distances.squared_l2, distances.PseudoHuber(), distances.ElementwisePseudoHuber()]


@pytest.mark.parametrize("distance", ALL)
@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 3, 2, 2)])
def test_a_distance_is_zero_between_equals_and_one_number_a_sample(lib, distance, shape):
    x = lib.asarray(np.ones(shape), "float32")
    assert np.array_equal(lib.to_numpy(distance(x, x)), np.zeros(4))


@pytest.mark.parametrize("distance", ALL)
@dtypes
def test_a_distance_is_symmetric(lib, distance, dtype):
    x, y = lib.asarray(X, dtype), lib.asarray(Y, dtype)
    assert np.array_equal(lib.to_numpy(distance(x, y)), lib.to_numpy(distance(y, x)))


@pytest.mark.parametrize("distance", ALL)
def test_one_coordinate_needs_no_axis(lib, distance):
    x, y = lib.asarray(X[:, 0, :1], "float64"), lib.asarray(Y[:, 0, :1], "float64")
    flat = distance(lib.xp.reshape(x, (3,)), lib.xp.reshape(y, (3,)))
    assert np.array_equal(lib.to_numpy(flat), lib.to_numpy(distance(x, y)))


@pytest.mark.parametrize("make", [distances.PseudoHuber, distances.ElementwisePseudoHuber])
@pytest.mark.parametrize("c", [0.0, -1.0, float("nan")])
def test_the_constant_must_be_positive(make, c):
    with pytest.raises(ValueError, match="must be positive, got"):
        make(c)
