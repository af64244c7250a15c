"""The paths against closed forms: Tweedie, the velocities of Gaussian data, and the unbiased score estimate."""

import math
from functools import partial

import numpy as np
import pytest
from exact import close, dtypes, mixture_denoiser
from scipy import integrate

from cmcore import paths

X0, Z = np.array([[0.3, -1.2], [0.8, 0.1], [-0.4, 0.6]]), np.array([[1.1, 0.2], [-0.7, 1.6], [0.5, -2.0]])
T = np.array([0.2, 0.5, 0.8])
PATHS = [paths.VE(), paths.Trigonometric(0.7), paths.Linear(), paths.VP(), paths.Cosine()]


def vp_signal(t):
    """``exp(-1/2 integral of beta)`` with beta from 0.1 to 20 in a straight line, by quadrature."""
    return np.array([math.exp(-0.5 * integrate.quad(lambda u: 0.1 + 19.9 * u, 0.0, s)[0]) for s in t])


A = {
    "VE": np.ones_like,
    "Trigonometric": np.cos,
    "Linear": lambda t: 1 - t,
    "VP": vp_signal,
    "Cosine": lambda t: np.cos(np.pi * t / 2),
}
B = {
    "VE": lambda t: t,
    "Trigonometric": np.sin,
    "Linear": lambda t: t,
    "VP": lambda t: np.sqrt(1 - vp_signal(t) ** 2),
    "Cosine": lambda t: np.sin(np.pi * t / 2),
}

each_path = pytest.mark.parametrize("path", PATHS, ids=lambda p: type(p).__name__)


def coefficients(path, t):
    name = type(path).__name__
    return A[name](t)[:, None], B[name](t)[:, None]


@each_path
@dtypes
def test_perturbed_points(lib, dtype, path):
    a, b = coefficients(path, T)
    got = path.perturb(lib.asarray(X0, dtype), lib.asarray(Z, dtype), lib.asarray(T, dtype))
    close(lib, got, a * X0 + b * Z, dtype)


def test_the_noise_has_the_datas_deviation_on_trigflows_path_and_one_elsewhere():
    assert [path.noise_std for path in (*PATHS, paths.Trigonometric())] == [1.0, 0.7, 1.0, 1.0, 1.0, 0.5]


@each_path
@dtypes
def test_coefficients_have_the_derivatives_they_claim(lib, dtype, path):
    t, h = lib.asarray(T, dtype), 1e-6
    for value, slope in ((A, path.da), (B, path.db)):
        f = value[type(path).__name__]
        np.testing.assert_allclose(lib.to_numpy(slope(t)), (f(T + h) - f(T - h)) / (2 * h), atol=1e-6)


@each_path
@dtypes
def test_gaussian_data_have_the_known_score_and_velocity(lib, dtype, path):
    # The law of x_t is N(a m, V) with V = a^2 c^2 + (b noise_std)^2; v = a' m + V' / (2 V) (x - a m) carries it along.
    mean, std, h = 0.4, 1.3, 1e-6

    def law(t):
        a, b = coefficients(path, t)
        return a * mean, (a * std) ** 2 + (b * path.noise_std) ** 2

    centre, variance = law(T)
    (centre_after, variance_after), (centre_before, variance_before) = law(T + h), law(T - h)
    velocity = (centre_after - centre_before) / (2 * h) + (variance_after - variance_before) / (4 * h * variance) * (
        X0 - centre
    )
    a, _ = coefficients(path, T)
    denoised = mean + a * std**2 / variance * (X0 - centre)

    x, t, d = lib.asarray(X0, dtype), lib.asarray(T, dtype), lib.asarray(denoised, dtype)
    close(lib, path.score(x, t, d), -(X0 - centre) / variance, dtype, scale=30.0)
    np.testing.assert_allclose(lib.to_numpy(path.velocity(x, t, d)), velocity, atol=5e-6, rtol=5e-6)


@dtypes
def test_a_path_of_ones_own_has_all_conversions(lib, dtype):
    # On the library's first three paths a' b - b' a is -1, so that dividing by it and multiplying by it are the same.
    class Fading(paths.Path):
        def a(self, t):
            return 1 / (1 + t)

        def b(self, t):
            return t**2

        def da(self, t):
            return -1 / (1 + t) ** 2

        def db(self, t):
            return 2 * t

        def time(self, sigma):
            raise NotImplementedError

    x, t, denoised = lib.asarray(X0, dtype), lib.asarray(T, dtype), lib.asarray(Z, dtype)
    a, b, da, db = 1 / (1 + T)[:, None], T[:, None] ** 2, -1 / (1 + T)[:, None] ** 2, 2 * T[:, None]
    velocity = da * Z + db * (X0 - a * Z) / b
    close(lib, Fading().velocity(x, t, denoised), velocity, dtype, scale=100.0)
    close(lib, Fading().denoiser_from_velocity(x, t, lib.asarray(velocity, dtype)), Z, dtype, scale=100.0)


@dtypes
def test_ve_velocity_is_minus_t_times_the_score(lib, dtype):
    x, t, d = lib.asarray(X0, dtype), lib.asarray(T, dtype), lib.asarray(Z, dtype)
    score = lib.to_numpy(paths.VE().score(x, t, d))
    close(lib, paths.VE().velocity(x, t, d), -T[:, None] * score, dtype, scale=10.0)
    close(lib, paths.VE().velocity(x, t, d), (X0 - Z) / T[:, None], dtype, scale=10.0)


