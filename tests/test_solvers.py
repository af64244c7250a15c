"""Steps against the exact flow: measured order of convergence, the fall-back at time 0, the number of evaluations."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from exact import close, dtypes, gaussian_denoiser, gaussian_flow, mixture_denoiser
from scipy.integrate import solve_ivp

from cmcore import grids, oracles, solvers
from cmcore.paths import VE, VP, Cosine, Linear, Trigonometric, rebased

MEANS, STDS, WEIGHTS = np.array([-1.0, 0.8]), np.array([0.2, 0.3]), np.array([0.6, 0.4])


def mixture(x, t):
    return mixture_denoiser(x, np.broadcast_to(t[:, None], x.shape), MEANS, STDS, WEIGHTS)


def mixture_flow(x, t, s):
    """The exact flow, by a solver of order 8 that is not ours."""

    def slope(time, y):
        return ((y[:, None] - mixture(y[:, None], np.full(len(y), time))) / time)[:, 0]

    return solve_ivp(slope, (t, s), x[:, 0], method="DOP853", rtol=1e-12, atol=1e-12).y[:, -1:]


CUBE_ROOT_MIDPOINT = partial(solvers.dpm2, rho=3.0)
SECOND_ORDER = [solvers.heun, solvers.dpm2, CUBE_ROOT_MIDPOINT, solvers.dpmpp_2s]


@pytest.mark.parametrize("method", [solvers.heun, solvers.dpmpp_2m])
def test_a_trajectory_is_the_point_at_each_time(method):
    x, times = np.array([[-2.0], [0.4]]), (3.0, 2.0, 0.9, 0.0)
    points = solvers.trajectory(method, gaussian_denoiser(0.4, 0.7), x, times)
    assert points[0] is x
    assert len(points) == len(times)
    for i in range(1, len(times)):
        expected = solvers.solve(method, gaussian_denoiser(0.4, 0.7), x, times[: i + 1])
        np.testing.assert_array_equal(points[i], expected)


@pytest.mark.parametrize(("step", "order"), [(solvers.euler, 1.0), *((step, 2.0) for step in SECOND_ORDER)])
@pytest.mark.parametrize("data", ["gaussian", "mixture"])
def test_measured_order_of_convergence(step, order, data):
    x, t, s = np.array([[-2.0], [-0.3], [0.4], [1.9]]), 3.0, 0.3
    if data == "gaussian":
        denoiser, exact = gaussian_denoiser(0.4, 0.7), gaussian_flow(0.4, 0.7)(x, np.full(4, t), s)
    else:
        denoiser, exact = mixture, mixture_flow(x, t, s)
    sizes = np.array([40, 80, 160, 320])
    errors = [
        np.abs(solvers.solve(step, denoiser, x, grids.karras_host(n + 1, s, t)[::-1]) - exact).max() for n in sizes
    ]
    slope = -np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert slope == pytest.approx(order, abs=0.08)


@pytest.mark.parametrize("step", [solvers.euler, *SECOND_ORDER])
def test_measured_order_of_convergence_towards_noise(step):
    x, denoiser = np.array([[0.3], [1.4]]), gaussian_denoiser(0.4, 0.7)
    exact = gaussian_flow(0.4, 0.7)(x, np.full(2, 0.3), 3.0)
    coarse, fine = (
        np.abs(solvers.solve(step, denoiser, x, grids.karras_host(n + 1, 0.3, 3.0), towards_noise=True) - exact).max()
        for n in (100, 200)
    )
    assert np.log2(coarse / fine) == pytest.approx(1 if step is solvers.euler else 2, abs=0.08)


@dtypes
def test_euler_is_the_published_step(lib, dtype):
    x, t, r = np.array([[0.5, -1.0], [2.0, 0.3]]), np.array([2.0, 0.8]), np.array([1.5, 0.1])
    d = 0.3 * x + 0.1
    got = solvers.euler(lambda y, s: 0.3 * y + 0.1, *(lib.asarray(v, dtype) for v in (x, t, r)))
    close(lib, got, x + (r - t)[:, None] * (x - d) / t[:, None], dtype, scale=1.0)


@dtypes
def test_heun_is_the_published_step(lib, dtype):
    x, t, r = np.array([[0.5, -1.0], [2.0, 0.3]]), np.array([2.0, 0.8]), np.array([1.5, 0.1])

    def slope(y, s):
        return (y - (0.3 * y + 0.1 * s[:, None])) / s[:, None]

    first = slope(x, t)
    second = slope(x + (r - t)[:, None] * first, r)
    got = solvers.heun(lambda y, s: 0.3 * y + 0.1 * s[:, None], *(lib.asarray(v, dtype) for v in (x, t, r)))
    close(lib, got, x + (r - t)[:, None] * (first + second) / 2, dtype, scale=10.0)


def test_eulers_steps_with_one_prediction_compose_and_go_back(lib):
    """T16: DDIM's semigroup for a prediction that stays the same, and its inverse."""
    x, held = (lib.asarray(v, "float64") for v in (np.array([[1.5], [-0.2]]), np.array([[0.3], [0.8]])))

    def step(x, t, r):
        return solvers.euler(lambda x, t: held, x, t, r)

    direct = step(x, 3.0, 0.2)
    np.testing.assert_allclose(lib.to_numpy(step(step(x, 3.0, 1.1), 1.1, 0.2)), lib.to_numpy(direct), rtol=1e-12)
    np.testing.assert_allclose(lib.to_numpy(step(direct, 0.2, 3.0)), lib.to_numpy(x), rtol=1e-12)


