"""What does not fit is a `ValueError` or `TypeError` with a sentence, from every public function, in every library."""

import inspect
import re

import numpy as np
import pytest
from conftest import CHOSEN

import cmcore as cm
from cmcore import (
    distances,
    flow_maps,
    grids,
    losses,
    oracles,
    parametrization,
    paths,
    recipes,
    sampling,
    solvers,
    tangents,
    weightings,
)
from cmcore.parametrization import EDM, Boundary, ConsistencyFunction


def net(x, c_noise):
    return 0.5 * x


F = ConsistencyFunction(net, Boundary())
VE = paths.VE()
DIFFERENCE = tangents.central_difference(1e-2)


def toward(x, c_noise, c_end):
    return 0.5 * x


FLOW_MAP = flow_maps.AverageVelocity(toward)


def denoiser(x, t):
    return 0.5 * x


# Everything public that takes a batch x and a time t, as call(x, t).
OF_STATE_AND_TIME = {
    "VE.perturb": lambda x, t: VE.perturb(x, x, t),
    "VE.noise": lambda x, t: VE.noise(x, t, x),
    "VE.score": lambda x, t: VE.score(x, t, x),
    "VE.velocity": lambda x, t: VE.velocity(x, t, x),
    "VE.score_estimate": lambda x, t: VE.score_estimate(x, x, t),
    "VE.denoiser_from_noise": lambda x, t: VE.denoiser_from_noise(x, t, x),
    "VE.denoiser_from_score": lambda x, t: VE.denoiser_from_score(x, t, x),
    "VE.denoiser_from_velocity": lambda x, t: VE.denoiser_from_velocity(x, t, x),
    "Trigonometric.perturb": lambda x, t: paths.Trigonometric().perturb(x, x, t),
    "ConsistencyFunction": F,
    "ConsistencyFunction, EDM": ConsistencyFunction(net, EDM()),
    "ConsistencyFunction, TrigFlow": ConsistencyFunction(net, parametrization.TrigFlow()),
    "euler from": lambda x, t: solvers.euler(denoiser, x, t, 1.0),
    "euler to": lambda x, t: solvers.euler(denoiser, x, 1.0, t),
    "heun from": lambda x, t: solvers.heun(denoiser, x, t, 1.0),
    "heun to": lambda x, t: solvers.heun(denoiser, x, 1.0, t),
    "denoising": lambda x, t: losses.denoising(F, x, x, t),
    "consistency, t": lambda x, t: losses.consistency(F, F, x, x, t, 1.0),
    "consistency, r": lambda x, t: losses.consistency(F, F, x, x, 3.0, t),
    "consistency, teacher": lambda x, t: losses.consistency(F, F, x, x, 3.0, t, denoiser=denoiser),
    "Gaussian.denoiser": oracles.Gaussian(0.0, 0.5).denoiser,
    "Gaussian.score": oracles.Gaussian(0.0, 0.5).score,
    "Gaussian.flow": lambda x, t: oracles.Gaussian(0.0, 0.5).flow(x, t, 1.0),
    "Gaussian.consistency": oracles.Gaussian(0.0, 0.5).consistency,
    "Mixture.denoiser": oracles.Mixture([0.4, 0.6], [-1.0, 1.0], 0.5).denoiser,
    "Mixture.score": oracles.Mixture([0.4, 0.6], [-1.0, 1.0], 0.5).score,
    "Mixture.flow": lambda x, t: oracles.Mixture([0.4, 0.6], [-1.0, 1.0], 0.5).flow(x, t, 1.0),
    "AverageVelocity from": lambda x, t: FLOW_MAP(x, t, 0.5),
    "AverageVelocity to": lambda x, t: FLOW_MAP(x, 2.0, t),
    "AverageVelocity.velocity": lambda x, t: FLOW_MAP.velocity(x, t, t),
    "TowardDenoiser from": lambda x, t: flow_maps.TowardDenoiser(toward)(x, t, 0.5),
    "TowardDenoiser to": lambda x, t: flow_maps.TowardDenoiser(toward)(x, 2.0, t),
    "TowardDenoiser.inner": lambda x, t: flow_maps.TowardDenoiser(toward).inner(x, t, t),
    "semigroup from": lambda x, t: flow_maps.semigroup(FLOW_MAP, x, t, 0.5, 0.2),
    "semigroup by": lambda x, t: flow_maps.semigroup(FLOW_MAP, x, 2.0, t, 0.2),
    "semigroup to": lambda x, t: flow_maps.semigroup(FLOW_MAP, x, 2.0, 1.0, t),
    "trigflow_tangent": lambda x, t: tangents.trigflow_tangent(net, x, t, x, 0.5, 1.0, DIFFERENCE)[1],
    "Empirical.denoiser": oracles.Empirical(np.zeros((2, 2))).denoiser,
}

