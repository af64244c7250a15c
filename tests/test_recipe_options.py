"""What other programs can say and a recipe by its options can too: each against its formula."""

import json
import math
import sys

import numpy as np
import pytest
from test_recipes import NETS, NORMAL, UNIFORM, X0, Z, net, numbers, target, teacher

import cmcore as cm
from cmcore import distances, recipes, solvers, tangents
from cmcore.flow_maps import AverageVelocity, TowardDenoiser
from cmcore.model import recipe_from_json, recipe_to_json
from cmcore.options import function_name, function_of
from cmcore.parametrization import EDM, Boundary, ConsistencyFunction, TrigFlow
from cmcore.recipes.moment_matching import laplace_discrepancy
from cmcore.recipes.trajectory import Trajectory
from cmcore.run.config import Config


def cubed(x, y):
    """A distance of one's own."""
    return (np.abs(x - y) ** 3).sum(1)


def by_sigma(times, sigma_data):
    """A weighting of one's own."""
    return times.t * sigma_data


def loss(name, scalars=None, draws=None, **options):
    recipe = recipes.get(name, **options)
    scalars = {k: np.array(v) for k, v in (scalars or recipe.scalars(300, 1000)).items()}
    return recipe.loss(NETS, X0, Z, draws or numbers(recipe), scalars, {})


def ect_ends():
    """The online network's output and its target, and the times, of a batch of `ect` at stage 3."""
    t = np.exp(-1.1 + 2.0 * NORMAL)
    r = np.maximum(0, t * (1 - (1 + 8 / (1 + np.exp(t))) / 2**4))
    f, f_target = ConsistencyFunction(net, EDM(0.5)), ConsistencyFunction(target, EDM(0.5))
    return f(X0 + t[:, None] * Z, t), f_target(X0 + r[:, None] * Z, r), t, r


def ect(**options):
    return loss("ect", {"stage": 3.0}, {"t": NORMAL}, **options)


def test_any_function_is_a_distance_or_a_weighting():
    ours, theirs, t, _ = ect_ends()
    for distance in (cubed, f"{__name__}:cubed"):
        np.testing.assert_allclose(ect(distance=distance, weighting=by_sigma), 0.5 * t * cubed(ours, theirs), rtol=1e-9)


def test_functions_are_stored_by_name_and_found_without_running_anything():
    recipe = recipes.get("ect", distance=cubed, weighting=by_sigma, lr=0.1)
    stored = json.loads(json.dumps(recipe_to_json(recipe)))
    assert stored["options"]["distance"] == f"{__name__}:cubed" == function_name(cubed)
    again = recipe_from_json(stored)
    assert function_of(again.distance, {}) is cubed
    assert json.loads(json.dumps(recipe_to_json(again))) == stored
    assert Config(options={"distance": cubed}).options == {"distance": f"{__name__}:cubed"}
    elsewhere = recipes.get("ect", distance="antigravity:cubed")  # a module that does something where it is imported
    with pytest.raises(ValueError, match=r"no function 'antigravity:cubed' .*; import antigravity before it is used\."):
        elsewhere.compare(X0, Z)


@pytest.mark.parametrize(
    "function", [lambda x, y: x, distances.PseudoHuber(0.1), np.float64(3).item], ids=["lambda", "instance", "method"]
)
def test_a_function_that_has_no_name_cannot_be_saved(function):
    recipe = recipes.get("ect", distance=function)
    for saved in (lambda: recipe_to_json(recipe), lambda: Config(options={"distance": function})):
        with pytest.raises(
            ValueError, match=r"cannot be saved by name: give a function that a module of yours has .*\.$"
        ):
            saved()


def test_a_function_of_the_script_that_runs_cannot_be_saved(monkeypatch):
    """Another script would have another one of that name, or none."""

    def own(x, y):
        return cubed(x, y)

    own.__module__, own.__qualname__ = "__main__", "own"
    monkeypatch.setattr(sys.modules["__main__"], "own", own, raising=False)
    with pytest.raises(ValueError, match="cannot be saved by name"):
        function_name(own)