@dtypes
def test_ve_diffusion_coefficient(lib, dtype):
    close(lib, paths.VE().diffusion(lib.asarray(T, dtype)), np.sqrt(2 * T), dtype)


def test_score_estimate_is_the_published_formula(lib):
    x_t = X0 + T[:, None] * Z
    got = paths.VE().score_estimate(lib.asarray(X0), lib.asarray(x_t), lib.asarray(T))
    close(lib, got, -(x_t - X0) / T[:, None] ** 2, str(lib.to_numpy(got).dtype), scale=10.0)


def test_score_estimate_is_unbiased():
    # Averaged over the data given x_t, it is the derivative of ln p_t, here by quadrature for a skewed mixture.
    means, stds, weights, t = np.array([-1.0, 1.2]), np.array([0.3, 0.5]), np.array([0.7, 0.3]), 0.6

    def prior(x0):
        return (weights * np.exp(-((x0 - means) ** 2) / (2 * stds**2)) / stds).sum()

    def marginal(x, g=lambda x0: 1.0):
        return integrate.quad(lambda u: prior(u) * np.exp(-((x - u) ** 2) / (2 * t**2)) * g(u), -6, 6, epsabs=1e-13)[0]

    for x in (-1.1, 0.1, 0.9):
        x_t = np.array([[x]])
        estimate = partial(lambda x_t, u: paths.VE().score_estimate(np.array([[u]]), x_t, t)[0, 0], x_t)
        mean_estimate = marginal(x, estimate) / marginal(x)
        h = 1e-4
        assert mean_estimate == pytest.approx((np.log(marginal(x + h)) - np.log(marginal(x - h))) / (2 * h), abs=1e-6)
        denoised = mixture_denoiser(x_t, np.array([t]), means, stds, weights)
        assert paths.VE().score(x_t, t, denoised)[0, 0] == pytest.approx(mean_estimate, abs=1e-9)


@each_path
def test_a_time_may_be_a_number_or_an_array_without_axes(lib, path):
    x, other = lib.asarray(X0, "float32"), lib.asarray(Z, "float32")
    expected = lib.to_numpy(path.velocity(x, lib.asarray([0.5] * 3, "float32"), other))
    for t in (0.5, np.float64(0.5), lib.asarray(0.5, "float32")):
        assert np.array_equal(lib.to_numpy(path.velocity(x, t, other)), expected)


@each_path
@dtypes
def test_the_time_of_a_noise_level_is_where_it_is(lib, dtype, path):
    sigma = np.array([0.002, 0.03, 1.0, 80.0])
    t = path.time(lib.asarray(sigma, dtype))
    assert (lib.to_numpy(t) <= path.end).all()
    np.testing.assert_allclose(lib.to_numpy(path.sigma(t)), sigma, rtol=1e-4 if dtype == "float32" else 1e-11)


@each_path
def test_a_number_has_the_coefficients_of_an_array(path):
    for function in (path.a, path.b, path.sigma, path.time):
        for t in T:
            assert type(function(float(t))) is float
            assert function(float(t)) == pytest.approx(function(np.array([t]))[0], rel=1e-14)
    assert path.transition(0.2, 0.5) == pytest.approx([v[0] for v in path.transition(T[:1], T[1:2])], rel=1e-14)


@each_path
@dtypes
def test_the_forward_process_leads_from_law_to_law(lib, dtype, path):
    s, t = (lib.asarray(v, dtype) for v in ([0.0, 0.1, 0.5], T))
    c, std = (lib.to_numpy(v).astype("float64") for v in path.transition(s, t))

    def law(t):
        a, b = (v[:, 0] for v in coefficients(path, t))
        return a * 0.4, (a * 1.3) ** 2 + (b * path.noise_std) ** 2

    (mean_s, variance_s), (mean_t, variance_t) = law(np.array([0.0, 0.1, 0.5])), law(T)
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(c * mean_s, mean_t, rtol=tolerance)
    np.testing.assert_allclose(c**2 * variance_s + std**2, variance_t, rtol=tolerance)


@dtypes
def test_vp_has_all_its_digits_where_there_is_little_noise(lib, dtype):
    t = np.array([1e-6, 1e-4, 1e-2])
    close(lib, paths.VP().b(lib.asarray(t, dtype)), np.sqrt(-np.expm1(-(19.9 * t**2 / 2 + 0.1 * t))), dtype)


def test_vp_ends_with_the_published_share_of_the_data():
    assert paths.VP().a(1.0) == pytest.approx(math.exp(-5.025), rel=1e-12)
    assert paths.VP(0.1, 0.1).time(paths.VP(0.1, 0.1).sigma(0.3)) == pytest.approx(0.3, rel=1e-12)


@pytest.mark.parametrize("betas", [(0.0, 20.0), (-1.0, 1.0), (2.0, 1.0), (0.1, math.inf), (math.nan, 1.0)])
def test_betas_that_cannot_be_are_a_sentence(betas):
    with pytest.raises(ValueError, match="positive, finite and in order, got beta_min"):
        paths.VP(*betas)


def test_a_path_says_all_it_must():
    with pytest.raises(TypeError, match="abstract"):
        paths.Path()