# Everything public that takes two batches that must fit, as call(x, y).
OF_TWO_STATES = {
    "VE.perturb": lambda x, y: VE.perturb(x, y, 1.0),
    "VE.noise": lambda x, y: VE.noise(x, 1.0, y),
    "VE.score": lambda x, y: VE.score(x, 1.0, y),
    "VE.velocity": lambda x, y: VE.velocity(x, 1.0, y),
    "VE.score_estimate": lambda x, y: VE.score_estimate(x, y, 1.0),
    "Trigonometric.denoiser_from_velocity": lambda x, y: paths.Trigonometric().denoiser_from_velocity(x, 1.0, y),
    "l1": distances.l1,
    "squared_l2": distances.squared_l2,
    "PseudoHuber": distances.PseudoHuber(),
    "ElementwisePseudoHuber": distances.ElementwisePseudoHuber(),
    "denoising": lambda x, y: losses.denoising(F, x, y, 1.0),
    "consistency": lambda x, y: losses.consistency(F, F, x, y, 1.0, 0.5),
    "multistep": lambda x, y: sampling.multistep(F, x, (80.0, 1.0), lambda i: y),
    "euler's denoiser": lambda x, y: solvers.euler(lambda *_: y, x, 1.0, 0.5),
    "trigflow_tangent": lambda x, y: tangents.trigflow_tangent(net, x, 1.0, y, 0.5, 1.0, DIFFERENCE),
    "central_difference": lambda x, y: DIFFERENCE(lambda x: 2.0 * x, (x,), (y,)),
    "exact": lambda x, y: tangents.exact(lambda x: 2.0 * x, (x,), (y,)),
    "loss_along": tangents.loss_along,
}

# What a caller's function, which always returns y, is asked for at points x, as call(x, y). Only shapes and frameworks must
# fit: a network may compute in another precision, as under torch's autocast.
OF_POINTS_AND_OUTPUT = {
    "ConsistencyFunction": lambda x, y: ConsistencyFunction(lambda *_: y, EDM())(x, 1.0),
    "AverageVelocity": lambda x, y: flow_maps.AverageVelocity(lambda *_, c_end: y)(x, 1.0, 0.5),
    "TowardDenoiser": lambda x, y: flow_maps.TowardDenoiser(lambda *_, c_end: y)(x, 1.0, 0.5),
    "semigroup": lambda x, y: flow_maps.semigroup(lambda *_: y, x, 1.0, 0.5, 0.2),
    "trigflow_tangent": lambda x, y: tangents.trigflow_tangent(lambda *_: y, x, 1.0, x, 0.5, 1.0, DIFFERENCE),
    "onestep": lambda x, y: sampling.onestep(lambda *_: y, x),
    "multistep": lambda x, y: sampling.multistep(
        lambda x, t: x if float(cm.backend.of(t).to_numpy(t)[0]) == 80 else y, x, (80.0, 1.0), lambda i: x
    ),
    "flow_map": lambda x, y: sampling.flow_map(lambda *_: y, x, (80.0, 1.0)),
    "gamma": lambda x, y: sampling.gamma(lambda *_: y, x, (80.0, 1.0), lambda i: x),
}