@dtypes
def test_euler_on_data_of_one_point_is_exact(lib, dtype):
    # D is constant, so the path is straight: any step lands on it.
    x0, z = np.array([[0.5, -1.0], [2.0, 0.3]]), np.array([[1.0, -0.4], [0.2, -2.0]])
    t, r = np.array([80.0, 3.0]), np.array([0.1, 2.5])
    x_t = lib.asarray(x0 + t[:, None] * z, dtype)
    for step in (solvers.euler, *SECOND_ORDER):
        got = step(lambda y, s: lib.asarray(x0, dtype), x_t, lib.asarray(t, dtype), lib.asarray(r, dtype))
        close(lib, got, x0 + r[:, None] * z, dtype, scale=80.0)


@pytest.mark.parametrize("step", [solvers.dpm2, CUBE_ROOT_MIDPOINT])
@dtypes
def test_midpoint_steps_are_the_published_ones(lib, dtype, step):
    x, t, r = np.array([[0.5, -1.0], [2.0, 0.3]]), np.array([2.0, 0.8]), np.array([1.5, 0.1])

    def slope(y, s):
        return (y - (0.3 * y + 0.1 * s[:, None])) / s[:, None]

    middle = np.exp((np.log(t) + np.log(r)) / 2) if step is solvers.dpm2 else ((t ** (1 / 3) + r ** (1 / 3)) / 2) ** 3
    expected = x + (r - t)[:, None] * slope(x + (middle - t)[:, None] * slope(x, t), middle)
    got = step(lambda y, s: 0.3 * y + 0.1 * s[:, None], *(lib.asarray(v, dtype) for v in (x, t, r)))
    close(lib, got, expected, dtype, scale=10.0)


@dtypes
def test_dpmpp_2s_is_the_published_step(lib, dtype):
    """In the half-logarithm of the signal-to-noise ratio, lambda = -log t, as the paper writes it."""
    x, t, r = np.array([[0.5, -1.0], [2.0, 0.3]]), np.array([2.0, 0.8]), np.array([1.5, 0.1])

    def denoiser(y, s):
        return 0.3 * y + 0.1 * s[:, None]

    h = (-np.log(r) + np.log(t))[:, None]
    middle = np.exp(np.log(t) - h[:, 0] / 2)
    u = (middle / t)[:, None] * x - np.expm1(-h / 2) * denoiser(x, t)
    got = solvers.dpmpp_2s(denoiser, *(lib.asarray(v, dtype) for v in (x, t, r)))
    close(lib, got, (r / t)[:, None] * x - np.expm1(-h) * denoiser(u, middle), dtype, scale=10.0)


def test_a_midpoint_that_is_none_is_an_error():
    with pytest.raises(ValueError, match="rho must be positive"):
        solvers.dpm2(partial(pytest.fail, "no evaluation was due"), np.zeros((1, 1)), 1.0, 0.5, rho=0.0)