@pytest.mark.parametrize("c", [0.06, 0.5])
def test_the_hubers_c_is_an_option(c):
    ours, theirs, t, r = ect_ends()
    squared = (ours - theirs) ** 2
    whole = (np.sqrt(squared.sum(1) + c**2) - c) / (t - r)
    np.testing.assert_allclose(ect(huber_c=c), whole, rtol=1e-7)
    np.testing.assert_allclose(ect(distance="pseudo_huber", huber_c=c), whole, rtol=1e-7)
    elements = (np.sqrt(squared + c**2) - c).mean(1) / (t - r)
    np.testing.assert_allclose(ect(distance="elementwise_pseudo_huber", huber_c=c), elements, rtol=1e-7)
    elements = (np.sqrt(squared + 0.03**2) - 0.03).mean(1) / (t - r)
    np.testing.assert_allclose(ect(distance="elementwise_pseudo_huber"), elements, rtol=1e-7)
    assert np.array_equal(ect(distance="squared_l2", huber_c=c), ect(distance="squared_l2"))
    ict = recipes.get("ict", huber_c=c)
    np.testing.assert_allclose(ict.compare(ours, theirs), distances.PseudoHuber(c)(ours, theirs), rtol=1e-12)


def test_tcms_weights():
    ours, theirs, t, r = ect_ends()
    norm = np.sqrt(((ours - theirs) ** 2).sum(1))
    np.testing.assert_allclose(ect(weighting="inverse_root_gap"), norm / np.sqrt(t - r), rtol=1e-6)
    c_out = 0.5 * t / np.sqrt(t**2 + 0.25)
    np.testing.assert_allclose(ect(weighting="inverse_c_out"), norm / c_out, rtol=1e-6)


def test_r_and_the_gap_have_floors():
    scalars, t = {"stage": 0.0}, np.exp(-1.1 + 2.0 * NORMAL)
    plain = recipes.get("ect").pair({"t": NORMAL}, scalars)
    assert (plain.r == 0).any()
    least = float(np.sort(t)[1])
    pair = recipes.get("ect", min_r=least).pair({"t": NORMAL}, scalars)
    np.testing.assert_allclose(pair.r, np.where(t > least, np.maximum(plain.r, least), plain.r), rtol=1e-12)
    np.testing.assert_allclose(pair.gap, t - pair.r, rtol=1e-12)
    assert (pair.gap > 0).all()
    floored = recipes.get("tcm", min_gap=0.1).pair({"t": UNIFORM, "boundary": UNIFORM}, {"stage": 30.0})
    np.testing.assert_allclose(floored.gap, 0.1 * (1 + 8 / (1 + np.exp(floored.t))) * floored.t, rtol=1e-9)


def labelled(x, c_noise, label):
    return 0.1 * x + 0.2 * label[:, None]


@pytest.mark.parametrize(("low", "high"), [(0.0, 2.0), (0.5, 0.0), (0.3, 3.0)])
def test_a_teacher_is_guided_within_an_interval(low, high):
    options = {"teacher_predicts": "denoiser", "guidance": 3.0, "guidance_low": low, "guidance_high": high}
    label, t = np.array([0, 1, 2, 3]), np.array([0.1, 0.5, 2.0, 9.0])
    batch = recipes.Batch(X0, Z, {"t": UNIFORM}, {}, {"label": label})
    got = recipes.get("cd", **options).denoiser({"teacher": labelled}, batch)(X0, t)
    w = np.where((t > low) & (t <= (high or math.inf)), 3.0, 1.0)[:, None]
    np.testing.assert_allclose(got, 0.1 * X0 - 0.2 + w * (0.2 * label[:, None] + 0.2), rtol=1e-12)