# Everything public that takes a batch, as call(x).
OF_STATE = {
    **{name: lambda x, call=call: call(x, 1.0) for name, call in OF_STATE_AND_TIME.items()},
    "onestep": lambda x: sampling.onestep(F, x),
    "multistep": lambda x: sampling.multistep(F, x, (80.0, 1.0), lambda i: x),
    "l1": lambda x: distances.l1(x, x),
    "PseudoHuber": lambda x: distances.PseudoHuber()(x, x),
    "ElementwisePseudoHuber": lambda x: distances.ElementwisePseudoHuber()(x, x),
    "flow_map": lambda x: sampling.flow_map(FLOW_MAP, x, (80.0, 1.0)),
    "gamma": lambda x: sampling.gamma(FLOW_MAP, x, (80.0, 1.0), lambda i: x),
    "normalized": lambda x: tangents.normalized(x, 0.1),
    "loss_along": lambda x: tangents.loss_along(x, x),
    "recipe.loss": lambda x: recipes.get("ect").loss({"online": net, "target": net}, x, x, x, {"stage": 0.0}, {}),
}


def each(calls):
    return pytest.mark.parametrize("call", calls.values(), ids=calls.keys())


def refuses(call, *args):
    with pytest.raises((ValueError, TypeError)) as caught:
        call(*args)
    sentence = str(caught.value)
    assert re.fullmatch(r"\S.* .*[.]", sentence, re.DOTALL), f"not a sentence: {sentence!r}"
    assert re.search(r"\bgot\b|\breturned\b|\bexpected\b", sentence, re.IGNORECASE), (
        f"does not say what was given: {sentence!r}"
    )


def good(lib, dtype="float32"):
    return lib.asarray(np.ones((3, 2)), dtype)


@each(OF_STATE_AND_TIME)
def test_what_fits_is_taken(lib, call):
    if (lib.name, call) == ("tinygrad", OF_STATE_AND_TIME["Mixture.flow"]):
        pytest.skip("it is minutes of small programs there; tests/test_oracles.py compares one with the ODE")
    for t in (1.5, lib.asarray(1.5, "float32"), lib.asarray([1.5] * 3, "float32")):
        assert np.isfinite(lib.to_numpy(call(good(lib), t))).all()


@each(OF_STATE_AND_TIME)
@pytest.mark.parametrize("t", [-1.0, float("nan"), float("inf"), -1, np.float64("nan")], ids=str)
def test_a_number_that_is_no_time(lib, call, t):
    refuses(call, good(lib), t)


@each(OF_STATE_AND_TIME)
def test_times_of_the_wrong_shape_or_kind(lib, call):
    for t in (np.ones(2), np.ones((3, 1)), np.ones((3, 2))):
        refuses(call, good(lib), lib.asarray(t, "float32"))
    refuses(call, good(lib), lib.asarray([1.0] * 3, "float64"))
    refuses(call, good(lib), lib.asarray([1] * 3, "int32"))
    for t in ("1.0", None, [1.0, 1.0, 1.0]):
        refuses(call, good(lib), t)


@each(OF_STATE)
def test_what_is_no_batch_of_real_numbers(lib, call):
    refuses(call, lib.asarray(np.ones((3, 2)), "int32"))
    refuses(call, lib.asarray(np.ones((3, 2)) > 0))
    refuses(call, lib.asarray(1.5, "float32"))
    for x in (1.5, [[1.0, 2.0]], "x", None):
        refuses(call, x)


@each(OF_TWO_STATES)
def test_two_batches_that_do_not_fit(lib, call):
    refuses(call, good(lib), lib.asarray(np.ones((3, 1)), "float32"))
    refuses(call, good(lib), lib.asarray(np.ones((1, 2)), "float32"))
    refuses(call, good(lib), lib.asarray(np.ones(2), "float32"))
    refuses(call, good(lib), good(lib, "float64"))


