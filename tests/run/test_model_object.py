"""A trained model as a Python object: samples, images, functions, networks, files, and what a notebook shows."""

import copy
import io
import pickle
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import cmcore as cm
from cmcore._files import read_arrays
from cmcore.data_facts import DataFacts
from cmcore.networks import ResidualMLP
from cmcore.run.cli import main


def make_model(recipe="ct", classes=("one", "two", "three"), shape=(1, 4, 4), images=True, **facts):
    method = cm.recipes.get(recipe)
    architecture = ResidualMLP(shape, width=8, blocks=1, classes=len(classes)).with_options(
        method.two_times, method.learned_weight
    )
    rng = np.random.default_rng(0)
    weights = {k: w + 0.2 * rng.standard_normal(w.shape, np.float32) for k, w in architecture.init(0).items()}
    return cm.Model(method, architecture, weights, DataFacts("toy", shape, images, classes, **facts), 3, 4)


def host(x):
    return cm.backend.of(x).to_numpy(x)


@pytest.mark.parametrize("recipe", ["ct", "meanflow"])
def test_samples_are_the_commands(tmp_path, backend, recipe):
    model = make_model(recipe)
    model.save(tmp_path)
    made = model.sample(5, seed=3, label="two", backend=backend)
    assert cm.backend.of(made).name == backend.name
    assert host(made).dtype == np.float32
    arguments = [
        "--n",
        "5",
        "--seed",
        "3",
        "--label",
        "two",
        "--backend",
        backend.name,
        "--out",
        str(tmp_path / "x.npz"),
    ]
    assert main(["sample", str(tmp_path), *arguments]) == 0
    np.testing.assert_array_equal(host(made), np.load(tmp_path / "x.npz")["x"])
    np.testing.assert_allclose(host(made), model.sample(5, seed=3, label="two", backend="numpy"), atol=2e-5)


def test_a_score_model_takes_the_odes_steps():
    model = make_model("edm")
    made = model.sample(2, label=0, backend="numpy")
    np.testing.assert_array_equal(made, model.sample(2, label=0, steps=18, backend="numpy"))
    assert np.abs(made - model.sample(2, label=0, steps=17, backend="numpy")).max() > 1e-6


def test_the_default_backend_makes_them(backend):
    with cm.using(backend.name):
        assert cm.backend.of(make_model().sample(2)).name == backend.name


def test_samples_keep_to_their_seed_label_and_steps():
    model = make_model()

    def made(**settings):
        return model.sample(6, backend="numpy", **settings)

    x = made(seed=1, label=1)
    np.testing.assert_array_equal(made(seed=1, label="two", batch=4), x)
    np.testing.assert_array_equal(made(seed=1, label=[1] * 6), x)
    np.testing.assert_array_equal(made(seed=1), made(seed=1, label=["one", 1, "2"] * 2))
    np.testing.assert_array_equal(made(seed=1, label=1, times=[80.0]), x)
    for other in (made(seed=2, label=1), made(seed=1, label=2), made(seed=1, label=1, steps=2)):
        assert np.abs(other - x).max() > 1e-3
    assert np.abs(x).max() <= 1


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"label": "four"}, "There is no class 'four'; the model's classes are one, two, three."),
        ({"label": 3}, "There is no class 3"),
        ({"label": -1}, "There is no class -1"),
        ({"label": 0.5}, "There is no class 0.5"),
        ({"label": [0, 1]}, "3 samples need one label, or 3; got 2"),
        ({"steps": 0}, "at least one step"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"steps": 1, "times": [1.0]}, "not both"),
        ({"batch": 0}, "batch size must be at least 1"),
        ({"backend": "theano"}, "theano"),
    ],
)
def test_what_cannot_be_asked_for_is_a_sentence(settings, sentence):
    with pytest.raises((ValueError, TypeError, cm.Error), match=sentence):
        make_model().sample(3, **{"backend": "numpy", **settings})


def test_without_classes_there_is_no_label():
    with pytest.raises(ValueError, match="trained without classes"):
        make_model(classes=()).sample(1, label=0, backend="numpy")


def test_images(tmp_path):
    grey, colour = (make_model(shape=(c, 4, 6)).images(3, seed=1, backend="numpy") for c in (1, 3))
    assert [i.mode for i in grey + colour] == ["L"] * 3 + ["RGB"] * 3
    assert grey[0].size == (6, 4)
    x = make_model().sample(1, seed=1, backend="numpy")
    picture = make_model().images(1, seed=1, backend="numpy")[0]
    np.testing.assert_array_equal(np.asarray(picture), np.rint(127.5 * (x[0, 0].astype(float) + 1)).astype(np.uint8))
    picture.save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="not images"):
        make_model(shape=(2,), images=False).images()


