"""Denoiser, noise, score and velocity give one another exactly, on every path."""

import numpy as np
import pytest
from exact import TOLERANCE, dtypes
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from cmcore import oracles
from cmcore.paths import VE, VP, Cosine, Linear, Trigonometric
from cmcore.solvers import euler

# Times at which no factor of the path vanishes: the conversions divide by them.
PATHS = {
    "VE": (VE(), 0.05, 20.0),
    "Trigonometric": (Trigonometric(0.7), 0.1, 1.4),
    "Linear": (Linear(), 0.1, 0.9),
    "VP": (VP(), 0.05, 0.6),
    "Cosine": (Cosine(), 0.1, 0.9),
}
POINTS = npst.arrays("float64", (3, 2), elements=st.floats(-5, 5))


def times(low, high):
    return npst.arrays("float64", (3,), elements=st.floats(low, high))


def near(got, expected, dtype, scale):
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE[dtype] * scale)


@pytest.mark.spares_tinygrad  # test_dtype_and_device.py compares each of these functions with NumPy's
@pytest.mark.parametrize("name", PATHS)
@dtypes
@given(data=st.data())
def test_every_conversion_has_its_inverse(lib, name, dtype, data):
    path, low, high = PATHS[name]
    x, denoised, t = data.draw(POINTS), data.draw(POINTS), data.draw(times(low, high))
    x, denoised, t = (lib.asarray(v, dtype) for v in (x, denoised, t))
    expected = lib.to_numpy(denoised)
    for there, back in (
        (path.noise, path.denoiser_from_noise),
        (path.score, path.denoiser_from_score),
        (path.velocity, path.denoiser_from_velocity),
    ):
        near(lib.to_numpy(back(x, t, there(x, t, denoised))), expected, dtype, scale=200.0)
    # ... and the other way round, from values that are no denoiser's
    for back, there in (
        (path.denoiser_from_noise, path.noise),
        (path.denoiser_from_velocity, path.velocity),
        (path.denoiser_from_score, path.score),
    ):
        scale = 200.0 if there != path.score else 200.0 / low**2
        near(lib.to_numpy(there(x, t, back(x, t, denoised))), expected, dtype, scale)


@pytest.mark.spares_tinygrad  # test_dtype_and_device.py compares each of these functions with NumPy's
@pytest.mark.parametrize("name", PATHS)
@dtypes
@given(data=st.data())
def test_noise_and_data_make_the_point_and_its_velocity(lib, name, dtype, data):
    # If the denoiser knows x_0, the noise is z, and the velocity is the derivative of a x_0 + b z.
    path, low, high = PATHS[name]
    x0, z, t = data.draw(POINTS), data.draw(POINTS), data.draw(times(low, min(high, 2.0)))
    x0, z, t = (lib.asarray(v, dtype) for v in (x0, z, t))
    x_t = path.perturb(x0, z, t)
    near(lib.to_numpy(path.noise(x_t, t, x0)), lib.to_numpy(z), dtype, scale=200.0)
    da, db = (lib.to_numpy(d(t)).astype("float64")[:, None] for d in (path.da, path.db))
    near(lib.to_numpy(path.velocity(x_t, t, x0)), da * lib.to_numpy(x0) + db * lib.to_numpy(z), dtype, scale=200.0)


@dtypes
@given(data=st.data(), std=st.floats(0.1, 3.0), mean=st.floats(-2, 2))
def test_tweedie_for_gaussian_data(lib, dtype, data, std, mean):
    """T25: D = x + t^2 score, v = (x - D) / t, with score and D each from its own closed form."""
    x, t = data.draw(POINTS), data.draw(times(0.1, 20.0))
    score = -(x - mean) / (std**2 + t[:, None] ** 2)
    denoised = mean + std**2 / (std**2 + t[:, None] ** 2) * (x - mean)
    placed = lib.asarray(x, dtype), lib.asarray(t, dtype)
    near(lib.to_numpy(VE().denoiser_from_score(*placed, lib.asarray(score, dtype))), denoised, dtype, scale=50.0)
    near(lib.to_numpy(VE().score(*placed, lib.asarray(denoised, dtype))), score, dtype, scale=2000.0)
    near(lib.to_numpy(VE().velocity(*placed, lib.asarray(denoised, dtype))), -t[:, None] * score, dtype, scale=200.0)
    oracle = oracles.Gaussian(mean, std)
    near(lib.to_numpy(oracle.score(*placed)), score, dtype, scale=100.0)
    near(lib.to_numpy(oracle.denoiser(*placed)), denoised, dtype, scale=10.0)


@dtypes
@given(data=st.data())
def test_trainings_target_point_is_an_euler_step(lib, dtype, data):
    """Algorithm 3's ``x_0 + r z`` is an Euler step from x_t with the score estimate, whose denoiser is x_0 itself."""
    x0, z, t = data.draw(POINTS), data.draw(POINTS), data.draw(times(0.01, 80.0))
    r = t * data.draw(npst.arrays("float64", (3,), elements=st.floats(0.001, 1.0)))
    x0, z, t, r = (lib.asarray(v, dtype) for v in (x0, z, t, r))
    stepped = euler(lambda x, s: x0, VE().perturb(x0, z, t), t, r)
    near(lib.to_numpy(stepped), lib.to_numpy(VE().perturb(x0, z, r)), dtype, scale=400.0)
