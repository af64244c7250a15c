"""Solvers that remember earlier steps or add noise: their orders, what they leave exactly right, and what they ask for."""

import math

import numpy as np
import pytest
from exact import close, dtypes, gaussian_denoiser, gaussian_flow
from scipy.integrate import quad
from scipy.interpolate import lagrange
from test_solvers import mixture, mixture_flow

from cmcore import grids, solvers

X = np.array([[-2.0], [-0.3], [0.4], [1.9]])
MEAN, STD = 0.4, 0.7
TIMES = [*grids.karras_host(8)[::-1].tolist(), 0.0]


def no_noise(i):
    raise AssertionError("noise was asked for")


def law(data):
    if data == "gaussian":
        return gaussian_denoiser(MEAN, STD), gaussian_flow(MEAN, STD)
    return mixture, lambda x, t, s: mixture_flow(x, t[0], s)


def measured_order(error, sizes):
    return -np.polyfit(np.log(sizes), np.log([error(n) for n in sizes]), 1)[0]


@pytest.mark.parametrize("data", ["gaussian", "mixture"])
def test_dpmpp_2m_has_order_2(data):
    denoiser, flow = law(data)
    exact = flow(X, np.full(4, 3.0), 0.3)

    def error(n):
        return np.abs(
            solvers.solve(solvers.dpmpp_2m, denoiser, X, grids.karras_host(n + 1, 0.3, 3.0)[::-1]) - exact
        ).max()

    assert measured_order(error, [100, 200, 400, 800]) == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize("data", ["gaussian", "mixture"])
def test_a_linear_multistep_method_has_its_order_once_it_is_started(order, data):
    """The slopes before the start are exact; a grid that is not uniform tells wrong integrals from right ones."""
    denoiser, flow = law(data)
    exact, method = flow(X, np.full(4, 3.0), 0.3), solvers.LMS(order)

    def error(n):
        times = grids.karras_host(n + 1, 0.3, 3.0)[::-1].tolist()
        points = [X, *(flow(X, np.full(4, 3.0), t) for t in times[1:order])]
        slopes = [(x - denoiser(x, np.full(4, t))) / t for x, t in zip(points, times, strict=False)]
        x, memory = points[-1], tuple(reversed(slopes[:-1]))
        for i in range(order - 1, n):
            x, memory = method.step(denoiser, x, times, i, memory)
        return np.abs(x - exact).max()

    assert measured_order(error, [100, 200, 400]) == pytest.approx(order, abs=0.15)


def test_the_coefficients_of_a_linear_multistep_method():
    """Against SciPy's interpolation and quadrature; a denoiser of zero makes the slope x / t."""
    times = [3.0, 2.1, 1.7, 1.2, 0.7]
    x, slopes = np.array([[1.3]]), (np.array([[0.4]]), np.array([[-1.1]]), np.array([[0.9]]))
    got, kept = solvers.lms.step(lambda x, t: 0.0 * x, x, times, 3, slopes)
    values = [1.3 / 1.2, 0.4, -1.1, 0.9]
    increment, _ = quad(lagrange(times[3::-1], values), 1.2, 0.7)
    np.testing.assert_allclose(got, x + increment, rtol=1e-12)
    assert [k.item() for k in kept] == values
    assert len(solvers.LMS(2).step(lambda x, t: 0.0 * x, x, times, 3, slopes)[1]) == 2


def test_few_evaluations_on_the_way_from_noise_are_better_spent_with_memory():
    z = np.array([[60.0], [-90.0], [130.0]])
    exact = gaussian_flow(0.0, 0.5)(z, np.full(3, 80.0), 0.0)

    def error(method, n):
        times = [*grids.karras_host(n)[::-1].tolist(), 0.0]
        return np.abs(solvers.solve(method, gaussian_denoiser(0.0, 0.5), z, times) - exact).max()

    # 35 evaluations each.
    assert error(solvers.dpmpp_2m, 35) < error(solvers.heun, 18) < error(solvers.euler, 35)
    assert error(solvers.lms, 35) < error(solvers.heun, 18)


@dtypes
def test_first_order_is_eulers(lib, dtype):
    x, denoiser = lib.asarray(X, dtype), gaussian_denoiser(MEAN, STD)
    expected = lib.to_numpy(solvers.solve(solvers.euler, denoiser, x, TIMES))
    close(lib, solvers.solve(solvers.LMS(1), denoiser, x, TIMES), expected, dtype, scale=10.0)
    for method in (solvers.dpmpp_2m, solvers.lms):
        first, memory = method.step(denoiser, x, TIMES, 0, ())
        close(lib, first, lib.to_numpy(solvers.euler(denoiser, x, *TIMES[:2])), dtype, scale=10.0)
        assert len(memory) == 1