def test_points_come_in_their_own_units():
    plain = make_model(shape=(2,), images=False, classes=())
    scaled = replace(plain, data=replace(plain.data, center=(100.0, -5.0), scale=(2.0, 0.5)))
    ours, theirs = (m.sample(4, backend="numpy") for m in (plain, scaled))
    np.testing.assert_allclose(theirs, ours * np.array([2.0, 0.5]) + np.array([100.0, -5.0]), rtol=1e-6)


def test_functions_and_networks_are_the_frameworks_own(backend):
    model = make_model(classes=())
    f, net = model.function(backend), model.network(backend.name)
    x, t = np.ones((2, 1, 4, 4), np.float32), np.array([2.0, 5.0], np.float32)
    expected = model.function("numpy")(x, t)
    np.testing.assert_allclose(host(f(backend.asarray(x), backend.asarray(t))), expected, atol=1e-5)
    assert backend.weights(net).keys() == model.weights.keys()
    two = make_model("meanflow", classes=()).function("numpy")
    assert two(x, 0.9 * t / t, 0.1 * t / t).shape == x.shape


def test_another_model_is_not_replaced(tmp_path):
    model = make_model()
    model.save(tmp_path / "m")
    replace(model, step=model.step + 1).save(tmp_path / "m")
    assert cm.load_model(tmp_path / "m").step == model.step + 1
    for other in (replace(model, recipe=cm.recipes.get("ect")), replace(model, data=replace(model.data, name="other"))):
        with pytest.raises(cm.Error, match="holds another model, Model"):
            other.save(tmp_path / "m")
    (tmp_path / "letter.safetensors").write_text("Dear Sir")
    with pytest.raises(cm.Error):
        model.save(tmp_path / "letter.safetensors")
    assert (tmp_path / "letter.safetensors").read_text() == "Dear Sir"
    assert cm.load_model(tmp_path / "m").step == model.step + 1


@pytest.mark.parametrize("place", ["run", "some/model.safetensors", "a.folder"])
def test_saved_and_loaded_it_is_the_same(tmp_path, place):
    model = make_model(center=(0.5,), scale=(2.0,))
    (tmp_path / "some").mkdir()
    model.save(tmp_path / place)
    again = cm.load_model(tmp_path / place)
    assert (again.recipe, again.architecture, again.data) == (model.recipe, model.architecture, model.data)
    np.testing.assert_array_equal(again.sample(2, backend="numpy"), model.sample(2, backend="numpy"))


def test_copies_and_pickles_are_the_same():
    model = make_model()
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        np.testing.assert_array_equal(again.sample(2, backend="numpy"), model.sample(2, backend="numpy"))


def test_it_says_what_it_is():
    said = repr(make_model())
    assert said.startswith("Model(ct, mlp of ")
    assert said.endswith(" parameters, toy: 1 x 4 x 4, 3 classes, step 3 of 4)")


def test_a_notebook_shows_a_picture_and_never_fails(monkeypatch):
    with cm.using("numpy"):
        shown = Image.open(io.BytesIO(make_model()._repr_png_()))
        assert min(shown.size) > 100
        model = make_model()
        first = model._repr_png_()
        assert make_model(shape=(2,), images=False)._repr_png_() is None
        monkeypatch.setattr("cmcore.model.Sampler", None)
        assert make_model()._repr_png_() is None
        assert model._repr_png_() is first


def test_a_hubs_folder(tmp_path):
    model = make_model()
    model.save_pretrained(tmp_path / "folder")
    again = cm.Model.from_pretrained(tmp_path / "folder")
    np.testing.assert_array_equal(again.sample(2, backend="numpy"), model.sample(2, backend="numpy"))


def test_without_the_hubs_library_the_sentence_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for use in (lambda: cm.Model.from_pretrained("nobody/nothing"), lambda: make_model().push_to_hub("nobody/nothing")):
        with pytest.raises(cm.Error, match=r'pip install "cmcore\[hub\]"'):
            use()


