"""Networks of other conventions as EDM's: the denoiser is what the path's own formulas say, on every backend."""

import numpy as np
import pytest

import cmcore as cm
from cmcore.networks import Adapted, ResidualConv, ResidualMLP, from_config, to_config
from cmcore.networks.clocks import clock_of, cosine, linear, ratios
from cmcore.parametrization import EDM, ConsistencyFunction, Prediction
from cmcore.testing._tools import random_weights

NUMPY = cm.load("numpy")
INNER = ResidualConv((1, 4, 4), width=8, multipliers=(1,), blocks=1, groups=2, features=8)
SIGMAS = np.array([0.003, 0.2, 1.0, 9.0, 70.0])


def denoised(architecture, weights, x, sigma, backend=NUMPY, dtype="float64"):
    net = backend.network(architecture, weights, dtype=dtype)
    sd = getattr(architecture, "sigma_data", 0.5)
    D = ConsistencyFunction(net, EDM(sd))
    return backend.to_numpy(D(backend.asarray(x, dtype), backend.asarray(sigma, dtype)))


def given(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((5, 1, 4, 4)) * (0.25 + SIGMAS[:, None, None, None] ** 2) ** 0.5
    inner = random_weights(INNER)
    return x, inner, {f"net.{name}": w for name, w in inner.items()}


@pytest.mark.parametrize("predicts", ["noise", "denoiser"])
def test_a_predictor_on_the_vp_path_is_the_denoiser_that_the_path_makes_of_it(predicts):
    x, inner, weights = given()
    path = cm.paths.VP(0.1, 20.0)
    net = NUMPY.network(INNER, inner, dtype="float64")
    on_path = cm.paths.rebased(ConsistencyFunction(net, Prediction(path, predicts, 999.0)), path, cm.paths.VE())
    for sigma_data in (0.5, 1.3):
        adapted = Adapted(INNER, predicts, "vp", (0.1, 20.0, 999.0), sigma_data)
        np.testing.assert_allclose(denoised(adapted, weights, x, SIGMAS), on_path(x, SIGMAS), rtol=1e-7, atol=1e-9)


def test_a_predictor_of_v_turns_point_and_noise_by_the_angle():
    x, inner, weights = given()
    angle = np.arctan(SIGMAS)[:, None, None, None]
    v = NUMPY.network(INNER, inner, dtype="float64")(x * np.cos(angle), np.log(SIGMAS))
    adapted = Adapted(INNER, "velocity", "log", (1.0, 0.0))
    expected = np.cos(angle) * (x * np.cos(angle)) - np.sin(angle) * v
    np.testing.assert_allclose(denoised(adapted, weights, x, SIGMAS), expected, rtol=1e-9, atol=1e-12)


def test_a_predictor_of_the_negative_noise_on_the_ve_path():
    x, inner, weights = given()
    net = NUMPY.network(INNER, inner, dtype="float64")
    expected = x + SIGMAS[:, None, None, None] * net(x, np.log(0.5 * SIGMAS))
    adapted = Adapted(INNER, "minus_noise", "log", (1.0, -np.log(2.0)))
    np.testing.assert_allclose(denoised(adapted, weights, x, SIGMAS), expected, rtol=1e-9, atol=1e-10)


def test_another_clock_alone_changes_only_what_the_network_is_told():
    x, inner, weights = given()
    net = NUMPY.network(INNER, inner, dtype="float64")
    adapted = NUMPY.network(Adapted(INNER, "free", "log", (250.0, 0.0)), weights, dtype="float64")
    np.testing.assert_allclose(adapted(x, 0.25 * np.log(SIGMAS)), net(x, 250.0 * np.log(SIGMAS)), rtol=1e-12)


@pytest.mark.parametrize("predicts", ["free", "noise", "minus_noise", "velocity", "denoiser"])
def test_at_the_time_0_of_ect_the_answer_is_the_point_itself(predicts):
    x, _, weights = given()
    adapted = Adapted(INNER, predicts, "log", (1.0, 0.0))
    np.testing.assert_array_equal(
        denoised(adapted, weights, x.astype(np.float32), np.zeros(5), dtype="float32"), x.astype(np.float32)
    )


def test_a_clock_of_steps_reads_whole_numbers_at_the_steps_and_goes_on_evenly_between():
    betas = linear(1000, 1e-4, 0.02)
    sigma = np.sqrt((1 - np.cumprod(1 - betas)) / np.cumprod(1 - betas))
    np.testing.assert_allclose(ratios(betas), sigma, rtol=1e-10)
    clock = clock_of("linear", (1000, 1e-4, 0.02))
    np.testing.assert_allclose(clock(np.log(sigma) / 4), np.arange(1000), atol=1e-6)
    between = np.exp(np.random.default_rng(0).uniform(np.log(0.002), np.log(300), 50))
    np.testing.assert_allclose(
        clock(np.log(between) / 4), np.interp(np.log(between), np.log(sigma), np.arange(1000)), atol=1e-6
    )


def test_the_betas_of_a_cosine_are_those_of_the_signal():
    betas = cosine(1000)
    signal = (
        np.cos((np.arange(1, 1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    )
    np.testing.assert_allclose(np.cumprod(1 - betas)[:900], signal[:900], rtol=1e-9)
    assert betas.max() == 0.999


@pytest.mark.parametrize("backend", ["torch", "jax", "tinygrad"])
@pytest.mark.parametrize(
    ("predicts", "clock", "numbers"), [("noise", "linear", (20, 1e-3, 0.3)), ("velocity", "vp", (0.1, 20.0, 9.0))]
)
def test_every_backend_computes_the_same(backend, predicts, clock, numbers):
    pytest.importorskip(backend)
    small = ResidualMLP((1, 4, 4), width=8, blocks=1, features=8)
    x, weights = given()[0], {f"net.{name}": w for name, w in random_weights(small).items()}
    adapted = Adapted(small, predicts, clock, numbers)
    expected = denoised(adapted, weights, x.astype(np.float32), SIGMAS, dtype="float64")
    got = denoised(adapted, weights, x, SIGMAS, cm.load(backend), "float32")
    assert np.abs(got - expected).max() < 1e-5 * np.abs(expected).max()


def test_settings_pass_through_files_and_options_reach_the_network():
    adapted = Adapted(INNER, "noise", "linear", (1000, 1e-4, 0.02))
    assert from_config(to_config(adapted)) == adapted
    grown = adapted.with_options(two_times=True, log_weight=True)
    assert grown.network == INNER.with_options(two_times=True, log_weight=True)
    weights = {f"net.{name}": w for name, w in random_weights(INNER).items()}
    complete = cm.networks.extend_weights(weights, grown)
    x, c = np.ones((2, 1, 4, 4), np.float32), np.zeros(2, np.float32)
    before, after = NUMPY.network(adapted, weights), NUMPY.network(grown, complete)
    np.testing.assert_array_equal(before(x, c), after(x, c, c_end=c - 1))
    assert after.log_weight(c, c).shape == (2,)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"predicts": "score"}, "No network predicts 'score'; the known ones are"),
        ({"clock": "sun"}, "has the clock 'sun'; the known ones are"),
        ({"numbers": (1.0,)}, "takes other numbers"),
        ({"clock": "betas", "numbers": (0.1, 2.0)}, "between 0 and 1"),
        ({"sigma_data": 0.0}, "sigma_data must be positive"),
        ({"network": Adapted(INNER)}, "another kind of network"),
    ],
)
def test_what_makes_no_network_is_a_sentence(settings, said):
    with pytest.raises(ValueError, match=said):
        Adapted(**{"network": INNER, **settings})
