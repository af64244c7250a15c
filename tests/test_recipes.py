"""The recipes are what their papers say, made of the library's own parts."""

import ast
import inspect
import json
import math
import sys
import textwrap
from dataclasses import FrozenInstanceError, dataclass, fields
from statistics import median

import numpy as np
import pytest
import recipe_lines
from conftest import CHOSEN

import cmcore as cm
from cmcore import distances, grids, losses, recipes, solvers, weightings
from cmcore.ema import Average
from cmcore.model import recipe_from_json, recipe_to_json
from cmcore.optimization import Optimizer
from cmcore.parametrization import EDM, Boundary, ConsistencyFunction

X0, Z = np.random.default_rng(0).standard_normal((2, 4, 3))
UNIFORM, NORMAL = np.array([0.1, 0.4, 0.6, 0.9]), np.array([-1.0, -0.2, 0.3, 1.5])


@dataclass(frozen=True)
class Affine:
    """A network ``slope x + time c_noise + shift``, to which the end's time, if there is one, adds a tenth of itself."""

    slope: float
    time: float

    def __call__(self, x, c_noise, shift=0.0, c_end=None):
        out = self.slope * x + self.time * c_noise[:, None] + shift
        return out if c_end is None else out + 0.1 * c_end[:, None]

    def log_weight(self, c_noise, c_end=None):
        return 0.1 * c_noise


net, teacher, target = Affine(0.7, 1.0), Affine(0.2, -0.1), Affine(0.6, 1.0)
NETS = {"online": net, "target": target, "teacher": teacher}


def numbers(recipe):
    """Random numbers such as the recipe wants, each in another order."""
    some = {"uniform": UNIFORM, "normal": NORMAL}
    return {name: np.roll(some[law], i) for i, (name, law) in enumerate(recipe.draws.items())}


def test_the_names():
    assert recipes.names()[:5] == ("edm", "cd", "ct", "ict", "ect")
    assert len(recipes.names()) == 23


