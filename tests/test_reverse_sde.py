"""Solvers of the reverse-time SDE: orders, exactness, distributions, and what noise they ask for; grids for samplers; clipping."""

import math

import numpy as np
import pytest
from exact import gaussian_denoiser
from scipy.integrate import quad
from scipy.interpolate import lagrange
from test_solvers import mixture, mixture_flow

from cmcore import grids, noise_levels, paths, sampling, solvers
from cmcore.solvers.reverse_sde import _weights

X = np.array([[-2.0], [-0.3], [0.4], [1.9]])
TIMES = [*grids.karras_host(12)[::-1].tolist(), 0.0]


def no_noise(i):
    raise AssertionError("noise was asked for")


def drawn(shape, seed=0):
    return lambda i: np.random.default_rng((seed, i)).standard_normal(shape)


@pytest.mark.parametrize(
    ("method", "order"),
    [
        (solvers.DPMppSDE(no_noise, eta=0.0), 2),
        *((solvers.DPMppMSDE(no_noise, order=k, eta=0.0), k) for k in (1, 2, 3)),
    ],
)
def test_without_noise_they_have_their_order(method, order):
    """On a mixture; a start of lower order costs what is left of a method of order 3."""
    exact = mixture_flow(X, 3.0, 0.3)

    def error(n):
        points = grids.karras_host(n + 1, 0.3, 3.0, rho=math.inf)[::-1].tolist()
        x, memory, first = X, (), 0
        if isinstance(method, solvers.DPMppMSDE) and order > 1:  # exact values before the start
            known = [X, *(mixture_flow(X, 3.0, t) for t in points[1:order])]
            values = [mixture(y, np.full(4, t)) for y, t in zip(known, points, strict=False)]
            x, memory, first = known[-1], tuple(reversed(values[:-1])), order - 1
        for i in range(first, n):
            x, memory = method.step(mixture, x, points, i, memory)
        return np.abs(x - exact).max()

    sizes = [200, 400, 800]
    assert -np.polyfit(np.log(sizes), np.log([error(n) for n in sizes]), 1)[0] == pytest.approx(order, abs=0.15)


def test_the_weights_are_the_integrals():
    """Against SciPy's interpolation and quadrature."""
    points, k, values = [0.0, -0.7, -2.1], 1.3, [0.4, -1.1, 0.9]
    polynomial = lagrange(points, values)
    expected, _ = quad(lambda u: k * math.exp(-k * (1 - u)) * polynomial(u), 0, 1, epsabs=1e-13)
    assert np.dot(_weights(points, k), values) == pytest.approx(expected, rel=1e-12)
    for k in (1e-8, 0.3, 21.0, 60.0):
        assert sum(_weights([0.0, -1.0, -2.0], k)) == pytest.approx(-math.expm1(-k), rel=1e-12)
        assert _weights([0.0], k)[0] == pytest.approx(-math.expm1(-k), rel=1e-12)


@pytest.mark.parametrize("eta", [0.5, 1.0])
@pytest.mark.parametrize("kind", ["single", "multi"])
def test_samples_have_the_distribution_of_the_data(kind, eta):
    """A Gaussian's deviation, in many steps; twice the noise, or a forgotten decay, is seen."""
    noise = drawn((40_000, 1))
    method = solvers.DPMppSDE(noise, eta) if kind == "single" else solvers.DPMppMSDE(noise, 3, eta)
    z = np.random.default_rng(7).standard_normal((40_000, 1))
    times = [*grids.karras_host(60)[::-1].tolist(), 0.0]
    x = sampling.ode(gaussian_denoiser(0.4, 0.7), z, times, method)
    assert x.mean() == pytest.approx(0.4, abs=0.02)
    assert x.std() == pytest.approx(0.7, rel=0.02)
    quiet = method.__class__(**{**vars(method), "s_noise": 0.0, "noise": no_noise})
    assert sampling.ode(gaussian_denoiser(0.4, 0.7), z, times, quiet).std() < 0.5


def test_the_middle_and_the_end_lie_on_one_path():
    """With a denoiser that is constant both halves of a step are what the whole is, in distribution: its variance is exact."""
    n, eta, t, r = 200_000, 0.8, 3.0, 0.9
    method = solvers.DPMppSDE(drawn((n, 1)), eta)
    x, _ = method.step(lambda x, t: 0.0 * x, np.zeros((n, 1)), [t, r], 0, ())
    assert x.std() == pytest.approx(r * math.sqrt(1 - (r / t) ** (2 * eta)), rel=0.01)


