"""Tangents: zero at the exact consistency function, and the derivative that they claim to be (T2, T10, T11)."""

import numpy as np
import pytest

import cmcore as cm
from cmcore import paths, tangents
from cmcore.oracles import Along, Gaussian

pytestmark = pytest.mark.usefixtures("x64")
SD, STD = 0.5, 0.3
PATH = paths.Trigonometric(SD)
TIMES = np.array([0.02, 0.4, 1.0, 1.5])
X = np.array([[0.3, -0.2], [0.5, 0.1], [-1.1, 0.7], [0.4, 0.9]])


def exact_network(y, t):
    """F with ``cos(t) x - sin(t) sd F(x / sd, t) = std / sqrt(V) x``, the exact answer for N(0, std^2) (T2)."""
    xp = cm.namespace(y)
    cos, sin = xp.cos(t), xp.sin(t)
    root = xp.sqrt(cos**2 * STD**2 + sin**2 * SD**2)
    return y * ((cos - STD / root) / sin)[:, None]


def place(backend, *values):
    return [backend.asarray(v, "float64") for v in values]


@pytest.mark.parametrize("warmup", [1.0])
def test_the_tangent_of_the_exact_answer_is_zero_along_the_teacher(trainable, warmup):
    x, t = place(trainable, X, TIMES)
    oracle = Along(Gaussian(0.0, STD), PATH)
    velocity = PATH.velocity(x, t, oracle.denoiser(x, t))
    out, g = tangents.trigflow_tangent(exact_network, x, t, velocity, SD, warmup)
    np.testing.assert_allclose(trainable.to_numpy(out), trainable.to_numpy(exact_network(x / SD, t)), rtol=1e-12)
    assert np.abs(trainable.to_numpy(g)).max() < 1e-12


def test_the_tangent_of_the_exact_answer_is_zero_on_average_from_data_alone(trainable):
    """E[g | x_t] = 0: the conditional means of data and noise stand for them, g being linear in both."""
    x, t = place(trainable, X, TIMES)
    variance = np.cos(TIMES) ** 2 * STD**2 + np.sin(TIMES) ** 2 * SD**2
    x0, z = place(
        trainable, X * (np.cos(TIMES) * STD**2 / variance)[:, None], X * (np.sin(TIMES) * SD**2 / variance)[:, None]
    )
    np.testing.assert_allclose(trainable.to_numpy(PATH.perturb(x0, z, t)), X, rtol=1e-12)
    _, g = tangents.trigflow_tangent(exact_network, x, t, PATH.velocity(x, t, x0), SD)
    assert np.abs(trainable.to_numpy(g)).max() < 1e-12


@pytest.mark.parametrize("warmup", [0.0, 0.3, 1.0])
def test_the_tangent_as_printed(trainable, warmup):
    """Against the formula with F's derivative taken by hand, for a network that is no solution."""

    def net(y, t):
        xp = cm.namespace(y)
        return xp.sin(y) * t[:, None] ** 2

    velocity = np.array([[1.0, 0.5], [-0.3, 0.2], [0.6, -1.0], [0.1, 0.0]])
    x, t, v = place(trainable, X, TIMES, velocity)
    _, g = tangents.trigflow_tangent(net, x, t, v, SD, warmup)
    y, tt = X / SD, TIMES[:, None]
    out = np.sin(y) * tt**2
    slope = np.cos(y) * tt**2 * velocity / SD + np.sin(y) * 2 * tt
    cos, sin = np.cos(tt), np.sin(tt)
    expected = -(cos**2) * (SD * out - velocity) - warmup * cos * sin * (X + SD * slope)
    np.testing.assert_allclose(trainable.to_numpy(g), expected, rtol=1e-11)
    if warmup == 1.0:
        # It is cos t df/dt (Lu & Song 2024).
        along = -cos * (SD * out - velocity) - sin * (X + SD * slope)
        np.testing.assert_allclose(trainable.to_numpy(g), cos * along, rtol=1e-11)


def test_the_gradient_moves_the_output_along_the_tangent(trainable):
    """T10: the gradient of |F - sg(F + g)|^2 / D is that of -2 / D <F, g>."""
    theta, (g,) = trainable.asarray(0.7, "float64"), place(trainable, np.array([[0.3, -1.0], [0.5, 2.0]]))
    (x,) = place(trainable, np.array([[1.0, 2.0], [-1.0, 0.5]]))
    one = trainable.xp.ones_like(theta)

    def loss(p):
        return tangents.loss_along(p * x, g)

    got = trainable.to_numpy(trainable.jvp(loss, (theta,), (one,))[1])
    expected = -2 / 2 * (np.array([[1.0, 2.0], [-1.0, 0.5]]) * np.array([[0.3, -1.0], [0.5, 2.0]])).sum(1)
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_normalisation(lib):
    g = lib.asarray(np.array([[3.0, 4.0], [0.0, 0.0]]), "float64")
    got = lib.to_numpy(tangents.normalized(g, 0.1))
    np.testing.assert_allclose(got, [[3 / 5.1, 4 / 5.1], [0.0, 0.0]], rtol=1e-14)
    assert tangents.normalized(g, float("inf")) is g