@dtypes
def test_the_cube_root_midpoint_needs_no_exception_at_time_zero(lib, dtype):
    x, denoiser = lib.asarray([[0.5], [2.0]], dtype), gaussian_denoiser(0.4, 0.7)
    host = lib.to_numpy(x)
    expected = host - 1.5 * _slope_at(host - (7 / 8) * 1.5 * _slope_at(host, 1.5), 1.5 / 8)
    close(lib, CUBE_ROOT_MIDPOINT(denoiser, x, 1.5, 0.0), expected, dtype, scale=1.0)


def _slope_at(x, t):
    return (x - gaussian_denoiser(0.4, 0.7)(x, np.full(len(x), t))) / t


@pytest.mark.parametrize("step", [solvers.heun, solvers.dpm2, solvers.dpmpp_2s])
@pytest.mark.parametrize("zero", ["number", "integer", "array", "batch"])
@dtypes
def test_a_step_to_time_zero_is_eulers(lib, dtype, zero, step):
    x = lib.asarray([[0.5, -1.0], [2.0, 0.3]], dtype)
    r = {"number": 0.0, "integer": 0, "array": lib.asarray(0.0, dtype), "batch": lib.asarray([0.0, 0.0], dtype)}[zero]
    denoiser = gaussian_denoiser(0.4, 0.7)
    got = lib.to_numpy(step(denoiser, x, 1.5, r))
    assert np.isfinite(got).all()
    assert np.array_equal(got, lib.to_numpy(solvers.euler(denoiser, x, 1.5, 0.0)))


@pytest.mark.parametrize("step", [solvers.heun, solvers.dpm2, solvers.dpmpp_2s])
@dtypes
def test_it_falls_back_only_where_the_time_is_zero(lib, dtype, step):
    x, denoiser = lib.asarray([[0.5], [2.0]], dtype), gaussian_denoiser(0.4, 0.7)
    got = lib.to_numpy(step(denoiser, x, 1.5, lib.asarray([0.0, 0.5], dtype)))
    assert got[0, 0] == lib.to_numpy(solvers.euler(denoiser, x, 1.5, 0.0))[0, 0]
    assert got[1, 0] == lib.to_numpy(step(denoiser, x, 1.5, 0.5))[1, 0]
    assert got[1, 0] != lib.to_numpy(solvers.euler(denoiser, x, 1.5, 0.5))[1, 0]


def test_the_teachers_sampler_makes_35_evaluations():
    calls = []

    def denoiser(x, t):
        calls.append(t)
        return gaussian_denoiser(0.0, 0.5)(x, t)

    times = [*grids.karras_host(18)[::-1].tolist(), 0.0]
    x = solvers.solve(solvers.heun, denoiser, np.array([[80.0], [-40.0]]), times)
    assert len(calls) == 35
    np.testing.assert_allclose(
        x, gaussian_flow(0.0, 0.5)(np.array([[80.0], [-40.0]]), np.full(2, 80.0), 0.0), rtol=0.06
    )


def test_solve_tells_its_callback_each_point():
    times, x = [3.0, 2.0, 1.0], np.array([[0.5]])
    seen = []
    last = solvers.solve(solvers.euler, gaussian_denoiser(0.0, 0.5), x, times, lambda i, y: seen.append((i, y)))
    assert [i for i, _ in seen] == [0, 1]
    points = [x, *(y for _, y in seen)]
    for (before, after), (t, r) in zip(pairwise(points), pairwise(times), strict=True):
        assert np.array_equal(after, solvers.euler(gaussian_denoiser(0.0, 0.5), before, t, r))
    assert last is seen[-1][1]


def test_two_times_are_one_step():
    x, denoiser = np.array([[0.5]]), gaussian_denoiser(0.0, 0.5)
    assert np.array_equal(solvers.solve(solvers.heun, denoiser, x, [3.0, 2.0]), solvers.heun(denoiser, x, 3.0, 2.0))


@pytest.mark.parametrize("times", [[], [80.0]])
def test_solving_needs_a_start_and_an_end(times):
    with pytest.raises(ValueError, match="at least two times"):
        solvers.solve(solvers.euler, partial(pytest.fail, "no evaluation was due"), np.zeros((1, 1)), times)


ELSEWHERE = [VP(), Cosine(), Linear(), Trigonometric(0.7)]
each_path = pytest.mark.parametrize("path", ELSEWHERE, ids=lambda p: type(p).__name__)