def test_what_settings_cannot_be():
    for settings in ({"eta": -1.0}, {"eta": math.inf}, {"s_noise": math.nan}):
        for method in (solvers.DPMppSDE, solvers.DPMppMSDE):
            with pytest.raises(ValueError, match="eta and s_noise"):
                method(no_noise, **settings)
    with pytest.raises(ValueError, match="order must be at least 1"):
        solvers.DPMppMSDE(no_noise, order=0)
    with pytest.raises(ValueError, match="s_noise must be"):
        solvers.Ancestral(no_noise, s_noise=-1.0)
    with pytest.raises(TypeError, match="The method must be a step"):
        solvers.Churn(no_noise, method=3)


@pytest.mark.parametrize("method", [solvers.euler, solvers.dpmpp_2m, solvers.lms])
def test_churn_of_any_method(method):
    """Without churn it is the method; with it, the noise is added before the step, which starts from there."""
    denoiser = gaussian_denoiser(0.4, 0.7)
    plain = solvers.solve(method, denoiser, X, TIMES)
    np.testing.assert_array_equal(solvers.solve(solvers.Churn(no_noise, 0.0, method=method), denoiser, X, TIMES), plain)
    gamma, noise = 0.1, drawn((4, 1))
    churn = solvers.Churn(noise, gamma * (len(TIMES) - 1), method=method)
    first, _ = churn.step(denoiser, X, TIMES, 0, ())
    t = TIMES[0]
    shaken = X + t * math.sqrt((1 + gamma) ** 2 - 1) * noise(0)
    np.testing.assert_allclose(first, solvers.solve(method, denoiser, shaken, [t * (1 + gamma), TIMES[1]]), rtol=1e-12)


def test_ancestral_noise_is_scaled():
    denoiser, one = gaussian_denoiser(0.4, 0.7), [np.ones((4, 1))]
    added = [
        solvers.Ancestral(lambda i: one[0], s_noise=s).step(denoiser, X, [2.0, 1.0], 0, ())[0] for s in (0.0, 1.0, 1.5)
    ]
    np.testing.assert_allclose(added[2] - added[0], 1.5 * (added[1] - added[0]), rtol=1e-12)
    np.testing.assert_allclose(added[1] - added[0], math.sqrt(1 - 0.25), rtol=1e-12)


def test_grids_of_samplers():
    np.testing.assert_allclose(noise_levels.exponential(9), grids.karras_host(9, rho=math.inf), rtol=1e-12)
    poly = noise_levels.polyexponential(5, 0.01, 10.0, rho=3.0)
    np.testing.assert_allclose(np.log10(poly), -2 + 3 * (np.arange(5) / 4) ** 3, rtol=1e-12)
    assert (poly[0], poly[-1]) == (0.01, 10.0)
    levels, s = noise_levels.vp(7), np.linspace(1e-3, 1, 7)
    np.testing.assert_allclose(levels, [float(paths.VP().sigma(t)) for t in s], rtol=1e-10)
    assert levels[-1] == pytest.approx(152, rel=0.01)
    for wrong in (
        lambda: noise_levels.exponential(1),
        lambda: noise_levels.polyexponential(4, 0.0),
        lambda: noise_levels.polyexponential(4, rho=0.0),
        lambda: noise_levels.vp(4, eps=0.0),
        lambda: noise_levels.vp(4, 0.0, 0.0),
    ):
        with pytest.raises(ValueError, match=r"got"):
            wrong()


def test_clipped_answers():
    f = sampling.clipped(lambda x, t, **cond: 3.0 * x, -1.0, 1.0)
    np.testing.assert_array_equal(f(np.array([[-2.0], [0.1], [5.0]]), np.ones(3)), [[-1.0], [3.0 * 0.1], [1.0]])
    x = sampling.onestep(f, X, t_max=1.0)
    assert np.abs(x).max() <= 1.0
    for low, high in ((1.0, -1.0), (math.nan, 1.0)):
        with pytest.raises(ValueError, match="clipped to"):
            sampling.clipped(lambda x, t: x, low, high)