def test_a_denoiser_samples_with_guidance_in_an_interval():
    asked, label = [], np.array([0, 1, 1, 0])

    def seen(x, c_noise, label):
        asked.append((float(np.exp(4 * c_noise[0])), label[0] < 0))
        return labelled(x, c_noise, label)

    recipe = recipes.get("edm", guidance=2.0, guidance_low=0.5, label_dropout=0.1)
    found = recipe.sample(seen, Z, recipe.times(6), lambda i: Z, {"label": label})
    assert len(asked) == recipe.evaluations(6) == 22

    def by_hand(x, t):
        d = [
            EDM().scalings(t).c_skip[:, None] * x
            + EDM().scalings(t).c_out[:, None] * labelled(EDM().scalings(t).c_in[:, None] * x, t, y)
            for y in (0 * label - 1, label)
        ]
        return d[0] + np.where(t > 0.5, 2.0, 1.0)[:, None] * (d[1] - d[0])

    np.testing.assert_allclose(found, solvers.solve(solvers.heun, by_hand, 80.0 * Z, recipe.times(6)), rtol=1e-9)
    with pytest.raises(ValueError, match=r"label_dropout must be above 0\.$"):
        recipes.get("edm", guidance=2.0).sample(seen, Z, (80.0, 1.0, 0.0), lambda i: Z, {"label": label})
    with pytest.raises(ValueError, match=r"guidance_high, which must be more; got 2.0 and 1.0\.$"):
        recipes.get("edm", guidance_low=2.0, guidance_high=1.0)


def test_meanflow_guides_within_an_interval():
    def answers(x, t, c_end, label):
        return 0.0 * x + 0.3 * label[:, None]

    recipe = recipes.get("meanflow", guidance=3.0, guidance_mix=0.5, guidance_low=0.3, guidance_high=0.7)
    t, label = np.array([0.2, 0.4, 0.6, 0.8]), np.array([1, 2, 3, 4])
    batch = recipes.Batch(X0, Z, {"hidden": 0.0 * t + 0.9}, {}, {"label": label})
    v = Z - X0
    expected = 3.0 * v + 0.5 * 0.3 * label[:, None] - 2.5 * -0.3
    found = recipe.guided(AverageVelocity(answers), batch, X0, t)
    np.testing.assert_allclose(found, np.where(((t > 0.3) & (t <= 0.7))[:, None], expected, v), rtol=1e-12)


SD, WARMUP = 0.5, 0.4
TRIG = np.arctan(np.exp(-1.0 + 1.4 * NORMAL) / SD)[:, None]
COS, SIN = np.cos(TRIG), np.sin(TRIG)
X_T, V = COS * X0 + SIN * SD * Z, COS * SD * Z - SIN * X0
F = 0.7 * X_T / SD + TRIG
DF = 0.7 * V / SD + 1.0
"""The affine network's F and dF/dt along the data's path, of `sct`'s batch."""


def sct(**options):
    """The loss with an exact difference: the network is linear in x and t, so the central one is."""
    options = {"learned_weight": False, "normalize": math.inf, "difference": 1e-3, "tangent_warmup": 10} | options
    return loss("sct", {"tangent_warmup": WARMUP}, {"t": NORMAL}, **options)


def paper_tangent(derivative=DF):
    return -(COS**2) * (SD * F - V) - WARMUP * COS * SIN * (X_T + SD * derivative)


def mean_square(g):
    return (g**2).mean(1)


def test_the_tangents_norm_may_be_of_one_coordinate():
    g = paper_tangent()
    norm = np.sqrt((g**2).sum(1, keepdims=True))
    np.testing.assert_allclose(sct(), mean_square(g), rtol=1e-8)
    np.testing.assert_allclose(sct(normalize=0.1), mean_square(g / (norm + 0.1)), rtol=1e-8)
    rms = g / (norm / math.sqrt(3) + 0.1)
    np.testing.assert_allclose(sct(normalize=0.1, tangent_norm="rms"), mean_square(rms), rtol=1e-8)
    np.testing.assert_allclose(sct(tangent_norm="rms"), sct(), rtol=1e-12)


def test_the_prior_weight_is_one_over_the_noise_level():
    np.testing.assert_allclose(
        sct(prior_weight=True), mean_square(paper_tangent()) / np.exp(-1.0 + 1.4 * NORMAL), rtol=1e-8
    )