@each_path
@pytest.mark.parametrize(
    ("method", "order"), [(solvers.euler, 1.0), *((m, 2.0) for m in (*SECOND_ORDER, solvers.dpmpp_2m))]
)
def test_measured_order_of_convergence_on_every_path(path, method, order):
    law, x, (t, s) = oracles.Along(oracles.Gaussian(0.4, 0.7), path), np.array([[-2.0], [0.3], [1.9]]), (0.8, 0.2)
    exact, sizes = law.flow(x, t, s), np.array([40, 80, 160, 320])
    ends = [solvers.solve(method, law.denoiser, x, np.linspace(t, s, n + 1), path=path) for n in sizes]
    slope = -np.polyfit(np.log(sizes), np.log([np.abs(end - exact).max() for end in ends]), 1)[0]
    assert slope == pytest.approx(order, abs=0.15)


@each_path
@dtypes
def test_eulers_step_on_a_path_is_ddims(lib, dtype, path):
    """``x_r = a(r) D + b(r) z`` with the noise z that D says x_t holds (Song et al. 2021, DDIM, equation 12, eta = 0)."""
    x, t, r = np.array([[0.5, -1.0], [2.0, 0.3]]), np.array([0.8, 0.5]), np.array([0.6, 0.0])
    d, (a_t, b_t), (a_r, b_r) = 0.3 * x + 0.1, *((path.a(s)[:, None], path.b(s)[:, None]) for s in (t, r))
    expected = a_r * d + b_r * (x - a_t * d) / b_t
    x, t, r = (lib.asarray(v, dtype) for v in (x, t, r))
    got = solvers.solve(solvers.euler, lambda y, s: 0.3 * y + 0.1, x, (t, r), path=path)
    close(lib, got, expected, dtype, scale=30.0)


@each_path
def test_a_path_is_followed_in_points_of_its_own(path):
    law, x, times, seen = (
        oracles.Along(oracles.Gaussian(0.4, 0.7), path),
        np.array([[-2.0], [0.4]]),
        (0.8, 0.5, 0.0),
        [],
    )
    points = solvers.trajectory(solvers.heun, law.denoiser, x, times, path)
    end = solvers.solve(solvers.heun, law.denoiser, x, times, lambda i, y: seen.append((i, y)), path)
    assert points[0] is x
    np.testing.assert_array_equal(points[1], solvers.solve(solvers.heun, law.denoiser, x, times[:2], path=path))
    assert [i for i, _ in seen] == [0, 1]
    for point, (_, other) in zip(points[1:], seen, strict=True):
        np.testing.assert_array_equal(point, other)
    np.testing.assert_array_equal(points[-1], end)
    assert path.a(0.0) == 1.0  # so that the end is the data on every path
    levels = [path.sigma(t) for t in times]
    noise_levels = solvers.solve(solvers.heun, rebased(law.denoiser, path, VE()), x / path.a(0.8), levels)
    np.testing.assert_allclose(end, noise_levels, rtol=1e-12)


@each_path
@pytest.mark.parametrize(
    "method", [solvers.Ancestral(lambda i: np.ones((1, 1))), solvers.Churn(lambda i: np.ones((1, 1)))]
)
def test_fresh_noise_is_the_paths_own(path, method):
    law, x, times = oracles.Gaussian(0.4, 0.7), np.array([[1.3]]), (0.8, 0.5, 0.2)
    got = solvers.solve(method, oracles.Along(law, path).denoiser, x, times, path=path)
    there = solvers.solve(method, law.denoiser, x / path.a(0.8), [path.sigma(t) for t in times])
    np.testing.assert_allclose(got, path.a(0.2) * there, rtol=1e-10)


@pytest.mark.parametrize(
    ("path", "t", "sentence"),
    [
        (Linear(), 1.0, r"on the path Linear nothing of the data is left at t = 1\.0"),
        (Cosine(), 1, "nothing of the data is left"),
        (VP(), 1.5, r"path VP are from 0 to 1\.0, got 1\.5"),
        (Trigonometric(), 2.0, "path Trigonometric are from 0 to 1.57"),
    ],
)
def test_a_path_is_not_followed_from_where_it_is_not(path, t, sentence):
    with pytest.raises(ValueError, match=sentence):
        solvers.solve(solvers.euler, lambda x, t: x, np.ones((1, 1)), (t, 0.5), path=path)