@dtypes
@pytest.mark.parametrize("method", [solvers.dpmpp_2m, solvers.lms, "ancestral", "churn"])
def test_every_library_solves_down_to_time_zero(lib, dtype, method):
    noises = np.random.default_rng(0).standard_normal((len(TIMES), *X.shape))
    made = {"ancestral": solvers.Ancestral, "churn": solvers.Churn}

    def solved(asarray):
        chosen = made[method](lambda i: asarray(noises[i])) if method in made else method
        return solvers.solve(chosen, gaussian_denoiser(MEAN, STD), asarray(80 * X), TIMES)

    got = solved(lambda host: lib.asarray(host, dtype))
    assert np.isfinite(lib.to_numpy(got)).all()
    close(lib, got, solved(lambda host: host), dtype, scale=80.0)


def test_data_of_one_point_is_reached_exactly():
    for method in (solvers.dpmpp_2m, solvers.lms):
        got = solvers.solve(method, lambda x, t: 0.0 * x + 0.7, 80 * X, TIMES)
        np.testing.assert_allclose(got, 0.7, atol=1e-12)
    # The last step of dpmpp_2m is Euler's, to the denoiser's value; an extrapolation would go on to infinity in log t.
    x, memory = np.array([[0.5]]), (np.array([[9.0]]),)
    got, _ = solvers.dpmpp_2m.step(lambda x, t: 0.0 * x + 0.7, x, TIMES, len(TIMES) - 2, memory)
    np.testing.assert_allclose(got, 0.7, rtol=1e-15)


def linear_map(make, denoiser_scale, times):
    """Row vector of what a sampler makes of its start and of the noise of each step: it is linear for linear denoisers."""
    unit = np.eye(len(times))[:, :, None]
    method = make(lambda i: unit[i + 1])
    return solvers.solve(method, lambda x, t: denoiser_scale(t)[:, None] * x, unit[0], times)[:, 0]


def gaussian_scale(t):
    return STD**2 / (STD**2 + t**2)


def final_variance(make, times):
    start, *added = linear_map(make, gaussian_scale, times)
    return start**2 * (STD**2 + times[0] ** 2) + sum(a**2 for a in added)


@pytest.mark.parametrize(
    ("make", "order"),
    [
        (solvers.Ancestral, 1.0),
        (lambda noise: solvers.Ancestral(noise, eta=0.5), 1.0),
        (lambda noise: solvers.Churn(noise, s_churn=4.0), 2.0),
        (lambda noise: solvers.Churn(noise, s_churn=4.0, s_tmin=0.5, s_tmax=1.5), 2.0),
    ],
)
def test_the_law_at_the_end_is_the_datas_up_to_the_order(make, order):
    """The variance that the sampler leaves, exactly: no sampling error hides a wrong standard deviation of the noise."""

    def error(n):
        return abs(final_variance(make, grids.karras_host(n + 1, 0.3, 3.0)[::-1].tolist()) - STD**2 - 0.3**2)

    assert measured_order(error, [100, 200, 400, 800]) == pytest.approx(order, abs=0.1)
    assert error(800) < 5e-3 if order == 1 else error(800) < 1e-5


@pytest.mark.parametrize("eta", [1.0, 0.6, 0.0])
def test_ancestral_sampling_of_one_point_has_the_right_law_at_every_time(eta):
    # For data at 0 the denoiser is 0, and x at time r must have standard deviation r: no order, exactly.
    for last in range(2, 6):
        start, *added = linear_map(lambda noise: solvers.Ancestral(noise, eta), np.zeros_like, TIMES[:last])
        variance = start**2 * TIMES[0] ** 2 + sum(a**2 for a in added)
        assert math.sqrt(variance) == pytest.approx(TIMES[last - 1], rel=1e-12)


def test_ancestral_noise_is_the_published_one():
    t, r = 2.0, 0.8
    start, added = linear_map(solvers.Ancestral, gaussian_scale, [t, r])
    up = math.sqrt(r**2 * (t**2 - r**2) / t**2)
    down = math.sqrt(r**2 - up**2)
    assert added == pytest.approx(up, rel=1e-12)
    assert start == pytest.approx(1 + (down - t) / t * (1 - gaussian_scale(t)), rel=1e-12)


@pytest.mark.parametrize(
    ("settings", "gamma", "s_noise"),
    [
        ({"s_churn": 0.3, "s_noise": 1.007}, 0.15, 1.007),
        ({"s_churn": 40.0}, math.sqrt(2) - 1, 1.0),
        ({"s_churn": 0.3, "s_tmin": 2.5}, 0.0, 1.0),
        ({"s_churn": 0.3, "s_tmax": 1.9}, 0.0, 1.0),
    ],
)
def test_churn_is_the_published_step(settings, gamma, s_noise):
    t, r = 2.0, 0.8
    start, first, _ = linear_map(lambda noise: solvers.Churn(noise, **settings), gaussian_scale, [t, r, 0.0])
    hat = t + gamma * t

    def slope(x, time):
        return (x - gaussian_scale(time) * x) / time

    def heun(x):
        d = slope(x, hat)
        euler = x + (r - hat) * d
        return x + (r - hat) * (d + slope(euler, r)) / 2

    # What is added before the first step fares as the start does from there on.
    assert first == pytest.approx(start * s_noise * math.sqrt(hat**2 - t**2), rel=1e-12)
    one = solvers.Churn(lambda i: np.zeros((1, 1)), **settings).step(
        lambda x, s: gaussian_scale(s)[:, None] * x, np.ones((1, 1)), [t, r, 0.0], 0, ()
    )[0]
    np.testing.assert_allclose(one, heun(1.0), rtol=1e-12)


