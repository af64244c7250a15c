"""Data of any scale, centre, range and labels: trained on as they are meant, or asked about."""

import re
import warnings

import numpy as np
import pytest
from conftest import TRAINABLE

import cmcore as cm
from cmcore.generate import generate
from cmcore.model import DataFacts, load_model
from cmcore.run.cli import main
from cmcore.run.config import Config
from cmcore.run.data import load
from cmcore.run.data.samples import Samples
from cmcore.run.evaluate import evaluate
from cmcore.run.plan import caution, make_plan
from cmcore.run.standardize import measured
from cmcore.run.train import train

RNG = np.random.default_rng(0)
needs_training = pytest.mark.skipif(not TRAINABLE, reason="no backend that can train takes part")


def points(tmp_path, x, **options):
    np.savez(tmp_path / "a.npz", x)
    return load(str(tmp_path / "a.npz"), **options)


SCALES = {
    "N(100, 1)": RNG.normal(100, 1, (400, 2)),
    "N(0, 300)": RNG.normal(0, 300, (400, 2)),
    "N(1000, 300)": RNG.normal(1000, 300, (400, 2)),
    "tiny": RNG.normal(3e-8, 1e-8, (400, 2)),
    "huge": RNG.normal(1e12, 1e11, (400, 2)),
    "year and age": np.stack([RNG.uniform(1950, 2020, 400), RNG.gamma(4, 10, 400)], axis=1),
    "bytes": RNG.integers(0, 256, (400, 64), dtype=np.uint8),
    "half": RNG.normal(50, 2, (400, 2)).astype(np.float16),
    "big-endian, Fortran order": np.asfortranarray(RNG.normal(7, 3, (400, 3)).astype(">f8")),
    "a single column": RNG.normal(9, 2, 400),
    "heavy tails": RNG.standard_cauchy((400, 2)),
    "latents": RNG.normal(12, 5, (40, 4, 8, 8)),
}


@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize("name", SCALES)
def test_the_network_sees_the_papers_scale_and_samples_come_back(tmp_path, name, per_column):
    latents = name == "latents"
    if latents and per_column:
        pytest.skip("latents have a scale for each channel in any case")
    data = points(tmp_path, SCALES[name], latents=latents)
    plan = make_plan(Config(per_column=per_column), data)
    seen = plan.data.standardized(data.x).astype(np.float64)
    axes = (0, *range(2, seen.ndim))
    np.testing.assert_allclose(seen.mean(axis=axes), 0, atol=1e-3)
    assert seen.std() == pytest.approx(0.5, rel=1e-3)
    assert plan.recipe.sigma_data == 0.5
    if per_column or latents:
        np.testing.assert_allclose(seen.std(axis=axes), 0.5, rtol=1e-3)
    else:
        # One scale: what is wider in the data is as much wider for the network.
        wide = data.x.astype(np.float64).std(axis=0)
        np.testing.assert_allclose(seen.std(axis=0) / seen.std(), wide / np.sqrt((wide**2).mean()), rtol=1e-3)
    back = plan.data.restored(plan.data.standardized(data.x))
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, data.x, rtol=1e-5, atol=1e-5 * np.abs(data.x).max())


def test_a_constant_column_comes_back_exactly(tmp_path):
    data = points(tmp_path, np.stack([np.full(50, 1e9), RNG.normal(0, 2, 50)], axis=1))
    facts = make_plan(Config(per_column=True), data).data
    assert facts.scale[0] == 0
    np.testing.assert_array_equal(facts.restored(RNG.normal(size=(5, 2)))[:, 0], np.float32(1e9))
    np.testing.assert_array_equal(facts.standardized(data.x)[:, 0], 0)
    assert make_plan(Config(per_column=True), data).recipe.sigma_data == pytest.approx(0.5 * 0.5**0.5)


def test_a_constant_column_comes_back_exactly_beside_columns_of_one_scale(tmp_path):
    x = np.stack([RNG.normal(5, 2, 200), np.full(200, 7.5), RNG.normal(0, 4, 200)], axis=1)
    data = points(tmp_path, x)
    plan = make_plan(Config(), data)
    assert plan.data.scale[0] == plan.data.scale[2] > plan.data.scale[1] == 0
    seen = plan.data.standardized(data.x).astype(np.float64)
    assert seen[:, [0, 2]].std() == pytest.approx(0.5, rel=1e-3)
    assert plan.recipe.sigma_data == pytest.approx(seen.std(), rel=1e-3)
    assert (plan.data.restored(RNG.normal(size=(5, 3)))[:, 1] == 7.5).all()