def test_the_central_difference_is_of_second_order(trainable):
    x, t = place(trainable, X, TIMES)

    def f(x, t):
        xp = cm.namespace(x)
        return xp.exp(0.3 * x) * xp.cos(t)[:, None]

    direction = (0.5 * x, trainable.xp.ones_like(t))
    value, exact = tangents.exact(f, (x, t), direction)
    errors = []
    for h in (0.02, 0.01):
        same, near = tangents.central_difference(h)(f, (x, t), direction)
        np.testing.assert_allclose(trainable.to_numpy(same), trainable.to_numpy(value), rtol=1e-14)
        errors.append(np.abs(trainable.to_numpy(near - exact)).max())
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.01)


def test_which_derivative():
    assert tangents.derivative(0.0) is tangents.exact
    assert tangents.derivative(0.01) is not tangents.exact


def test_an_edm_network_on_the_trigflow_path(trainable):
    """The same network gives the same answers on either path, at points with the same noise-to-signal ratio."""

    def net(y, c_noise):
        return y * c_noise[:, None] + 0.1

    (x, t) = place(trainable, X, TIMES)
    trig = cm.parametrization.TrigFlow(SD, "edm")
    on_ve = cm.ConsistencyFunction(net, cm.parametrization.EDM(SD))
    expected = paths.rebased(on_ve, paths.VE(), PATH)(x, t)
    got = cm.ConsistencyFunction(net, trig)(x, t)
    np.testing.assert_allclose(trainable.to_numpy(got), trainable.to_numpy(expected), rtol=1e-10)
    free = cm.ConsistencyFunction(trig.free(net), cm.parametrization.TrigFlow(SD))(x, t)
    np.testing.assert_allclose(trainable.to_numpy(free), trainable.to_numpy(expected), rtol=1e-10)


def test_what_does_not_fit_a_tangent_is_a_sentence(trainable):
    x, t, short = place(trainable, X, TIMES, TIMES[:2])
    for arguments, sentence in (
        ((x, short, x), r"^t must be a number or have shape \(4,\)"),
        ((x, t, x[:, :1]), r"^x and the velocity must have the same shape, got \(4, 2\) and \(4, 1\)"),
        ((x, t, x[:1, :]), r"^x and the velocity must have the same shape"),
    ):
        with pytest.raises(ValueError, match=sentence):
            tangents.trigflow_tangent(exact_network, *arguments, SD)
    with pytest.raises(ValueError, match=r"^The network returned shape \(4, 1\)"):
        tangents.trigflow_tangent(lambda y, t: y[:, :1], x, t, x, SD)
    with pytest.raises(ValueError, match=r"^A primal and its tangent must have the same shape"):
        tangents.exact(lambda x, t: x, (x, t), (x, short))


def test_a_tangent_at_one_time_for_all(trainable):
    x, one, many = place(trainable, X, 0.4, np.full(4, 0.4))
    expected = trainable.to_numpy(tangents.trigflow_tangent(exact_network, x, many, x, SD)[1])
    for t in (0.4, one):
        got = tangents.trigflow_tangent(exact_network, x, t, x, SD)[1]
        np.testing.assert_allclose(trainable.to_numpy(got), expected, rtol=1e-12)


def test_which_network_is_free_of_its_scalings():
    def net(y, c_noise, shift=0.0):
        return y * c_noise[:, None] + shift

    assert cm.parametrization.TrigFlow(SD).free(net) is net
    y, free = X / SD, cm.parametrization.TrigFlow(SD, "edm").free(net)
    np.testing.assert_allclose(free(y, TIMES, shift=0.2), -net(y, np.log(SD * np.tan(TIMES)) / 4, 0.2), rtol=1e-12)


def test_conditions_reach_the_network_of_a_tangent(trainable):
    x, t, v = place(trainable, X, TIMES, 0.1 * X)
    out, _ = tangents.trigflow_tangent(lambda y, s, shift=0.0: y + shift, x, t, v, SD, cond={"shift": 0.5})
    np.testing.assert_allclose(trainable.to_numpy(out), X / SD + 0.5, rtol=1e-12)


def test_the_smallest_constant_of_a_normalisation_is_zero():
    np.testing.assert_allclose((tangents.normalized(X, 0.0) ** 2).sum(1), 1.0, rtol=1e-12)