@each(OF_TWO_STATES)
def test_a_second_batch_that_is_none(lib, call):
    for y in (1.5, None, "x", [[1.0, 2.0]] * 3):
        refuses(call, good(lib), y)


@each(OF_POINTS_AND_OUTPUT)
def test_what_a_function_returns_must_fit(lib, call):
    assert call(good(lib), good(lib)) is not None
    for y in (np.ones((3, 1)), np.ones((1, 2)), np.ones(2), np.ones((3, 2, 1)), np.array(1.0)):
        refuses(call, good(lib), lib.asarray(y, "float32"))
    for y in (None, 1.5, "x", (good(lib), good(lib)), [good(lib)]):
        refuses(call, good(lib), y)


@pytest.mark.skipif(not {"numpy", "torch"} <= set(CHOSEN), reason="needs two frameworks")
@each(OF_TWO_STATES | {f"{name}, output": call for name, call in OF_POINTS_AND_OUTPUT.items()})
def test_two_frameworks(call):
    x, y = np.ones((3, 2), np.float32), cm.load("torch").asarray(np.ones((3, 2), np.float32))
    refuses(call, x, y)
    refuses(call, y, x)


@pytest.mark.skipif(not {"numpy", "torch"} <= set(CHOSEN), reason="needs two frameworks")
@each(OF_STATE_AND_TIME)
def test_times_of_another_framework(call):
    x, t = np.ones((3, 2), np.float32), np.ones(3, np.float32)
    refuses(call, x, cm.load("torch").asarray(t))
    refuses(call, cm.load("torch").asarray(x), t)


@pytest.mark.parametrize(
    "call",
    [
        lambda: grids.karras_time(3, 18),
        lambda: grids.uniform_pair(0.5, 18),
        lambda: grids.ect_pair(1.0, 0.0),
        lambda: grids.lognormal_time(0.0),
        lambda: grids.karras(18, like=[1.0]),
        lambda: grids.karras(18, like=np.array([1])),
        lambda: EDM().scalings(1.0),
        lambda: EDM().scalings(np.array([1])),
        lambda: parametrization.TrigFlow().scalings(np.array([1])),
        lambda: grids.karras_time(np.array([1]), 18),
        lambda: grids.uniform_pair(np.array([0]), 18.0),
        lambda: grids.ect_pair(np.array([1]), 0.0),
        lambda: grids.lognormal_time(np.array([0])),
        lambda: cm.namespace(),
        lambda: cm.namespace(1.0, None),
        lambda: cm.backend.of("text"),
        lambda: cm.stop_gradient("text"),
    ],
)
def test_a_number_where_an_array_is_expected(call):
    refuses(call)


STEPS = {"euler": solvers.euler, "heun": solvers.heun, "dpm2": solvers.dpm2, "dpmpp_2s": solvers.dpmpp_2s}


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("to", [0.0, 0.5, 1])
def test_no_step_starts_at_0(name, to):
    with pytest.raises(
        ValueError, match=r"with which a step starts, is not defined at time 0; t must be above 0, .* got t = 0\.$"
    ):
        STEPS[name](denoiser, np.ones((2, 1)), 0, to)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: losses.consistency(F, F, np.ones((2, 1)), np.ones((2, 1)), 0.5, 1.0),
            "r <= t, got t = 0.5 and r = 1.0",
        ),
        (lambda: solvers.solve("heun", denoiser, np.ones((2, 1)), (1.0, 0.0)), "a step such as .*, got 'heun'"),
        (lambda: sampling.seeded_noise(-1, range(2), (1,)), "seed must be 0 or more, got -1"),
        (lambda: sampling.seeded_noise(0.5, range(2), (1,)), "seed must be a whole number, got 0.5"),
        (lambda: grids.check_range(0.002, 1e19), "t_max <= 1e18, got t_min=0.002, t_max=1e"),
        (lambda: recipes.get("ct-continuous", difference=1.0), "difference must be below t_min = 0.002, .* got 1.0"),
    ],
)
def test_numbers_that_do_not_go_together(call, sentence):
    with pytest.raises((ValueError, TypeError), match=rf"{sentence}.*\.$"):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: tangents.central_difference(0.0),
        lambda: tangents.central_difference(-0.1),
        lambda: tangents.derivative(float("nan")),
        lambda: tangents.normalized(np.ones((1, 1)), -0.1),
        lambda: tangents.normalized(np.ones((1, 1)), float("nan")),
        lambda: tangents.exact(lambda x: x, (np.ones(1),), ()),
        lambda: DIFFERENCE(lambda x: x, (np.ones(1),), (np.ones(1), np.ones(1))),
    ],
)
def test_derivatives_that_cannot_be(call):
    with pytest.raises(ValueError, match=r"^(A|The) .* got .*\.$"):
        call()