@pytest.mark.parametrize(
    ("deviations", "options", "told"),
    [
        ([1e6, 1.0], {}, r"Of the 2 columns, 1 \(column 2\) .* Give --per-column"),
        ([1.0, 1e3, 1.0, 1e3], {}, r"2 \(columns 1, 3\)"),
        ([1e-3] * 7 + [1.0], {}, r"7 \(columns 1, 2, 3, 4, 5, \.\.\.\)"),
        ([1e3, 1.0], {"recipe": "ct", "options": {"t_min": 1e-6}}, None),
        ([1e6, 1.0], {"per_column": True}, None),
        ([10.0, 1.0], {}, None),
        ([1.0, 0.0], {}, None),
    ],
    ids=str,
)
def test_columns_that_one_scale_hides_are_told(tmp_path, deviations, options, told):
    data = points(tmp_path, RNG.normal(size=(300, len(deviations))) * deviations)
    said = caution(make_plan(Config(**options), data), data, False)
    assert said is told or re.search(told, said)


@needs_training
def test_a_run_says_which_columns_its_scale_hides(tmp_path, capsys):
    np.savez(tmp_path / "a.npz", RNG.normal(size=(50, 2)) * [1e6, 1.0])
    few = ["--backend", TRAINABLE[0], "--steps", "1", "--width", "8", "--blocks", "1", "--batch", "4", "--no-compile"]
    command = ["train", "--data", str(tmp_path / "a.npz"), *few]
    assert main([*command, "--out", str(tmp_path / "run")]) == 0
    assert "(column 2) will hardly be learned" in capsys.readouterr().err
    assert main([*command, "--init", str(tmp_path / "run"), "--out", str(tmp_path / "other")]) == 0
    told = capsys.readouterr().err
    assert "train without a teacher and --init" in told
    assert "--per-column" not in told