@pytest.mark.skipif("torch" not in CHOSEN, reason="some losses take a derivative, and torch does not take part")
@pytest.mark.parametrize("guided", [False, True], ids=["plain", "guided"])
@pytest.mark.parametrize("name", [*recipes.names(), "ctm of boundary", "ctm of none"])
def test_every_evaluation_is_told_the_conditions(name, guided):
    """Of all networks, times and derivatives of a loss, with a condition for each sample, and of the samples."""
    import torch

    name, _, form = name.partition(" of ")
    if guided and "guidance" not in {f.name for f in fields(recipes.get(name))}:
        pytest.skip("knows no guidance")
    changed = {"imm": {"particles": 2, "gap_exponent": 2.0}, "cmt": {"steps": 3}, "ctm": {"reach": 2}}.get(name, {})
    if guided:
        changed = changed | {"guidance": 2.0} | ({"label_dropout": 0.1} if name == "edm" else {})
    recipe = recipes.get(name, **changed, **({"inner": form} if form else {}))
    asked, own = [], torch.arange(4, dtype=torch.float64)

    class Labelled(Affine):
        def __call__(self, x, c_noise, *, label, c_end=None):
            assert label.shape == c_noise.shape
            # Several evaluations at once: each has the samples in their order, some of them perhaps without their label, -1.
            assert ((label == own.repeat(len(label) // 4)) | (label == -1)).all()
            asked.append(-1 in label)
            return super().__call__(x, c_noise, c_end=c_end)

    nets = {role: Labelled(n.slope, n.time) for role, n in NETS.items()}
    x0, z = torch.tensor(X0), torch.tensor(Z)
    draws = {key: torch.tensor(value) for key, value in numbers(recipe).items()}
    scalars = {key: torch.tensor(value) for key, value in recipe.scalars(500, 1000).items()}
    assert recipe.loss(nets, x0, z, draws, scalars, {"label": own}).shape == (4,)
    told = len(asked)
    assert told > 0
    recipe.sample(nets["online"], z, recipe.times(2), lambda i: z, cond={"label": own})
    assert len(asked) > told
    assert any(asked) or not guided


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_says_what_it_is(name):
    recipe = recipes.get(name)
    assert recipe.name == name
    assert recipe.summary.endswith(".")
    assert set(recipe.draws.values()) <= {"uniform", "normal"}
    entry = recipes.cite(name)
    assert entry.startswith(("@inproceedings{", "@article{"))
    assert entry.count("{") == entry.count("}")
    assert all(field in entry for field in ("title=", "author=", "year="))


def test_papers_settings():
    cd, ct, ect, edm = (recipes.get(n) for n in ("cd", "ct", "ect", "edm"))
    assert (cd.n, cd.solver, cd.mu, cd.needs_teacher, cd.optimizer.lr) == (18, "heun", 0.0, True, 4e-4)
    assert (ct.s0, ct.s1, ct.mu0, ct.schedule, ct.convention) == (2, 150, 0.9, "adaptive", "paper")
    assert (ect.mean, ect.std, ect.q, ect.k, ect.b, ect.optimizer.lr) == (-1.1, 2.0, 2.0, 8.0, 1.0, 1e-4)
    assert ect.stages == 8
    assert not any(recipe.needs_teacher for recipe in (edm, ct, ect))
    assert (edm.mean, edm.std, edm.weighting) == (-1.2, 1.2, "karras")
    assert {(r.optimizer.algorithm, r.average.ema) for r in (cd, ct, ect)} == {("radam", 0.9999)}
    for recipe in (cd, ct):
        assert recipe.parametrization() == Boundary(0.5, 0.002)
    for recipe in (ect, edm):
        assert recipe.parametrization() == EDM(0.5)


def test_the_target_network_is_kept_where_it_has_an_average():
    assert recipes.get("ct").keep_target
    assert not recipes.get("ct", mu0=0.0).keep_target
    assert not recipes.get("cd").keep_target
    assert recipes.get("cd", mu=0.95).keep_target
    assert not recipes.get("ect").keep_target
    assert not recipes.get("edm").keep_target


def test_options_change_fields_and_the_optimisers():
    recipe = recipes.get("ct", s1=20, lr=1e-3, algorithm="adamw", weight_decay=0.1, sigma_data=0.3, ema_std=0.1)
    assert (recipe.s1, recipe.sigma_data) == (20, 0.3)
    assert recipe.optimizer == Optimizer("adamw", lr=1e-3, weight_decay=0.1)
    assert recipe.average == Average(0.9999, ema_std=0.1)
    assert recipes.get("ct", optimizer=Optimizer("adam", lr=1.0), lr=0.5).optimizer == Optimizer("adam", lr=0.5)
    assert recipes.get("ct", average=Average(0.9), ema_power=1.0).average == Average(0.9, ema_power=1.0)
    with pytest.raises(FrozenInstanceError):
        recipe.s1 = 3


@pytest.mark.parametrize("name", ["cdd", ["cd"], None])
def test_an_unknown_name_is_a_sentence(name):
    with pytest.raises(ValueError, match=r"no recipe named .*he known ones are edm, cd, ct, ict, ect.*\.$"):
        recipes.get(name)


@pytest.mark.parametrize("average", [0.99, None, Average])
def test_an_average_is_one(average):
    with pytest.raises(TypeError, match="must be an Average, such as"):
        recipes.get("cd", average=average)


@pytest.mark.parametrize("optimizer", ["adam", None, Optimizer])
def test_an_optimizer_is_one(optimizer):
    with pytest.raises(TypeError, match="must be an Optimizer, such as"):
        recipes.get("cd", optimizer=optimizer)


def test_an_unknown_option_is_a_sentence():
    with pytest.raises(
        ValueError, match=r"'cd' has no option 'sigma'; did you mean 'sigma_data'\? Its options are .*\.$"
    ) as caught:
        recipes.get("cd", sigma=0.5)
    listed = str(caught.value).removesuffix(".").partition("options are ")[2].split(", ")
    assert listed == sorted(listed)
    assert {"n", "solver", "sigma_data", "algorithm", "lr"} <= set(listed)
    assert "optimizer" not in listed


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("cd", {"solver": "rk4"}, "Unknown solver 'rk4'; choose one of euler, heun"),
        ("cd", {"distance": "l3"}, "Unknown distance 'l3'; choose one of l1, squared_l2"),
        ("ct", {"weighting": "w"}, "Unknown weighting 'w'; choose one of uniform"),
        ("ct", {"schedule": "doubling"}, "Unknown schedule 'doubling'; choose one of fixed"),
        ("ct", {"convention": "draft"}, "convention"),
        ("sct", {"network": "unet"}, "Unknown network 'unet'; choose one of trigflow, edm"),
        ("ct", {"s0": 200}, "s0"),
        ("ict", {"s1": 10**11}, "at most 1,000,000"),
        ("cd", {"n": 1}, "2 or more"),
        ("cd", {"t_min": 90.0}, "t_min"),
        ("cd", {"t_max": 0.001}, "t_max"),
        ("ect", {"sigma_data": -1.0}, "sigma_data"),
        ("ect", {"sigma_data": 0.0}, "sigma_data"),
        ("ect", {"sigma_data": float("nan")}, "sigma_data"),
        ("ect", {"lr": 0.0}, "learning rate"),
        ("ect", {"algorithm": "sgd"}, "Unknown optimiser 'sgd'"),
    ],
)
def test_an_option_that_cannot_be_is_a_sentence(name, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        recipes.get(name, **options)


OUTSIDE = {
    **dict.fromkeys(("sigma_data", "std", "b", "transition", "normalize", "c", "bound"), (0.0, -1.0, math.nan)),
    **dict.fromkeys(("mean", "guidance_mix", "weight_b"), (math.inf, math.nan)),
    **dict.fromkeys(
        ("huber_c", "min_r", "guidance_low", "guidance_high", "gap_exponent", "weight_a"), (-0.1, math.inf, math.nan)
    ),
    **dict.fromkeys(("first", "last"), (0.0, 1.1, math.nan)),
    **dict.fromkeys(("label_dropout", "boundary", "warmup_max", "diagonal", "gamma"), (-0.1, 1.1, math.nan)),
    **dict.fromkeys(("mu", "mu0", "min_gap", "split"), (-0.1, 1.0, math.nan)),
    "edge": (0.0, 0.5, math.nan),
    **dict.fromkeys(("stages", "steps", "reach", "particles"), (0, -1)),
    **dict.fromkeys(("stage", "tangent_warmup"), (-1,)),
    **dict.fromkeys(
        ("guidance", "k", "boundary_weight", "denoising_weight", "difference", "power"), (-0.1, math.inf, math.nan)
    ),
    "q": (1.0, math.inf, math.nan),
    "teacher_time_scale": (0.0, -1.0, math.inf, math.nan),
    "levels": (0, 25),
    "n": (1, 0),
    "s0": (0, -3),
    "s1": (0, 1),
    "start": (0, 1, 48),
    "t_min": (-1.0, math.nan),
    "t_max": (0.0, math.inf, math.nan),
}


@pytest.mark.parametrize("name", recipes.names())
def test_no_number_outside_its_limits_is_taken(name):
    assert not {f.name for f in fields(recipes.get(name))} & {f.name for f in fields(Optimizer)}  # one name, one option
    kinds = {f.name: type(f.default) for f in fields(recipes.get(name)) if type(f.default) in (int, float)}
    assert set(kinds) <= set(OUTSIDE)
    for option, kind in kinds.items():
        for value in OUTSIDE[option]:
            with pytest.raises(ValueError, match=r"got .*\."):
                recipes.get(name, **{option: value})
        for value in ("1", None, True, *((2.5,) if kind is int else ())):
            with pytest.raises(TypeError, match=f"{option} must be a .*number, got"):
                recipes.get(name, **{option: value})


@pytest.mark.parametrize("name", recipes.names())
def test_what_is_no_choice_by_name_or_no_truth_value_is_not_taken(name):
    kinds = {f.name: type(f.default) for f in fields(recipes.get(name))}
    for option in (n for n, kind in kinds.items() if kind is str):
        for value in (None, ["l1"], 3):
            with pytest.raises(ValueError, match=f"Unknown {option} "):
                recipes.get(name, **{option: value})
    for option in (n for n, kind in kinds.items() if kind is bool):
        for value in (None, "false", 1):
            with pytest.raises(TypeError, match=f"{option} must be True or False, got"):
                recipes.get(name, **{option: value})


@pytest.mark.parametrize("name", recipes.names())
def test_weightings_are_for_noise_levels(name):
    """They are functions of the standard deviation of noise, which times of other paths are not."""
    if not isinstance(recipes.get(name).path, cm.paths.VE):
        with pytest.raises(ValueError, match=r"has no option 'weighting'; .*options are"):
            recipes.get(name, weighting="inverse_gap")


CHANGED = {"distance": "l1", "weighting": "snr", "t_min": 0.01, "t_max": 40.0, "learned_weight": True}


@pytest.mark.parametrize("option", CHANGED)
@pytest.mark.parametrize("name", recipes.names())
def test_an_option_that_many_have_acts_or_is_not_there(name, option):
    plain = recipes.get(name)
    if option not in recipes.by_name(plain):
        with pytest.raises(ValueError, match=f"has no option '{option}'; .*options are"):
            recipes.get(name, **{option: CHANGED[option]})
        return
    if plain.needs_jvp and option not in ("t_min", "t_max"):
        pytest.skip("the loss takes a derivative, which numpy has none of")

    def outcome(recipe):
        pair = recipe.pair(numbers(recipe), recipe.scalars(5, 10))
        times = recipe.times(3)
        samples = recipe.sample(net, Z, times, lambda i: X0)
        loss = () if recipe.needs_jvp else recipe.loss(NETS, X0, Z, numbers(recipe), recipe.scalars(5, 10), {})
        return np.concatenate([np.ravel(part) for part in (*pair, times, samples, loss)])

    assert not np.array_equal(outcome(recipes.get(name, **{option: CHANGED[option]})), outcome(plain))


def test_numbers_of_numpy_are_numbers():
    assert recipes.get("ect", stages=np.int64(3), q=np.float32(3)).stages == 3
    assert recipes.get("sct", normalize=math.inf).normalize == math.inf
    assert json.dumps(recipe_to_json(recipes.get("ect", stages=np.int64(3), q=np.float32(3), lr=np.float32(0.5))))


@pytest.mark.parametrize("name", ["edm", "cd", "ect", "psd"])
def test_a_learned_weight_levels_the_losses(name):
    """``e^w L - w``, least where ``e^w L = 1``; it is then ``1 - w`` (T13)."""
    plain = recipes.get(name)
    draws, x0, z = numbers(plain), X0, Z
    scalars = plain.scalars(5, 10)
    loss = plain.loss(NETS, x0, z, draws, scalars, {})
    assert (loss > 0).all()

    @dataclass(frozen=True)
    class Weighing(Affine):
        w: tuple = ()

        def log_weight(self, *times):
            assert len(times) == 1 + plain.two_times
            return np.array(self.w)

    def learned(w):
        nets = {**NETS, "online": Weighing(net.slope, net.time, tuple(w))}
        return recipes.get(name, learned_weight=True).loss(nets, x0, z, draws, scalars, {})

    best = -np.log(loss)
    np.testing.assert_allclose(learned(best), 1 - best, rtol=1e-12)
    for other in (best - 0.01, best + 0.01):
        np.testing.assert_allclose(learned(other), np.exp(other) * loss - other, rtol=1e-12)
        assert (learned(other) > learned(best)).all()


def test_edm_loss_is_the_weighted_denoising_error():
    recipe, t = recipes.get("edm"), np.exp(-1.2 + 1.2 * NORMAL)
    denoised = ConsistencyFunction(net, EDM(0.5))(X0 + t[:, None] * Z, t)
    expected = (t**2 + 0.25) / (0.5 * t) ** 2 * ((denoised - X0) ** 2).mean(1)
    np.testing.assert_allclose(recipe.loss(NETS, X0, Z, {"t": NORMAL, "hidden": UNIFORM}, {}, {}), expected, rtol=1e-12)


def test_edm_by_other_options():
    recipe, t = recipes.get("edm", mean=-0.5, std=2.0, distance="l1", weighting="uniform"), np.exp(-0.5 + 2.0 * NORMAL)
    pair = recipe.pair({"t": NORMAL}, {})
    np.testing.assert_allclose(pair.t, t, rtol=1e-14)
    assert np.array_equal(pair.r, np.zeros(4))
    assert np.array_equal(pair.gap, pair.t)
    denoised = ConsistencyFunction(net, EDM(0.5))(X0 + t[:, None] * Z, t)
    np.testing.assert_allclose(
        recipe.loss(NETS, X0, Z, {"t": NORMAL, "hidden": UNIFORM}, {}, {}), np.abs(denoised - X0).mean(1), rtol=1e-12
    )


@pytest.mark.parametrize("name", ["cd", "ct"])
def test_a_recipe_keeps_to_its_range_of_times(name):
    recipe = recipes.get(name, t_min=0.01, t_max=50.0)
    assert recipe.parametrization() == Boundary(0.5, 0.01)
    pair, expected = recipe.pair({"t": UNIFORM}, {"n": 6.0}), grids.uniform_pair(UNIFORM, 6.0, 0.01, 50.0)
    assert np.array_equal(pair.t, expected.t)
    assert np.array_equal(pair.r, expected.r)


def test_ect_pair_by_other_options():
    pair = recipes.get("ect", mean=0.2, std=0.7, q=4.0, k=3.0, b=2.0).pair({"t": NORMAL}, {"stage": 1.0})
    t = np.exp(0.2 + 0.7 * NORMAL)
    np.testing.assert_allclose(pair.t, t, rtol=1e-14)
    np.testing.assert_allclose(pair.gap, t * (1 + 3 / (1 + np.exp(2 * t))) / 16, rtol=1e-12)


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_cd_loss_is_the_direct_composition(solver):
    recipe = recipes.get("cd", solver=solver, distance="l1", weighting="snr", sigma_data=0.4)
    pair = grids.uniform_pair(UNIFORM, 18.0)
    expected = losses.consistency(
        ConsistencyFunction(net, Boundary(0.4)),
        ConsistencyFunction(target, Boundary(0.4)),
        X0,
        Z,
        pair.t,
        pair.r,
        denoiser=ConsistencyFunction(teacher, EDM(0.4)),
        step=getattr(solvers, solver),
        distance=distances.l1,
    )
    got = recipe.loss(NETS, X0, Z, {"t": UNIFORM}, {"n": np.array(18.0)}, {})
    np.testing.assert_allclose(got, expected / pair.t**2, rtol=1e-12)


def test_ct_loss_is_the_direct_composition():
    pair = grids.uniform_pair(UNIFORM, 11.0)
    f, f_target = ConsistencyFunction(net, Boundary()), ConsistencyFunction(target, Boundary())
    x_t, x_r = X0 + pair.t[:, None] * Z, X0 + pair.r[:, None] * Z
    expected = ((f(x_t, pair.t) - f_target(x_r, pair.r)) ** 2).mean(1)
    got = recipes.get("ct").loss(NETS, X0, Z, {"t": UNIFORM}, {"n": np.array(11.0)}, {})
    np.testing.assert_allclose(got, expected, rtol=1e-12)


@pytest.mark.parametrize("stage", [0.0, 3.0])
def test_ect_loss_is_the_direct_composition(stage):
    t = np.exp(-1.1 + 2.0 * NORMAL)
    r = np.maximum(0, t * (1 - (1 + 8 / (1 + np.exp(t))) / 2 ** (stage + 1)))
    f, f_target = ConsistencyFunction(net, EDM(0.5)), ConsistencyFunction(target, EDM(0.5))
    x_t, x_r = X0 + t[:, None] * Z, X0 + r[:, None] * Z
    expected = np.sqrt(((f(x_t, t) - f_target(x_r, r)) ** 2).sum(1)) / (t - r)
    got = recipes.get("ect").loss(NETS, X0, Z, {"t": NORMAL}, {"stage": np.array(stage)}, {})
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("name", [n for n in recipes.names() if not recipes.get(n).needs_jvp])
def test_conditions_reach_all_networks(name):
    recipe = recipes.get(name)
    draws = numbers(recipe)
    scalars = {k: np.array(v) for k, v in recipe.scalars(500, 1000).items()}

    def shifted(network):
        return lambda x, c_noise, c_end=None: network(x, c_noise, 0.3, c_end)

    with_shift = {key: shifted(network) for key, network in NETS.items()}
    expected = recipe.loss(with_shift, X0, Z, draws, scalars, {})
    np.testing.assert_allclose(recipe.loss(NETS, X0, Z, draws, scalars, {"shift": 0.3}), expected, rtol=1e-12)
    noise = [X0, X0, X0].__getitem__
    times = recipe.times(2)
    np.testing.assert_allclose(
        recipe.sample(net, Z, times, noise, {"shift": 0.3}), recipe.sample(shifted(net), Z, times, noise), rtol=1e-12
    )


def test_scalars_are_the_curriculums_the_optimisers_and_the_averages():
    assert recipes.get("ct").scalars(100, 1000) == (
        grids.Progressive()(100, 1000) | Optimizer(lr=4e-4).scalars(100, 1000) | Average(0.9999).scalars(100)
    )
    fixed = recipes.get("ct", schedule="fixed", s1=40, mu0=0.5).scalars(100, 1000)
    assert (fixed["n"], fixed["target_decay"]) == (40, 0.5)
    assert recipes.get("ct", schedule="progressive").scalars(900, 1000)["target_decay"] == 0.9
    assert recipes.get("ct", convention="code").scalars(0, 1000)["target_decay"] == pytest.approx(0.81)
    assert recipes.get("ect", stages=4).scalars(999, 1000)["stage"] == 3
    cd = recipes.get("cd", n=40, mu=0.95, decay=True).scalars(5, 10)
    assert (cd["n"], cd["target_decay"], cd["lr"]) == (40, 0.95, pytest.approx(2e-4))


def test_edm_samples_by_heuns_method_in_35_evaluations():
    recipe, calls = recipes.get("edm"), []

    def counted(x, c_noise):
        calls.append(1)
        return net(x, c_noise)

    times = recipe.times(18)
    assert times[-1] == 0
    np.testing.assert_allclose(times[:-1], grids.karras_host(18)[::-1])
    got = recipe.sample(counted, Z, times, pytest.fail)
    assert len(calls) == recipe.evaluations(18) == 35
    expected = solvers.solve(solvers.heun, ConsistencyFunction(net, EDM()), 80.0 * Z, times)
    np.testing.assert_allclose(got, expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["cd", "ct", "ect"])
def test_a_consistency_samplers_times_end_at_the_datas_deviation(name):
    expected = grids.karras_host(4, 0.4, 60.0)[::-1]
    np.testing.assert_allclose(recipes.get(name, sigma_data=0.4, t_max=60.0).times(4), expected, rtol=1e-14)


def test_edms_times_end_at_zero_after_t_min():
    expected = [*grids.karras_host(4, 0.01, 60.0)[::-1], 0.0]
    np.testing.assert_allclose(recipes.get("edm", t_min=0.01, t_max=60.0).times(4), expected, rtol=1e-14)


@pytest.mark.parametrize(("name", "floor"), [("cd", 0.1), ("ct", 0.1), ("ect", 0.0)])
def test_consistency_recipes_sample_in_a_few_evaluations(name, floor):
    recipe, points = recipes.get(name, **({"t_min": floor} if floor else {})), []

    def seen(x, c_noise):
        points.append((x, c_noise))
        return net(x, c_noise)

    assert recipe.times(1) == (80.0,)
    x = recipe.sample(seen, Z, (80.0, 0.8), lambda i: X0)
    assert len(points) == recipe.evaluations(2) == 2
    first = recipe.function(net)(80.0 * Z, 80.0)
    expected = recipe.function(net)(first + np.sqrt(0.64 - floor**2) * X0, 0.8)
    np.testing.assert_allclose(x, expected, rtol=1e-12)
    np.testing.assert_allclose(points[1][1], np.log(0.8) / 4)


def test_tcm_starts_nowhere_below_its_transition():
    recipe = recipes.get("tcm", transition=2.0)
    assert recipe.lowest_time == recipe.times(2)[-1] == 2.0
    assert recipes.get("cd", t_min=0.1).lowest_time == 0.1


def test_default_times_that_do_not_decrease_are_a_sentence():
    with pytest.raises(ValueError, match=r"the last of several steps is at t = 0.5, which is not below t_max = 0.4"):
        recipes.get("cd", t_max=0.4).times(2)


@pytest.mark.parametrize("times", [(80.0, 0.8), (0.5, 0.0), (1.0, 0.5)])
def test_straight_ways_go_from_noise_to_data(times):
    with pytest.raises(ValueError, match=r"from 1, noise, to 0, data; got \["):
        recipes.get("psd").sample(net, Z, times, lambda i: X0)


def test_shortcuts_ask_for_no_way_that_they_do_not_learn():
    recipe, asked = recipes.get("shortcut", levels=3, diagonal=0.0), []

    def seen(x, c_noise, c_end):
        asked.append(c_end)
        return net(x, c_noise, c_end=c_end)

    for length in (0.1, 0.5, 0.9):  # 1, 1/2 and 1/4
        draws = dict.fromkeys(recipe.draws, UNIFORM) | {"length": np.full(4, length)}
        recipe.loss({"online": net, "target": seen}, X0, Z, draws, recipe.scalars(5, 10), {})
    assert {float(length) for lengths in asked for length in lengths} == {0.0, 0.25, 0.5}


def test_sct_vr_averages_over_a_class_alone():
    recipe, label = recipes.get("sct-vr"), np.array([0, 1, 1, 0])

    def heedless(x, c_noise, label=None):
        return net(x, c_noise)

    def loss(rows, **cond):
        nets = dict.fromkeys(("online", "target"), heedless)
        return recipe.loss(nets, X0[rows], Z[rows], {"t": NORMAL[rows]}, recipe.scalars(5, 10), cond)

    found = loss(slice(None), label=label)
    for each in (0, 1):
        np.testing.assert_allclose(found[label == each], loss(label == each), rtol=1e-12)
    assert not np.allclose(found, loss(slice(None)))


def test_guidance_needs_a_network_that_knows_no_class():
    for options in ({"guidance": 3.0}, {"guidance_mix": 0.5}):
        with pytest.raises(ValueError, match="label_dropout must be above 0"):
            recipes.get("meanflow", label_dropout=0.0, **options)
    assert (
        recipes.get("meanflow", label_dropout=0.0, guidance=0.6, guidance_mix=0.4).guidance == 0.6
    )  # never asks for it


@pytest.mark.skipif("torch" not in CHOSEN, reason="the loss takes a derivative, and torch does not take part")
def test_meanflow_guides_no_sample_whose_class_is_hidden():
    """With a network that answers 0 the loss is the target's square: guided, times omega; hidden, the sample's velocity's."""
    import torch

    x0, z, low, hidden = (torch.asarray(v) for v in (X0, Z, np.zeros(4), np.array([0.1, 0.9, 0.1, 0.9])))
    draws = {"t": low - 3.0, "s": low - 3.0, "diagonal": low, "hidden": hidden}

    def silent(x, t, c_end, label):
        return 0.0 * x

    recipe = recipes.get("meanflow", guidance=3.0, power=0.0, label_dropout=0.5)
    found = recipe.loss({"online": silent}, x0, z, draws, {}, {"label": torch.zeros(4, dtype=torch.int64)})
    plain = ((z - x0) ** 2).sum(1)
    np.testing.assert_allclose(found, plain * torch.asarray([1.0, 9.0, 1.0, 9.0]), rtol=1e-12)


def test_tcm_samples_from_no_time_below_its_transition():
    recipe = recipes.get("tcm", transition=1.0)
    with pytest.raises(ValueError, match=r"from the transition, 1.0, up; got 0.5"):
        recipe.sample(net, Z, (80.0, 0.5), lambda i: Z)
    for steps in (1, 2, 5):
        recipe.sample(net, Z, recipe.times(steps), lambda i: Z)


WRONG = {
    "a loss per sample": (
        "have one loss per sample, of shape",
        lambda loss, pair: (lambda *a: loss(*a)[:, None], pair),
    ),
    "one loss": ("have one loss per sample, of shape", lambda loss, pair: (lambda *a: loss(*a).mean(), pair)),
    "times": ("draw a cmcore.grids.TimePair, got tuple", lambda loss, pair: (loss, lambda *a: tuple(pair(*a)))),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_method_that_gives_something_else_is_told(wrong, monkeypatch):
    sentence, spoilt = WRONG[wrong]
    recipe = recipes.get("ect")
    loss, pair = spoilt(recipe.per_sample, recipe.pair)
    monkeypatch.setattr(type(recipe), "per_sample", lambda self, *a: loss(*a))
    monkeypatch.setattr(type(recipe), "pair", lambda self, *a: pair(*a))
    with pytest.raises((TypeError, ValueError), match=f"The recipe 'ect' must {sentence}"):
        recipe.loss(NETS, X0, Z, numbers(recipe), recipe.scalars(5, 10), {})


def test_a_method_must_be_a_dataclass():
    class Plain(type(recipes.get("cd"))):
        optimizer = cm.Optimizer("adam")

    with pytest.raises(TypeError, match=r"write @dataclass\(frozen=True\) above Plain"):
        Plain()


@pytest.mark.parametrize(
    "order", [(recipes.StraightFlowMap, recipes.Distils), (recipes.Distils, recipes.StraightFlowMap)]
)
def test_a_method_with_a_teacher_is_one_in_any_order(order):
    class Taught(*order):
        name = "taught"

        def pair(self, draws, scalars):
            return grids.uniform_pair(draws["t"], 18.0)

        def per_sample(self, nets, batch, times):
            return self.denoiser(nets, batch)(batch.x0, times.t)

    recipe = dataclass(frozen=True)(Taught)()
    assert recipe.needs_teacher
    assert recipe.two_times
    with pytest.raises(ValueError, match=r"The recipe 'taught' needs a teacher: .* frozen={\"teacher\": network}"):
        recipe.loss({"online": net}, X0, Z, numbers(recipe), {}, {})


@pytest.mark.parametrize(("name", "steps"), [("edm", 1), ("cd", 0), ("ect", -1)])
def test_too_few_steps_are_a_sentence(name, steps):
    with pytest.raises(ValueError, match=r"at least .* got"):
        recipes.get(name).times(steps)


def test_tables_hold_the_functions_of_their_names():
    for name, weighting in recipes.WEIGHTINGS.items():
        assert weighting is getattr(weightings, name)
    for name in ("l1", "squared_l2"):
        assert recipes.DISTANCES[name] is getattr(distances, name)
    assert recipes.DISTANCES["pseudo_huber"] == distances.PseudoHuber()
    assert recipes.DISTANCES["norm"] == distances.PseudoHuber(1e-8)
    assert recipes.DISTANCES["elementwise_pseudo_huber"] == distances.ElementwisePseudoHuber()
    assert recipes.STEPS == {"euler": solvers.euler, "heun": solvers.heun}
    assert cm.recipes is recipes


DISTILLING = [name for name in recipes.names() if isinstance(recipes.get(name), recipes.Distils)]


@pytest.mark.parametrize("name", DISTILLING)
@pytest.mark.parametrize("path", ["ve", "vp", "cosine", "linear"])
@pytest.mark.parametrize("predicts", ["noise", "velocity", "denoiser"])
def test_a_teacher_on_another_path_is_the_same_denoiser(name, path, predicts):
    law, where = cm.oracles.Mixture([0.3, 0.7], [-1.0, 1.0], 0.4), recipes.PATHS[path]
    along = cm.oracles.Along(law, where)

    def network(x, c_noise):
        t = c_noise / 999
        denoised = along.denoiser(x, t)
        return {"noise": where.noise, "velocity": where.velocity, "denoiser": lambda x, t, d: d}[predicts](
            x, t, denoised
        )

    recipe = recipes.get(name, teacher_path=path, teacher_predicts=predicts, teacher_time_scale=999.0)
    batch = recipes.Batch(X0, Z, {"t": UNIFORM}, {}, {})
    x, t = 2.0 * X0, np.array([0.005, 0.3, 4.0, 70.0])
    got = recipe.denoiser({"teacher": network}, batch)(x, t)
    np.testing.assert_allclose(got, law.denoiser(x, t), rtol=1e-9, atol=1e-9)
    assert recipe.parametrization_data == recipes.get(name).parametrization_data
    assert recipe.network_kind == recipes.get(name).network_kind


def test_a_teacher_on_another_path_is_guided_too():
    def network(x, c_noise, label):
        return 0.1 * x + 0.2 * label[:, None]

    recipe = recipes.get("cd", teacher_path="linear", teacher_predicts="denoiser", guidance=3.0)
    label, t = np.array([0, 1, 2, 3]), np.array([0.1, 0.5, 2.0, 9.0])
    got = recipe.denoiser({"teacher": network}, recipes.Batch(X0, Z, {"t": UNIFORM}, {}, {"label": label}))(X0, t)
    plain = 0.1 * X0 / (1 + t[:, None]) - 0.2
    np.testing.assert_allclose(got, plain + 3.0 * (0.2 * label[:, None] + 0.2), rtol=1e-12)


@pytest.mark.parametrize("options", [{"teacher_path": "vp"}, {"teacher_path": "linear"}, {"teacher_time_scale": 999.0}])
def test_an_edm_teacher_has_its_own_path_and_time(options):
    with pytest.raises(ValueError, match='set teacher_predicts to "noise", "velocity" or "denoiser"'):
        recipes.get("cd", **options)


def test_configurations_from_before_there_were_such_teachers_are_read():
    settings = json.loads(json.dumps(recipe_to_json(recipes.get("cd", n=40))))
    for option in [name for name in settings["options"] if name.startswith("teacher_")]:
        del settings["options"][option]
    assert recipe_from_json(settings) == recipes.get("cd", n=40)
    assert "teacher_path" not in settings["options"]


def declared(recipe_class, option):
    """The default in the nearest declaration of an option, read from the sources of the class and those that it derives from."""
    for cls in recipe_class.__mro__:
        if cls is object:
            continue
        for line in ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body:
            if isinstance(line, ast.AnnAssign) and line.value is not None and line.target.id == option:
                value = eval(ast.unparse(line.value), vars(sys.modules[cls.__module__]))
                return getattr(value, "default", value)
    raise LookupError(option)


@pytest.mark.parametrize("name", recipes.names())
def test_the_defaults_are_those_of_the_nearest_declaration(name):
    recipe = recipes.get(name)
    for option in fields(recipe):
        assert getattr(recipe, option.name) == declared(type(recipe), option.name), option.name


def test_the_nearest_declaration_counts_in_a_method_of_ones_own():
    @dataclass(frozen=True)
    class Mine(recipes.StraightFlowMap):
        optimizer: Optimizer = Optimizer("adam", lr=3e-3)
        sigma_data: float = 0.4
        name = "mine"

        def pair(self, draws, scalars):
            return grids.uniform_pair(draws["t"], 18.0)

        def per_sample(self, nets, batch, times):
            return times.t

    @dataclass(frozen=True)
    class Both(recipes.Distils, Mine):
        guidance: float = 2.0

    assert Both().optimizer == Optimizer("adam", lr=3e-3)
    assert (Both().sigma_data, Both(sigma_data=0.3).sigma_data) == (0.4, 0.3)
    assert (Both().guidance, Both().teacher_path) == (2.0, "ve")


@pytest.mark.source
@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_is_put_together_and_inherits_nothing_to_refuse_it(name):
    recipe = type(recipes.get(name))
    assert recipe.__final__
    assert recipe_lines.depth(recipe, recipes.Recipe) <= 2
    assert recipe_lines.depth(recipe, recipes.part.Part) <= 3  # `Recipe` itself is one below
    for base in recipe.__mro__[1:-1]:
        if issubclass(base, recipes.Recipe):
            assert inspect.isabstract(base), base
    assert recipe_lines.refused(name) == []
    assert sum(recipe_lines.count(name)) <= 45


@pytest.mark.source
def test_half_of_the_recipes_are_short():
    assert median(sum(recipe_lines.count(name)) for name in recipes.names()) <= 18