def test_sampling_times_may_be_an_array():
    """Whose truth cannot be asked for."""
    z = np.ones((1, 1))
    for sampler in (sampling.multistep, sampling.gamma):
        f = F if sampler is sampling.multistep else FLOW_MAP
        np.testing.assert_array_equal(
            sampler(f, z, np.array([80.0, 1.0]), lambda i: z), sampler(f, z, (80.0, 1.0), lambda i: z)
        )
    with pytest.raises(ValueError, match="at least one time"):
        sampling.multistep(F, z, np.array([]), lambda i: z)


def anything(x, *times, **cond):
    """A network, consistency function or flow map that takes whatever it is given."""
    return 0.5 * x


def unconcerned(x):
    return lambda i: x


# Every public function that passes conditions on to networks, as call(x, **more).
CONDITIONED = {
    "denoising": lambda x, **k: losses.denoising(anything, x, x, 0.5, **k),
    "consistency": lambda x, **k: losses.consistency(anything, anything, x, x, 0.5, 0.2, **k),
    "onestep": lambda x, **k: sampling.onestep(anything, x, **k),
    "multistep": lambda x, **k: sampling.multistep(anything, x, (80.0, 1.0), unconcerned(x), **k),
    "flow_map": lambda x, **k: sampling.flow_map(anything, x, (80.0, 1.0), **k),
    "gamma": lambda x, **k: sampling.gamma(anything, x, (80.0, 1.0), unconcerned(x), **k),
    "trigflow_tangent": lambda x, **k: tangents.trigflow_tangent(
        anything, x, 0.5, x, 0.5, differentiate=DIFFERENCE, **k
    )[0],
    "average_velocity_by": lambda x, **k: flow_maps.average_velocity_by(
        flow_maps.AverageVelocity(anything), x, grids.TimePair(x[:, 0], 0.0 * x[:, 0], x[:, 0]), x[:, 0], **k
    ),
    **{
        f"{name}.sample": lambda x, name=name, **k: cm.recipes.get(name).sample(
            anything, x, cm.recipes.get(name).times(2), unconcerned(x), **k
        )
        for name in cm.recipes.names()
    },
}


@pytest.mark.parametrize("name", CONDITIONED)
def test_a_mistyped_keyword_reaches_no_network(name):
    x = np.full((2, 1), 0.5)
    assert CONDITIONED[name](x, cond={"distnace": 1}).shape == (2, 1) or name in ("denoising", "consistency")
    with pytest.raises(TypeError, match="unexpected keyword argument 'distnace'"):
        CONDITIONED[name](x, distnace=1)


def test_no_public_function_takes_whatever_keywords_come():
    rooms = (losses, sampling, flow_maps, tangents, paths, cm.solvers, grids, distances, weightings, cm.search, cm.ema)
    for room in (*rooms, cm.metrics):
        for name, function in vars(room).items():
            if inspect.isfunction(function) and function.__module__.startswith("cmcore"):
                kinds = {p.kind for p in inspect.signature(function).parameters.values()}
                assert inspect.Parameter.VAR_KEYWORD not in kinds, f"{room.__name__}.{name}"