def test_measures_are_those_of_float64():
    x = (RNG.normal(3e4, 1, (1000, 3))).astype(np.float32)
    center, scale = measured(Samples(x), per_column=True)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(center, wide.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(scale, 2 * wide.std(axis=0), rtol=1e-9)


@pytest.mark.parametrize(
    ("x", "told"),
    [
        (1e12 + RNG.normal(0, 1, (50, 2)), "single precision tells apart"),
        (1e300 + RNG.normal(0, 1, (50, 2)), "too large for single precision"),
        (np.array([["2020-01-01", "2021-01-01"]], "datetime64[D]"), "real numbers"),
        (np.zeros((3, 2), [("a", float)]), "real numbers"),
        (np.zeros((0, 2)), "none of its axes empty"),
        (np.full((4, 2), np.nan), "NaN"),
        (np.array([[1.0, np.nan], [2.0, 3.0]]), "NaN"),
        (np.full((4, 2), 7.0), "nothing to learn"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_points_that_cannot_be_used_are_sentences(tmp_path, x, told):
    with pytest.raises((cm.Error, ValueError), match=told):
        points(tmp_path, x)


@needs_training
def test_a_run_on_points_samples_in_the_datas_units(tmp_path):
    data = points(tmp_path, RNG.normal(1000, 300, (400, 2)))
    config = Config(recipe="ect", backend=TRAINABLE[0], steps=2, batch=8, width=8, blocks=1, compiled=False)
    train(config, data, out=tmp_path / "run")
    model = load_model(tmp_path / "run")
    assert model.data.scale == make_plan(config, data).data.scale
    x = generate(model, 200)
    assert abs(x.mean() - 1000) < 200  # hardly trained, and near already
    row, _ = evaluate(model, data, steps=[1], n=50)
    assert row.sliced > 1  # in the data's units
    student = make_plan(Config(recipe="ect"), points(tmp_path, RNG.normal(0, 1, (50, 2))), init=model)
    assert (student.data.center, student.data.scale) == (model.data.center, model.data.scale)
    with pytest.raises(cm.Error, match="leave out --per-column"):
        make_plan(Config(recipe="ect", per_column=True), data, init=model)


def test_images_and_models_of_before_keep_their_numbers():
    facts = DataFacts("a", (1, 4, 4), True)
    x = RNG.normal(size=(3, 1, 4, 4)).astype(np.float32)
    assert facts.standardized(x) is x
    assert facts.restored(x) is x
    assert make_plan(Config(), load("digits")).data.scale == ()
    with pytest.raises(cm.Error, match="--per-column is for points"):
        make_plan(Config(per_column=True), load("digits"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"center": (0.0,)},
        {"scale": (1.0,)},
        {"center": (0.0,), "scale": (-1.0,)},
        {"center": (0.0, 0.0), "scale": (1.0,)},
        {"center": (float("nan"),), "scale": (1.0,)},
    ],
)
def test_facts_that_cannot_be_are_sentences(wrong):
    with pytest.raises(ValueError, match=r"\.$"):
        DataFacts("a", (3,), **wrong)


def test_a_recipe_warns_of_a_scale_that_its_times_are_not_made_for():
    for wrong in ({"sigma_data": 300.0}, {"sigma_data": 1.0, "t_max": 5.0}):
        with pytest.warns(UserWarning, match="not well below t_max"):
            cm.recipes.get("ect", **wrong)
    for wrong in ({"sigma_data": 1e-3}, {"sigma_data": 0.5, "t_min": 0.1}):
        with pytest.warns(UserWarning, match="not well above t_min"):
            cm.recipes.get("ct", **wrong)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in cm.recipes.names():
            cm.recipes.get(name)


@needs_training
@pytest.mark.parametrize(("mean", "std", "warns"), [(100, 1, True), (0, 300, True), (-30, 0.1, True), (0, 0.5, False)])
def test_a_trainer_warns_of_a_first_batch_far_from_zero(mean, std, warns):
    backend, recipe = cm.load(TRAINABLE[0]), cm.recipes.get("ect")
    net = backend.network(cm.networks.ResidualMLP((2,), width=8, blocks=1))
    trainer = cm.Trainer(backend, net, recipe.train_spec(compiled=False))
    x = backend.asarray(RNG.normal(mean, std, (16, 2)), "float32")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for step in range(2):
            trainer.step(step, x, recipe.scalars(step, 2))
    assert sum("root mean square" in str(w.message) for w in said) == warns


PICTURES = RNG.uniform(0, 1, (6, 8, 8))


@pytest.mark.parametrize(
    ("x", "answer"),
    [
        (PICTURES, "0,1"),
        (PICTURES.astype(np.float32) * 255, "0,255"),
        (PICTURES - 0.5, "-0.5,0.5"),
        (0.2 + 0.7 * PICTURES, "0,1"),
        ((PICTURES - 0.45) / 0.225, "-1,1"),
        ((PICTURES * 65535).astype(np.uint16), "0,65535"),
        ((PICTURES * 16).astype(np.uint8), "0,255"),
        ((PICTURES > 0.5).astype(np.uint8), "0,1"),
        (-2.8 + 5.3 * PICTURES, "-1,1"),
    ],
)
def test_a_range_that_is_not_plausible_is_a_question_with_the_answer_in_it(tmp_path, x, answer):
    with pytest.raises(cm.Error, match=rf"Which values are black and white\? .*--range={answer}"):
        points(tmp_path, x)
    low, high = map(float, answer.split(","))
    notes = []
    data = points(tmp_path, x, value_range=(low, high), note=notes.append)
    expected = (2 * (x.astype(np.float64) - low) / (high - low) - 1).clip(-1, 1)
    np.testing.assert_allclose(data.x[:, 0], expected, atol=1e-6)
    beyond = (x < low) | (x > high)
    assert any("were clipped" in note for note in notes) == bool(beyond.any())


@pytest.mark.parametrize(
    "x", [2 * PICTURES - 1, (255 * PICTURES).astype(np.uint8), PICTURES > 0.5, (2 * PICTURES - 1) * (1 + 1e-6)]
)
def test_plausible_ranges_are_not_asked_about(tmp_path, x):
    data = points(tmp_path, x)
    assert data.x.min() >= -1
    assert data.x.max() <= 1
    assert data.x.max() - data.x.min() > 1.9


def test_a_range_is_typed(tmp_path, capsys):
    np.savez(tmp_path / "a.npz", PICTURES)
    arguments = ["train", "--data", str(tmp_path / "a.npz"), "--steps", "1", "--out", str(tmp_path / "run")]
    assert main(arguments) == 2
    assert "--range=0,1" in capsys.readouterr().err
    for wrong in ("--range=1,0", "--range=0,1,2", "--range=0,inf"):
        assert main([*arguments, wrong]) == 2
        assert "such as --range=0,1" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*arguments, "--range=a,b"])
    assert "such as 0,255" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def labelled(tmp_path, labels, name="y"):
    np.savez(tmp_path / "a.npz", **{"x": RNG.normal(size=(len(labels), 2)), name: labels})
    return load(str(tmp_path / "a.npz"), classes=True)


@pytest.mark.parametrize(
    ("labels", "classes", "indices"),
    [
        (np.array([-1, 1, 1]), ("-1", "1"), [0, 1, 1]),
        (np.array([True, False, True]), ("False", "True"), [1, 0, 1]),
        (np.array([[2], [0], [2]]), ("0", "2"), [1, 0, 1]),
        (np.eye(3)[[2, 0, 1]], ("0", "1", "2"), [2, 0, 1]),
        (np.eye(3, dtype=np.uint8)[[2, 0, 1]], ("0", "1", "2"), [2, 0, 1]),
        (np.array([3.0, 5.0, 3.0]), ("3", "5"), [0, 1, 0]),
        (np.array([["cat"], ["ant"]]), ("ant", "cat"), [1, 0]),
        (np.array([10, 9, 10], ">i2"), ("9", "10"), [1, 0, 1]),
    ],
)
def test_labels_as_people_store_them(tmp_path, labels, classes, indices):
    for name in ("y", "label", "y_train", "arr_1"):
        data = labelled(tmp_path, labels, name)
        assert data.classes == classes
        assert data.labels.tolist() == indices


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (np.array([0, -1, 2]), "1 of the 3 labels .* without --classes"),
        (np.array([-1, -1, -1]), "without a label"),
        (np.array([0.0, -1.0, 1.0]), "without a label"),
        (np.array([0.0, np.nan, 1.0]), "NaN"),
        (np.array([0.5, 1.0, 1.0]), "one integer or string"),
        (np.array([[1, 1], [0, 1], [1, 0]]), "one integer or string"),
    ],
)
def test_labels_that_are_none_are_sentences(tmp_path, labels, told):
    with pytest.raises((cm.Error, ValueError), match=told):
        labelled(tmp_path, labels)


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (("-1", "1"), np.array([-1, 1])),
        (("False", "True"), np.array([False, True])),
        (("0", "10", "9"), np.array([0, 10, 9])),
        (("007", "008"), np.array(["007", "008"])),
        (("cat", "-1"), np.array(["cat", "-1"])),
    ],
)
def test_sampled_labels_are_the_datas(classes, expected):
    from cmcore.run.data.labels import named

    got = named(np.arange(len(classes)), classes)
    assert got.dtype.kind == expected.dtype.kind
    assert got.tolist() == expected.tolist()