def test_rcms_warmup_is_inside_the_root():
    root = np.sqrt(1 - WARMUP**2 * SIN**2)
    g = -COS * root * (SD * F - V) - WARMUP * COS * SIN * (X_T + SD * DF)
    np.testing.assert_allclose(sct(warmup_form="rcm"), mean_square(g), rtol=1e-8)
    assert not np.allclose(g, paper_tangent())


@pytest.mark.parametrize("h", [0.01, 0.2, 1.0])
def test_the_backward_difference_is_of_scms_second_algorithm(h):
    """At x_s on the sample's own path, where the same datum and noise lead."""
    step = np.minimum(h, TRIG / 2)
    s = TRIG - step
    earlier = 0.7 * (np.cos(s) * X0 + np.sin(s) * SD * Z) / SD + s
    g = paper_tangent((np.cos(step) * F - earlier) / np.sin(step))
    np.testing.assert_allclose(sct(difference=h, difference_form="backward"), mean_square(g), rtol=1e-8)


def test_the_backward_difference_tends_to_the_derivative():
    errors = [
        np.abs(
            tangents.backward_difference(h)(
                lambda y, t: np.sin(y) * t[:, None] ** 2, (X_T / SD, TRIG[:, 0]), (V / SD, np.ones(4))
            )[1]
            - (np.cos(X_T / SD) * V / SD * TRIG**2 + 2 * np.sin(X_T / SD) * TRIG)
        ).max()
        for h in (2e-4, 1e-4)
    ]
    assert 1.9 < errors[0] / errors[1] < 2.1
    for h in (0.0, -1.0, 2.0, math.nan):
        with pytest.raises(ValueError, match="above 0 and below pi / 2"):
            tangents.backward_difference(h)


def test_a_trigflow_teacher_is_the_same_denoiser():
    law, path = cm.oracles.Mixture([0.3, 0.7], [-1.0, 1.0], 0.4), cm.paths.Trigonometric(SD)
    along = cm.oracles.Along(law, path)

    def network(y, t):
        return path.velocity(SD * y, t, along.denoiser(SD * y, t)) / SD

    recipe = recipes.get("scd", teacher_predicts="trigflow", sigma_data=SD)
    t = np.array([0.005, 0.3, 4.0, 70.0])
    got = recipe.denoiser({"teacher": network}, recipes.Batch(X0, Z, {"t": NORMAL}, {}, {}))(2.0 * X0, t)
    np.testing.assert_allclose(got, law.denoiser(2.0 * X0, t), rtol=1e-9, atol=1e-9)
    assert recipe.teacher_parametrization() == TrigFlow(SD)
    with pytest.raises(ValueError, match="has TrigFlow's own path and time"):
        recipes.get("scd", teacher_predicts="trigflow", teacher_path="linear")


T, S = np.array([0.5, 2.0, 10.0, 80.0]), np.array([0.1, 1.0, 0.002, 20.0])


def ratio_of_deviations(s, t, least=0.002):
    return np.sqrt(((s - least) ** 2 + 0.25) / ((t - least) ** 2 + 0.25))


@pytest.mark.parametrize(
    ("outer", "skip"),
    [
        ("euler", lambda s, t: s / t),
        ("variance", ratio_of_deviations),
        ("mixed", lambda s, t: (s + ratio_of_deviations(s, t)) / (t + 1)),
    ],
    ids=["euler", "variance", "mixed"],
)
@pytest.mark.parametrize("inner", ["edm", "boundary", "none"])
def test_ctms_outer_and_inner_forms(outer, skip, inner):
    jump = recipes.get("ctm", outer=outer, inner=inner, sigma_data=0.5).function(net)
    x = X0 * T[:, None]
    free = 0.7 * x + np.log(T)[:, None] / 4 + 0.1 * np.log(S)[:, None] / 4
    scaled = {"edm": EDM(), "boundary": Boundary()}
    if inner != "none":
        c_skip, c_out, c_in, c_noise = (c[:, None] for c in scaled[inner].scalings(T))
        free = c_skip * x + c_out * (0.7 * c_in * x + c_noise + 0.1 * np.log(S)[:, None] / 4)
    expected = skip(S, T)[:, None] * x + (1 - S / T)[:, None] * free
    np.testing.assert_allclose(jump(x, T, S), expected, rtol=1e-12)
    np.testing.assert_allclose(jump(x, T, T), x, rtol=1e-12)
    assert type(jump) is (TowardDenoiser if (outer, inner) == ("euler", "edm") else Trajectory)