def test_the_hub_is_asked_as_its_library_has_it(monkeypatch, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    asked = {}

    class Interface:
        def __init__(self, token=None):
            asked["token"] = token

        def create_repo(self, repository, private=None, exist_ok=False):
            asked.update(created=repository, private=private)
            return hub.RepoUrl(f"https://huggingface.co/{repository}")

        def upload_folder(self, repo_id, folder_path, commit_message=None):
            asked.update(to=repo_id, files=sorted(p.name for p in folder_path.iterdir()), message=commit_message)
            (tmp_path / "model.safetensors").write_bytes((folder_path / "model.safetensors").read_bytes())

    def download(repository, name, revision=None):
        asked.update(read=repository, revision=revision)
        return str(tmp_path / name)

    monkeypatch.setattr(hub, "HfApi", Interface)
    monkeypatch.setattr(hub, "hf_hub_download", download)
    model = make_model()
    assert "someone/model" in model.push_to_hub("someone/model", private=True, token="t", commit_message="m")
    again = cm.Model.from_pretrained("someone/model", revision="v1")
    np.testing.assert_array_equal(again.sample(1, backend="numpy"), model.sample(1, backend="numpy"))
    expected = {"token": "t", "created": "someone/model", "private": True, "to": "someone/model", "message": "m"}
    assert asked == expected | {"files": ["model.safetensors"], "read": "someone/model", "revision": "v1"}
    monkeypatch.setattr(
        hub, "hf_hub_download", lambda *_, **__: (_ for _ in ()).throw(hub.errors.HFValidationError("No."))
    )
    with pytest.raises(cm.Error, match=r"the hub does not give its model\.safetensors: No"):
        cm.Model.from_pretrained("no such")


class ClientsOwnError(Exception):
    pass


def test_a_hub_that_is_not_reached_or_refuses_is_a_sentence(monkeypatch):
    hub = pytest.importorskip("huggingface_hub")

    class Interface:
        def __init__(self, token=None):
            pass

        def create_repo(self, *_, **__):
            raise ClientsOwnError("[Errno -2] Name or service not known")

    monkeypatch.setattr(hub, "HfApi", Interface)
    with pytest.raises(cm.Error, match=r"The hub does not take 'me/x': \[Errno -2\] Name or service not known\."):
        make_model().push_to_hub("me/x")


@pytest.mark.parametrize("settings", [{"n": 2.5}, {"n": "x"}, {"steps": "two"}, {"seed": 0.5}])
def test_what_is_no_number_of_samples_steps_or_a_seed_is_told(settings):
    with pytest.raises(TypeError, match=r"The (number of samples|number of steps|seed) must be a whole number, got "):
        make_model().sample(**settings)


def test_another_programs_folder_is_to_be_imported(tmp_path):
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(cm.Error, match=r"another program's checkpoint, make a run of it: cmcore import \S+ --out RUN"):
        cm.load_model(tmp_path)


def test_a_label_may_be_a_number_of_any_kind():
    model = make_model()
    for label in (2, "2", np.int64(2), np.array(2)):
        assert model.label_numbers(label, 2).tolist() == [2, 2]
    for labels in ([0, 1], (0, 1), range(2), np.arange(2), cm.load("numpy").asarray(np.arange(2))):
        assert model.label_numbers(labels, 2).tolist() == [0, 1]
    with pytest.raises(ValueError, match="There is no class True"):
        model.label_numbers(True, 2)


def test_what_is_no_backend_or_batch_is_told():
    with pytest.raises(TypeError, match=r"A backend is given by name, .* got 3"):
        make_model().sample(1, backend=3)
    with pytest.raises(TypeError, match=r"The batch size must be a whole number, got 1\.5"):
        make_model().sample(1, batch=1.5)


def test_a_runs_own_model_is_not_replaced(tmp_path):
    (tmp_path / "run" / "state").mkdir(parents=True)
    with pytest.raises(cm.Error, match="is the folder of a run, whose model is its own; save to another place"):
        make_model().save(tmp_path / "run")


def test_a_model_can_be_kept_in_half_the_size(tmp_path):
    model = make_model()
    model.save(tmp_path / "whole.safetensors")
    model.save(tmp_path / "half.safetensors", dtype="float16")
    whole, half = (cm.load_model(tmp_path / f"{name}.safetensors") for name in ("whole", "half"))
    for name, w in whole.weights.items():
        assert half.weights[name].dtype == np.float32
        np.testing.assert_array_equal(half.weights[name], w.astype(np.float16).astype(np.float32))
    sizes = [
        sum(w.nbytes for w in read_arrays(tmp_path / f"{name}.safetensors")[0].values()) for name in ("whole", "half")
    ]
    assert sizes[1] == sizes[0] / 2
    with pytest.raises(ValueError, match="float32 or float16, got 'int8'"):
        model.save(tmp_path / "other.safetensors", dtype="int8")
    large = replace(model, weights={n: np.full_like(w, 1e6) for n, w in model.weights.items()})
    with pytest.raises(ValueError, match="not finite"):
        large.save(tmp_path / "large.safetensors", dtype="float16")
