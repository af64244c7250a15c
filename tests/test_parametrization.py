"""The scalings' golden values, and how a network is called."""

import numpy as np
import pytest
from exact import close, dtypes

from cmcore import oracles, paths
from cmcore.parametrization import EDM, Boundary, ConsistencyFunction, Prediction, TrigFlow

# t, EDM c_skip, EDM c_out, boundary c_skip, boundary c_out, c_in, 250 ln t; sigma_data 0.5, t_min 0.002
GOLDEN = np.array(
    [
        [0.002, 0.999984, 0.001999984, 1, 0, 1.999984, -1553.652],
        [0.02, 0.99840256, 0.019984019, 0.99870568, 0.017985617, 1.9984019, -978.00575],
        [0.5, 0.5, 0.35355339, 0.502004, 0.35213918, 1.4142136, -173.2868],
        [1, 0.2, 0.4472136, 0.20064141, 0.44631917, 0.89442719, 0],
        [5, 0.0099009901, 0.4975186, 0.0099088371, 0.49731959, 0.19900744, 402.35948],
        [80, 3.9060974e-5, 0.49999023, 3.9062927e-5, 0.49997773, 0.012499756, 1095.5067],
    ]
)


@pytest.mark.parametrize(("parametrization", "columns"), [(EDM(), (1, 2)), (Boundary(), (3, 4))])
@dtypes
def test_scalings_have_the_published_values(lib, dtype, parametrization, columns):
    c = parametrization.scalings(lib.asarray(GOLDEN[:, 0], dtype))
    expected = [GOLDEN[:, columns[0]], GOLDEN[:, columns[1]], GOLDEN[:, 5], GOLDEN[:, 6] / 1000]
    for got, value in zip(c, expected, strict=True):
        host = lib.to_numpy(got)
        assert str(host.dtype) == dtype
        np.testing.assert_allclose(host, value, rtol=2e-6, atol=2e-7)


@dtypes
def test_edm_keeps_the_variances_it_promises(lib, dtype):
    # Input and regression target of the network have variance 1, whatever t (Karras et al. 2022, appendix B.6).
    t, sd = np.geomspace(0.002, 80, 7), 0.7
    c = EDM(sd).scalings(lib.asarray(t, dtype))
    c_skip, c_out, c_in = (lib.to_numpy(v).astype(np.float64) for v in c[:3])
    np.testing.assert_allclose(c_in**2 * (sd**2 + t**2), 1.0, rtol=1e-5)
    np.testing.assert_allclose(((1 - c_skip) ** 2 * sd**2 + c_skip**2 * t**2) / c_out**2, 1.0, rtol=1e-4)


@dtypes
def test_trigflow_scalings(lib, dtype):
    t = np.array([0.0, 0.3, 1.2])
    c = TrigFlow(0.7).scalings(lib.asarray(t, dtype))
    assert TrigFlow() == TrigFlow(0.5)
    for got, value in zip(c, (np.cos(t), -0.7 * np.sin(t), np.full(3, 1 / 0.7), t), strict=True):
        close(lib, got, value, dtype)


@dtypes
def test_the_function_is_what_the_scalings_say(lib, dtype):
    seen = {}

    def net(x, c_noise, label):
        seen.update(x=lib.to_numpy(x), c_noise=lib.to_numpy(c_noise), label=label)
        return 3.0 * x + 1.0

    x, t = np.array([[0.3, -1.2], [0.8, 0.1]]), np.array([0.5, 3.0])
    f = ConsistencyFunction(net, Boundary(0.7, 0.01))
    got = f(lib.asarray(x, dtype), lib.asarray(t, dtype), label="seven")

    c_skip, c_out = 0.49 / ((t - 0.01) ** 2 + 0.49), 0.7 * (t - 0.01) / np.sqrt(t**2 + 0.49)
    scaled = x / np.sqrt(t**2 + 0.49)[:, None]
    close(lib, got, c_skip[:, None] * x + c_out[:, None] * (3 * scaled + 1), dtype)
    np.testing.assert_allclose(seen["x"], scaled, rtol=1e-6)
    np.testing.assert_allclose(seen["c_noise"], np.log(t) / 4, rtol=1e-6)
    assert seen["c_noise"].shape == (2,)
    assert seen["label"] == "seven"


@dtypes
def test_the_time_input_is_finite_at_zero(lib, dtype):
    assert np.isfinite(lib.to_numpy(EDM().scalings(lib.asarray([0.0], dtype)).c_noise)).all()


@pytest.mark.parametrize("make", [Boundary, EDM, TrigFlow])
@pytest.mark.parametrize("sigma_data", [0.0, -1.0, float("nan")])
def test_sigma_data_must_be_positive(make, sigma_data):
    with pytest.raises(ValueError, match=r"sigma_data, the data's standard deviation, must be positive, got"):
        make(sigma_data)


@pytest.mark.parametrize("t_min", [-0.1, float("nan")])
def test_t_min_must_not_be_negative(t_min):
    with pytest.raises(ValueError, match="t_min must be at least 0"):
        Boundary(0.5, t_min)


def test_a_network_that_changes_the_shape_is_an_error(lib):
    f = ConsistencyFunction(lambda x, c_noise: x[:, :1], EDM())
    with pytest.raises(ValueError, match=r"returned shape \(2, 1\) for an input of shape \(2, 3\)"):
        f(lib.asarray(np.zeros((2, 3)), "float32"), 1.0)


@pytest.mark.parametrize(
    "path",
    [paths.VE(), paths.VP(), paths.Cosine(), paths.Linear(), paths.Trigonometric(0.7)],
    ids=lambda p: type(p).__name__,
)
@pytest.mark.parametrize("quantity", ["noise", "velocity", "denoiser"])
@dtypes
def test_a_prediction_is_its_paths_denoiser(lib, dtype, path, quantity):
    """For Gaussian data, whose noise and velocity are known: V = a^2 c^2 + (b s)^2, z = b s^2 (x - a m) / V."""
    x, t, (mean, std) = np.array([[0.5, -1.0], [2.0, 0.3], [0.1, 0.0]]), np.array([0.2, 0.5, 0.8]), (0.4, 0.7)

    def net(y, c_noise):
        s = c_noise / 999
        a, b, da, db = (f(s)[:, None] for f in (path.a, path.b, path.da, path.db))
        centred = (y - a * mean) / (a**2 * std**2 + (b * path.noise_std) ** 2)
        noise, data = b * path.noise_std**2 * centred, mean + a * std**2 * centred
        return {"noise": noise, "velocity": da * data + db * noise, "denoiser": data}[quantity]

    got = ConsistencyFunction(net, Prediction(path, quantity, 999.0))(lib.asarray(x, dtype), lib.asarray(t, dtype))
    expected = oracles.Along(oracles.Gaussian(mean, std), path).denoiser(x, t)
    close(lib, got, expected, dtype, scale=100.0)


def test_a_prediction_that_cannot_be_is_a_sentence():
    with pytest.raises(ValueError, match='must be "noise", "velocity" or "denoiser", got \'score\''):
        Prediction(paths.VP(), "score")
    for scale in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="time_scale must be positive"):
            Prediction(paths.VP(), time_scale=scale)