def test_ctms_forms_are_told_by_files_where_they_are_not_the_papers():
    assert recipes.get("ctm").parametrization_data == {"kind": "TowardDenoiser", "sigma_data": 0.5}
    told = recipes.get("ctm", outer="mixed").parametrization_data
    assert told == {"kind": "TowardDenoiser", "sigma_data": 0.5, "outer": "mixed", "inner": "edm", "t_min": 0.002}


@pytest.mark.parametrize("options", [{}, {"onward": "online"}, {"from_u": "online"}, {"compare_at": "s"}], ids=str)
def test_ctms_target(options):
    recipe = recipes.get("ctm", n=6, reach=3, **options)
    draws = numbers(recipe)
    t, s, _ = recipe.pair(draws, {})
    jump = {name: TowardDenoiser(NETS[name]) for name in NETS}
    x_t = X0 + t[:, None] * Z
    x_u, u = recipe.along(ConsistencyFunction(teacher, EDM()), x_t, t, draws)
    assert ((s <= u) & (u < t)).all()
    ours, theirs = jump["online"](x_t, t, s), jump[options.get("from_u", "target")](x_u, u, s)
    if "compare_at" not in options:
        ours = jump[options.get("onward", "target")](ours, s, 0.002)
        theirs = jump["target"](theirs, s, 0.002)
    denoised = ConsistencyFunction(lambda x, c: net(x, c, c_end=c), EDM())(x_t, t)
    weight = (t**2 + 0.25) / (0.5 * t) ** 2
    expected = ((ours - theirs) ** 2).mean(1) + 0.01 * weight * ((denoised - X0) ** 2).mean(1)
    np.testing.assert_allclose(loss("ctm", draws=draws, n=6, reach=3, **options), expected, rtol=1e-9)


def velocity(network, x, t, s):
    return network(x, t, c_end=t - s)


@pytest.mark.parametrize("power", [0.0, 0.5])
def test_soflow_is_the_difference_of_two_solutions(power):
    """``w |f(x_t, t, s) - f(x_l, l, s)|^2`` with ``w = 1 / ((t - later)(t - s)) (|.|^2 / (t - later)^2 + c)^-p``; flow matching where s = t."""
    recipe = recipes.get("soflow", power=power, mean=0.1, std=0.7)
    draws = numbers(recipe)
    t, s, gap = recipe.pair(draws, {})
    assert (gap > 0).any()
    assert (gap == 0).any()
    share, v = 0.03, Z - X0
    x_t, later = (1 - t)[:, None] * X0 + t[:, None] * Z, t - share * gap
    x_l = x_t - (t - later)[:, None] * v
    squared = (
        (x_t - gap[:, None] * velocity(net, x_t, t, s) - x_l + (later - s)[:, None] * velocity(target, x_l, later, s))
        ** 2
    ).sum(1)
    step = np.where(gap > 0, t - later, 1.0)
    jump = squared / (step * np.where(gap > 0, gap, 1.0)) / (squared / step**2 + 0.01) ** power
    flow = ((velocity(net, x_t, t, t) - v) ** 2).sum(1)
    found = loss("soflow", {"share": share}, draws, power=power, mean=0.1, std=0.7)
    np.testing.assert_allclose(found, np.where(gap > 0, jump, flow / (flow + 0.01) ** power), rtol=1e-9)


def test_soflows_step_shrinks_exponentially():
    recipe = recipes.get("soflow")
    shares = [recipe.curriculum(k, 100)["share"] for k in (0, 50, 100, 200)]
    np.testing.assert_allclose(shares, [0.1, math.sqrt(0.1 * 0.002), 0.002, 0.002], rtol=1e-12)


