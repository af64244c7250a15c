"""What does not fit is a `ValueError` or `TypeError` with a sentence, from every public function, in every library."""

import re

import numpy as np
import pytest
from conftest import CHOSEN

import cmcore as cm
from cmcore import distances, grids, losses, oracles, parametrization, paths, recipes, sampling, solvers
from cmcore.parametrization import EDM, Boundary, ConsistencyFunction


def net(x, c_noise):
    return 0.5 * x


F = ConsistencyFunction(net, Boundary())
VE = paths.VE()


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
    "TrigFlow.perturb": lambda x, t: paths.TrigFlow().perturb(x, x, t),
    "Linear.velocity": lambda x, t: paths.Linear().velocity(x, t, x),
    "ConsistencyFunction": F,
    "ConsistencyFunction, EDM": ConsistencyFunction(net, EDM()),
    "ConsistencyFunction, TrigFlow": ConsistencyFunction(net, parametrization.TrigFlow()),
    "euler from": lambda x, t: solvers.euler(denoiser, x, t, 1.0),
    "euler to": lambda x, t: solvers.euler(denoiser, x, 1.0, t),
    "heun from": lambda x, t: solvers.heun(denoiser, x, t, 1.0),
    "heun to": lambda x, t: solvers.heun(denoiser, x, 1.0, t),
    "denoising": lambda x, t: losses.denoising(F, x, x, t),
    "consistency, t": lambda x, t: losses.consistency(F, F, x, x, t, 1.0),
    "consistency, r": lambda x, t: losses.consistency(F, F, x, x, 1.0, t),
    "consistency, teacher": lambda x, t: losses.consistency(F, F, x, x, 1.0, t, denoiser=denoiser),
    "Gaussian.denoiser": oracles.Gaussian(0.0, 0.5).denoiser,
    "Gaussian.score": oracles.Gaussian(0.0, 0.5).score,
    "Gaussian.flow": lambda x, t: oracles.Gaussian(0.0, 0.5).flow(x, t, 1.0),
    "Gaussian.consistency": oracles.Gaussian(0.0, 0.5).consistency,
    "Mixture.denoiser": oracles.Mixture([0.4, 0.6], [-1.0, 1.0], 0.5).denoiser,
    "Mixture.score": oracles.Mixture([0.4, 0.6], [-1.0, 1.0], 0.5).score,
    "Mixture.flow": lambda x, t: oracles.Mixture([0.4, 0.6], [-1.0, 1.0], 0.5).flow(x, t, 1.0),
    "Empirical.denoiser": oracles.Empirical(np.zeros((2, 2))).denoiser,
}

# Everything public that takes two batches that must fit, as call(x, y).
OF_TWO_STATES = {
    "VE.perturb": lambda x, y: VE.perturb(x, y, 1.0),
    "VE.noise": lambda x, y: VE.noise(x, 1.0, y),
    "VE.score": lambda x, y: VE.score(x, 1.0, y),
    "VE.velocity": lambda x, y: VE.velocity(x, 1.0, y),
    "VE.score_estimate": lambda x, y: VE.score_estimate(x, y, 1.0),
    "TrigFlow.denoiser_from_velocity": lambda x, y: paths.TrigFlow().denoiser_from_velocity(x, 1.0, y),
    "l1": distances.l1,
    "squared_l2": distances.squared_l2,
    "PseudoHuber": distances.PseudoHuber(),
    "ElementwisePseudoHuber": distances.ElementwisePseudoHuber(),
    "denoising": lambda x, y: losses.denoising(F, x, y, 1.0),
    "consistency": lambda x, y: losses.consistency(F, F, x, y, 1.0, 0.5),
    "multistep": lambda x, y: sampling.multistep(F, x, (80.0, 1.0), lambda i: y),
    "euler's denoiser": lambda x, y: solvers.euler(lambda *_: y, x, 1.0, 0.5),
    "network": lambda x, y: ConsistencyFunction(lambda *_: y, EDM())(x, 1.0),
}

# Everything public that takes a batch, as call(x).
OF_STATE = {
    **{name: lambda x, call=call: call(x, 1.0) for name, call in OF_STATE_AND_TIME.items()},
    "onestep": lambda x: sampling.onestep(F, x),
    "multistep": lambda x: sampling.multistep(F, x, (80.0, 1.0), lambda i: x),
    "l1": lambda x: distances.l1(x, x),
    "PseudoHuber": lambda x: distances.PseudoHuber()(x, x),
    "ElementwisePseudoHuber": lambda x: distances.ElementwisePseudoHuber()(x, x),
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
    if call is not OF_TWO_STATES["network"]:  # may compute in another precision, as under torch's autocast
        refuses(call, good(lib), good(lib, "float64"))


@pytest.mark.skipif(not {"numpy", "torch"} <= set(CHOSEN), reason="needs two frameworks")
@each(OF_TWO_STATES)
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
        lambda: EDM().scalings(1.0),
        lambda: EDM().scalings(np.array([1])),
        lambda: parametrization.TrigFlow().scalings(np.array([1])),
        lambda: grids.karras_time(np.array([1]), 18),
        lambda: grids.uniform_pair(np.array([0]), 18.0),
        lambda: grids.ect_pair(np.array([1]), 0.0),
        lambda: grids.lognormal_time(np.array([0])),
        lambda: cm.namespace(),
        lambda: cm.namespace(1.0, None),
        lambda: cm.of("text"),
        lambda: cm.stop_gradient("text"),
    ],
)
def test_a_number_where_an_array_is_expected(call):
    refuses(call)