@dtypes
def test_without_churn_it_is_heuns_method(lib, dtype):
    x, denoiser = lib.asarray(X, dtype), gaussian_denoiser(MEAN, STD)
    got = solvers.solve(solvers.Churn(no_noise, s_churn=0.0), denoiser, x, TIMES)
    assert np.array_equal(lib.to_numpy(got), lib.to_numpy(solvers.solve(solvers.heun, denoiser, x, TIMES)))


def test_noise_is_asked_for_only_where_it_is_added():
    asked = []

    def noise(i):
        asked.append(i)
        return np.zeros_like(X)

    solvers.solve(solvers.Ancestral(noise), gaussian_denoiser(MEAN, STD), X, TIMES)
    assert asked == list(range(len(TIMES) - 2))  # none at the last step, which ends at time 0
    asked.clear()
    solvers.solve(solvers.Ancestral(no_noise, eta=0.0), gaussian_denoiser(MEAN, STD), X, TIMES)
    solvers.solve(solvers.Churn(noise, s_tmin=1.0, s_tmax=60.0), gaussian_denoiser(MEAN, STD), X, TIMES)
    assert asked == [i for i, t in enumerate(TIMES[:-1]) if 1.0 <= t <= 60.0]


def test_a_solver_serves_two_solutions_at_once():
    alone = solvers.solve(solvers.lms, gaussian_denoiser(MEAN, STD), X, TIMES)

    def nested(x, t):
        solvers.solve(solvers.lms, gaussian_denoiser(0.0, 1.0), x, TIMES[:4])
        return gaussian_denoiser(MEAN, STD)(x, t)

    assert np.array_equal(solvers.solve(solvers.lms, nested, X, TIMES), alone)


@pytest.mark.parametrize(
    "method", [solvers.dpmpp_2m, solvers.lms, solvers.Ancestral(no_noise), solvers.Churn(no_noise)]
)
def test_a_step_cannot_start_at_time_zero(method):
    with pytest.raises(ValueError, match="only the last one may be 0"):
        solvers.solve(method, gaussian_denoiser(MEAN, STD), X, [0.0, 0.0])


@pytest.mark.parametrize(
    "method", [solvers.dpmpp_2m, solvers.lms, solvers.Ancestral(no_noise), solvers.Churn(no_noise)]
)
@pytest.mark.parametrize("times", [[1.0, 2.0], [2.0, 2.0]])
def test_a_step_leads_from_noise_towards_data(method, times):
    with pytest.raises(ValueError, match=f"must decrease.* got a step from {times[0]} to {times[1]}"):
        solvers.solve(method, gaussian_denoiser(MEAN, STD), X, times)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: solvers.LMS(0), "order"),
        (lambda: solvers.Ancestral(no_noise, eta=-1.0), "eta"),
        (lambda: solvers.Churn(no_noise, s_churn=-1.0), "s_churn"),
        (lambda: solvers.Churn(no_noise, s_noise=-1.0), "s_noise"),
        (lambda: solvers.Churn(no_noise, s_noise=math.inf), "s_noise finite"),
        (lambda: solvers.Churn(no_noise, s_tmin=math.nan), "s_tmin must be at most s_tmax"),
        (lambda: solvers.Churn(no_noise, s_tmin=2.0, s_tmax=1.0), "s_tmin must be at most s_tmax"),
    ],
)
def test_settings_that_cannot_be_are_a_sentence(make, match):
    with pytest.raises(ValueError, match=match):
        make()


@pytest.mark.parametrize("order", [1.5, True, "2"])
def test_an_order_is_a_whole_number(order):
    with pytest.raises(TypeError, match="The order must be a whole number, got"):
        solvers.LMS(order)


def test_noise_that_does_not_fit_is_an_error():
    with pytest.raises(ValueError, match="x and the noise"):
        solvers.solve(solvers.Ancestral(lambda i: np.zeros((1, 1))), gaussian_denoiser(MEAN, STD), X, TIMES)


def test_the_noise_of_a_step_is_at_most_all_of_its_end():
    """Else the rest of it would be the square root of a negative number."""
    x = solvers.solve(solvers.Ancestral(lambda i: np.ones((4, 1)), eta=5.0), lambda x, t: 0.0 * x, X, (2.0, 1.0))
    np.testing.assert_allclose(x, np.ones((4, 1)))


def test_churn_acts_between_its_bounds_and_at_them():
    def ends(times, **settings):
        churn = solvers.Churn(lambda i: 0.0 * X, s_churn=1.0, s_noise=0.0, **settings)
        return solvers.solve(churn, lambda x, t: 0.5 * x / (1 + t[:, None]), X, times)

    plain = ends((2.0, 1.0), s_tmin=3.0)
    assert np.array_equal(plain, ends((2.0, 1.0), s_tmax=1.0))
    for bounds in ({"s_tmin": 2.0}, {"s_tmax": 2.0}):
        assert not np.allclose(plain, ends((2.0, 1.0), **bounds))