def test_lsd_is_the_lagrangian_identity(trainable, x64):
    """``|dX/ds - v(X, s)|^2`` with du/ds = -0.1 of the affine network; on the diagonal, flow matching."""
    recipe = recipes.get("lsd")
    draws = numbers(recipe)
    t, s, gap = (v[:, None] for v in recipe.pair(draws, {}))
    x = (1 - t) * X0 + t * Z
    u = 0.7 * x + t + 0.1 * gap
    v = 0.6 * (x - gap * u) + s
    identity = u - gap * -0.1 - v
    expected = np.where(gap > 0, identity, u - (Z - X0))
    assert (gap > 0).any()
    place = lambda v: trainable.asarray(v, "float64")  # noqa: E731
    found = recipe.loss(NETS, place(X0), place(Z), {k: place(v) for k, v in draws.items()}, {}, {})
    np.testing.assert_allclose(trainable.to_numpy(found), (expected**2).mean(1), rtol=1e-9)


def test_imm_compares_groups_at_two_neighbouring_times():
    recipe = recipes.get("imm", particles=2, gap_exponent=6.0, edge=0.1)
    draws = {"t": UNIFORM, "s": UNIFORM[::-1]}
    pair = recipe.pair(draws, {})
    t = 0.1 + 0.8 * np.repeat(UNIFORM[::2], 2)
    s = 0.1 + (t - 0.1) * np.repeat(UNIFORM[::-1][::2], 2)
    np.testing.assert_allclose(pair.t, t, rtol=1e-12)
    np.testing.assert_allclose(pair.r, s, rtol=1e-12)
    ratio = np.maximum(t / (1 - t) - (9 - 1 / 9) / 64, s / (1 - s))
    r = ratio / (1 + ratio)
    np.testing.assert_allclose(recipe.between(pair), r, rtol=1e-12)
    assert (r > s + 1e-3).any()

    def ends(network, time):
        x = (1 - time)[:, None] * X0 + time[:, None] * Z
        return x - (time - s)[:, None] * velocity(network, x, time, s)

    ours, theirs = ends(net, t), ends(target, r)
    expected = []
    for k in (0, 0, 1, 1):
        a, b, width = ours[2 * k : 2 * k + 2], theirs[2 * k : 2 * k + 2], 0.5 * (t - s)[2 * k]
        kernel = [
            np.mean([[np.exp(-np.linalg.norm(p - q) / (3 * width)) for q in two] for p in one])
            for one, two in ((a, a), (b, b), (a, b))
        ]
        expected.append(kernel[0] + kernel[1] - 2 * kernel[2])
    snr = ((1 - t) / t) ** 2
    weight = 1 / (1 + np.exp(np.log(snr) - 5)) * (1 - t) / (t * (1 - t) * (t**2 + (1 - t) ** 2))
    found = recipe.loss(NETS, X0, Z, draws, {}, {})
    np.testing.assert_allclose(found, weight * expected, rtol=1e-5)
    with pytest.raises(ValueError, match=r"in groups of 4 \(the option particles\), and the batch has 3, which"):
        recipes.get("imm").groups(X0[:3])


def test_the_discrepancy_of_one_distribution_is_its_bias_alone():
    """Of two groups of M samples of one distribution the mean is ``2 (1 - E k) / M``: each sample is compared with itself too."""
    a, b = np.random.default_rng(1).standard_normal((2, 4000, 3, 2))
    found = laplace_discrepancy(a, b, np.ones(4000))
    between = np.mean(np.exp(-np.linalg.norm(a[:, 0] - b[:, 0], axis=1) / 2))
    assert found.mean() == pytest.approx(2 * (1 - between) / 3, abs=0.01)
    assert laplace_discrepancy(a, b + 3.0, np.ones(4000)).mean() > 2 * found.mean()


def test_a_step_of_no_length_is_flow_matching_everywhere():
    for name in ("soflow", "lsd", "psd"):
        recipe = recipes.get(name, diagonal=1.0)
        assert not recipe.pair(numbers(recipe), {}).gap.any()