def test_kerass_and_medmnists_names(tmp_path):
    x = RNG.integers(0, 256, (7, 8, 8), dtype=np.uint8)
    for names in (
        ("x_train", "y_train", "x_test", "y_test"),
        ("train_images", "train_labels", "test_images", "test_labels"),
    ):
        np.savez(tmp_path / "a.npz", **dict(zip(names, (x[:4], np.arange(4), x[4:], np.arange(3)), strict=True)))
        data = load(str(tmp_path / "a.npz"), classes=True)
        assert (len(data.x), len(data.held_out), data.labels.tolist()) == (4, 3, [0, 1, 2, 3])


def test_evaluators_samples_are_data(tmp_path):
    x = RNG.integers(0, 256, (7, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", x, np.arange(7))
    data = load(str(tmp_path / "a.npz"), classes=True)
    np.testing.assert_array_equal(np.rint((data.x + 1) * 127.5), np.moveaxis(x, 3, 1))
    assert data.labels.tolist() == list(range(7))


def test_latents_are_asked_for(tmp_path):
    x = RNG.normal(0, 1, (20, 4, 16, 16))
    with pytest.raises(cm.Error, match="--kind latents"):
        points(tmp_path, x)
    plan = make_plan(Config(latents=True), points(tmp_path, x, latents=True))
    assert plan.architecture.kind == "conv"
    assert len(plan.data.scale) == 4
    for wrong in (x[0], x[:, 0, 0]):
        with pytest.raises(ValueError, match="Latents are"):
            points(tmp_path, wrong, latents=True)
    with pytest.raises(ValueError, match="Latents are read from"):
        load("digits", latents=True)
