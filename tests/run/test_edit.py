"""Editing with a trained model, in Python and by the command, on every backend."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import CHOSEN
from PIL import Image

import cmcore as cm
from cmcore.editing import LUMA, Editor
from cmcore.model import DataFacts, Model, save_model
from cmcore.networks import ResidualMLP
from cmcore.run import cli

SHAPE = (3, 4, 4)
RNG = np.random.default_rng(0)
PICTURE = RNG.uniform(-1, 1, SHAPE).astype(np.float32)
MASK = np.zeros((4, 4), bool)
MASK[2:] = True


def make_model(recipe="ct", shape=SHAPE, classes=0):
    chosen = cm.recipes.get(recipe)
    kinds = {"two_times": True} if chosen.two_times else {}
    architecture = ResidualMLP(shape, width=8, blocks=1, classes=classes, **kinds)
    rng = np.random.default_rng(0)
    weights = {k: w + 0.1 * rng.standard_normal(w.shape, np.float32) for k, w in architecture.init(0).items()}
    return Model(chosen, architecture, weights, DataFacts("toy", shape, True, tuple("ab")[:classes]))


TASKS = {
    "inpaint": lambda e: e.inpaint(PICTURE, MASK, 2, steps=3, seed=4),
    "colourise": lambda e: e.colourise(PICTURE, 2, steps=3),
    "upscale": lambda e: e.upscale(PICTURE[:, ::2, ::2], 2, 2, steps=3),
    "stroke": lambda e: e.stroke(PICTURE, 2),
    "variations": lambda e: e.variations(PICTURE, 2),
    "denoise": lambda e: e.denoise(PICTURE, 0.3),
    "interpolate": lambda e: e.interpolate(PICTURE, PICTURE[::-1], 3),
}


@pytest.mark.parametrize("task", TASKS)
def test_one_seed_edits_alike_on_every_backend(task):
    names = [name for name in CHOSEN if name != "tinygrad" or task == "inpaint"]
    made = [TASKS[task](Editor(make_model(), cm.load(name))) for name in names]
    assert made[0].dtype == np.float32
    assert np.isfinite(made[0]).all()
    assert np.abs(made[0]).max() <= 1
    for other in made[1:]:
        assert np.abs(other - made[0]).max() <= 1e-4


def editor(**settings):
    return Editor(make_model(**settings), cm.load("numpy"), batch=2)


def test_known_pixels_come_back_to_the_bit_and_others_do_not():
    x = editor().inpaint(PICTURE, MASK, 3, steps=3)
    assert np.array_equal(x[:, :, ~MASK], np.repeat(PICTURE[None][:, :, ~MASK], 3, 0))
    assert np.abs(x[0] - x[1])[:, MASK].min() > 0
    assert np.abs(x[:2] - Editor(make_model(), cm.load("numpy")).inpaint(PICTURE, MASK, 2, steps=3)).max() < 1e-6


def test_grey_stays_though_colours_are_brought_into_range():
    grey = np.tensordot(np.array(LUMA), PICTURE, axes=1)
    x = editor().colourise(PICTURE, 3, steps=3)
    assert np.abs(np.tensordot(np.array(LUMA), x, axes=([0], [1])) - grey).max() < 1e-6
    assert np.abs(x).max() <= 1
    assert np.abs(x).max() > 0.999  # some were out of it


def test_means_of_patches_stay_though_pixels_are_brought_into_range():
    small = PICTURE[:, ::2, ::2]
    x = editor().upscale(small, 2, 3, steps=3)
    assert np.abs(x.reshape(3, 3, 2, 2, 2, 2).mean((3, 5)) - small).max() < 1e-6
    assert np.abs(x).max() <= 1


def make_latents():
    model = make_model()
    return replace(model, data=DataFacts("toy", SHAPE, center=(0.1, 0.2, 0.3), scale=(3.0, 7.0, 11.0)))


def test_latents_are_edited_in_their_own_units(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cm.backend.registry, "_process_default", None)
    latent = 9 * PICTURE
    x = Editor(make_latents(), cm.load("numpy")).inpaint(latent, MASK, 2, steps=2)
    assert np.array_equal(x[:, :, ~MASK], np.repeat(latent[None][:, :, ~MASK], 2, 0))
    assert np.abs(x).max() > 1
    save_model(make_latents(), "model.safetensors")
    np.save("a.npy", latent)
    Image.fromarray(255 * MASK.astype(np.uint8)).save("m.png")
    asked = ["--task", "inpaint", "--image", "a.npy", "--mask", "m.png", "--steps", "2", "--n", "2", "--out", "o.npz"]
    assert run(*asked) == 0
    assert np.array_equal(np.load("o.npz")["x"], x)


@pytest.mark.parametrize("recipe", ["edm", "ect", "sct", "psd", "ctm", "tcm"])
def test_every_kind_of_recipe_edits(recipe):
    x = editor(recipe=recipe).inpaint(PICTURE, MASK, 1, times=(5.0, 2.0))
    assert np.array_equal(x[0][:, ~MASK], PICTURE[:, ~MASK])
    assert np.isfinite(x).all()


def test_a_flow_map_encodes_decodes_and_interpolates_from_end_to_end():
    e = editor(recipe="psd")
    z = 0.5 * RNG.standard_normal((2, *SHAPE)).astype(np.float32)
    x = e.decode(z)
    if np.abs(x).max() < 1:  # nothing was cut off
        assert np.abs(e.encode(x) - z).max() < 1e-3
    between = e.interpolate(x[0], x[1], 3)
    assert np.abs(between[[0, 2]] - x).max() < 1e-3


def denoised(e, picture):
    return e.denoise(picture, 0.3)


ALL = (
    denoised,
    lambda e, picture: e.inpaint(picture, MASK),
    lambda e, picture: e.colourise(picture),
    lambda e, picture: e.upscale(picture[:, ::2, ::2], 2),
    lambda e, picture: e.stroke(picture),
    lambda e, picture: e.variations(picture),
    lambda e, picture: e.interpolate(picture, PICTURE),
)


def test_a_noisy_picture_may_leave_the_range():
    noisy = PICTURE + 0.3 * RNG.standard_normal(SHAPE).astype(np.float32)
    assert np.abs(noisy).max() > 1.1
    assert editor().denoise(noisy, 0.3).shape == (1, *SHAPE)


def test_a_backend_may_be_named():
    named, own = (Editor(make_model(), backend).stroke(PICTURE) for backend in ("numpy", cm.load("numpy")))
    np.testing.assert_array_equal(named, own)
    with pytest.raises(TypeError, match="A backend is given by name"):
        Editor(make_model(), 3)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda e: e.inpaint(PICTURE[:2], MASK), "shape of the model's data"),
        (lambda e: e.inpaint(PICTURE, MASK * 1.0), "True"),
        (lambda e: e.inpaint(PICTURE, MASK & False), "True somewhere"),
        (lambda e: e.inpaint(PICTURE, MASK, times=(1.0, 2.0)), "must decrease"),
        (lambda e: e.inpaint(PICTURE, MASK, times=(100.0,)), "trained for noise"),
        (lambda e: e.inpaint(PICTURE, MASK, times=(1.0,), steps=2), "not both"),
        (lambda e: e.upscale(PICTURE, 3), "do not fill"),
        (lambda e: e.interpolate(PICTURE), "one"),
        (lambda e: e.denoise(PICTURE, 100.0), "knows noise up to"),
        *(
            (lambda e, s=s: e.denoise(PICTURE, s), "finite number of at least 0")
            for s in (-1.0, np.nan, -np.inf, np.inf)
        ),
        *(
            (lambda e, d=d: d(e, np.uint8(9) * np.ones(SHAPE, np.uint8)), "numbers from -1 to 1, bytes / 127.5 - 1")
            for d in ALL
        ),
        *((lambda e, d=d: d(e, 5 * PICTURE), "numbers from -1 to 1, got") for d in ALL if d is not denoised),
        (lambda e: e.encode(PICTURE[None]), "encoded by flow maps"),
    ],
)
def test_what_cannot_be_edited_is_a_sentence(call, match):
    with pytest.raises(ValueError, match=match):
        call(editor())


@pytest.fixture
def place(tmp_path, monkeypatch, as_we_found_it):
    monkeypatch.chdir(tmp_path)
    save_model(make_model(), "model.safetensors")
    save_model(make_model(shape=(1, 4, 4), classes=2), "classes.safetensors")
    Image.fromarray(RNG.integers(0, 256, (4, 4, 3), np.uint8)).save("a.png")
    Image.fromarray(RNG.integers(0, 256, (9, 12), np.uint8)).save("grey.png")
    Image.fromarray(255 * MASK.astype(np.uint8)).save("m.png")
    Image.fromarray(0 * MASK.astype(np.uint8)).save("black.png")
    return tmp_path


def run(*arguments, model="model.safetensors"):
    try:
        return cli.main(["edit", model, "--backend", "numpy", *arguments])
    except SystemExit as left:
        return left.code


@pytest.mark.parametrize(
    "arguments",
    [
        ["--task", "inpaint", "--image", "a.png", "--mask", "m.png", "--steps", "2", "--rounds", "2"],
        ["--task", "colorize", "--image", "grey.png", "--steps", "2"],
        ["--task", "colourise", "--image", "a.png", "--times", "9", "1"],
        ["--task", "upscale", "--factor", "2", "--image", "a.png", "--steps", "2"],
        ["--task", "stroke", "--image", "a.png", "--mask", "m.png"],
        ["--task", "denoise", "--image", "a.png"],
        ["--task", "denoise", "--image", "a.png", "--noise", "0.2"],
        ["--task", "interpolate", "--image", "a.png", "grey.png", "--n", "3"],
        ["--task", "interpolate", "--n", "2"],
        ["--task", "variations", "--image", "a.png", "--n", "2"],
    ],
    ids=" ".join,
)
def test_each_task_is_done(place, arguments):
    assert run(*arguments, "--out", "out.png") == 0
    assert Image.open("out.png").mode == "RGB"


def test_one_picture_is_written_as_it_is_with_what_is_known(place):
    assert (
        run("--task", "inpaint", "--image", "a.png", "--mask", "m.png", "--n", "1", "--steps", "2", "--out", "o.png")
        == 0
    )
    out, given = (np.asarray(Image.open(name)) for name in ("o.png", "a.png"))
    assert np.array_equal(out[~MASK], given[~MASK])
    assert not np.array_equal(out[MASK], given[MASK])


def test_what_is_done_to_a_picture_is_told(place, capsys):
    assert run("--task", "variations", "--image", "grey.png", "--n", "1", "--out", "o.png") == 0
    expected = "grey.png was turned from L to RGB, cut to its central part and resized from 12 x 9 to 4 x 4."
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--task", "inpant", "--image", "a.png"], "did you mean 'inpaint'?"),
        (["--task", "inpaint", "--image", "a.png"], "needs --mask"),
        (["--task", "inpaint", "--image", "a.png", "--mask", "black.png"], "paint that white"),
        (["--task", "inpaint", "--image", "a.png", "a.png", "--mask", "m.png"], "takes one picture"),
        (["--task", "upscale", "--image", "a.png"], "needs --factor"),
        (["--task", "upscale", "--image", "a.png", "--factor", "3"], "does not divide"),
        (["--task", "denoise", "--image", "a.png", "--n", "3"], "leave --n out"),
        (["--task", "stroke", "--image", "a.png", "--steps", "3"], "takes no --steps"),
        (["--task", "stroke", "--image", "none.png"], "none.png"),
        (["--task", "stroke", "--image", "model.safetensors"], "is no picture"),
        (["--task", "interpolate", "--image", "a.png"], "takes two pictures"),
        (["--task", "variations", "--image", "a.png", "--times", "1", "2"], "must decrease"),
    ],
    ids=lambda value: " ".join(value[:4]) if isinstance(value, list) else value,
)
def test_what_cannot_be_asked_for_is_a_sentence(place, capsys, arguments, said):
    assert run(*arguments, "--out", "o.png") == 2
    assert said in capsys.readouterr().err
    assert not (place / "o.png").exists()


def test_a_place_that_takes_nothing_is_told_before_anything_is_made(place, capsys, monkeypatch):
    (place / "full").mkdir()
    (place / "full" / "letter.txt").touch()
    monkeypatch.setattr(Editor, "_made", lambda *_, **__: pytest.fail("pictures were made"))
    for out, n, said in (("full", "2", "full"), ("a.png/x.png", "1", "a.png"), ("a.png/x.npz", "2", "a.png")):
        assert run("--task", "variations", "--image", "a.png", "--n", n, "--out", out) == 2
        assert said in capsys.readouterr().err


def test_what_nobody_painted_on_a_layer_of_strokes_is_known(place):
    layer = np.zeros((4, 4, 4), np.uint8)
    layer[MASK] = 255
    Image.fromarray(layer).save("layer.png")
    made = ["--task", "inpaint", "--image", "a.png", "--n", "1", "--steps", "2"]
    assert run(*made, "--mask", "layer.png", "--out", "of-layer.png") == 0
    assert run(*made, "--mask", "m.png", "--out", "of-mask.png") == 0
    assert (place / "of-layer.png").read_bytes() == (place / "of-mask.png").read_bytes()


def test_classes_are_asked_for_where_they_matter(place, capsys):
    asked = ["--task", "denoise", "--image", "grey.png", "--noise", "0.2", "--out", "o.png"]
    assert run(*asked, model="classes.safetensors") == 2
    assert "--label" in capsys.readouterr().err
    assert run(*asked, "--label", "b", model="classes.safetensors") == 0
