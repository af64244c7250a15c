import json
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy

import cmcore as cm
from cmcore._files import read_arrays
from cmcore.model import DataFacts, Model, load_model, recipe_from_json, recipe_to_json, save_model
from cmcore.networks import ResidualConv, ResidualMLP
from cmcore.optimization import Optimizer
from cmcore.run.checkpoint import load_state, newest_step, save_state


def make_model(recipe="cd", architecture=None, **options):
    architecture = architecture or ResidualMLP((1, 4, 4), width=8, blocks=1)
    facts = DataFacts("toy", architecture.shape, True, tuple("abc")[: architecture.classes], "0123")
    return Model(cm.recipes.get(recipe, **options), architecture, architecture.init(1), facts, 3, 9, {"seed": 4})


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(make_model(), path)
    return path


def tamper(path, change, weights=lambda w: w):
    """Write the model again with its manifest changed, but the file in good order."""
    arrays, manifest = read_arrays(path)
    change(manifest)
    path.write_bytes(safetensors.numpy.save(weights(arrays), {"cmcore": json.dumps(manifest)}))


@pytest.mark.parametrize("recipe", cm.recipes.names())
@pytest.mark.parametrize(
    "architecture",
    [ResidualMLP((5,), width=8, classes=3), ResidualConv((3, 8, 8), width=8, multipliers=(1, 2), blocks=1)],
)
def test_what_is_saved_is_loaded(tmp_path, recipe, architecture):
    model = make_model(
        recipe, architecture, sigma_data=0.1 + 0.2, optimizer=Optimizer("adamw", betas=(0.8, 0.99), weight_decay=0.1)
    )
    save_model(model, tmp_path / "model.safetensors")
    for source in (tmp_path, tmp_path / "model.safetensors", str(tmp_path)):
        loaded = load_model(source)
        assert replace(loaded, weights={}) == replace(model, weights={})
        assert loaded.weights.keys() == model.weights.keys()
        assert all(np.array_equal(loaded.weights[k], w) for k, w in model.weights.items())


def test_a_recipe_is_written_as_ever_and_with_the_options_that_came_later():
    """Files of before have the average's settings among the optimiser's, and so have those of today."""
    optimizer = {
        "algorithm": "adam",
        "lr": 0.001,
        "betas": [0.9, 0.999],
        "eps": 1e-08,
        "weight_decay": 0.0,
        "warmup": 7,
    }
    optimizer |= {"decay": True, "clip": 0.0, "ema": 0.99, "ema_halflife": 0.0, "ema_power": 0.0, "ema_std": 0.1}
    options = {"sigma_data": 0.3, "t_min": 0.002, "t_max": 80.0, "distance": "squared_l2", "weighting": "karras"}
    options |= {"learned_weight": False, "optimizer": optimizer, "mean": -1.2, "std": 1.2, "label_dropout": 0.0}
    text = json.dumps({"name": "edm", "options": options})
    recipe = cm.recipes.get("edm", sigma_data=0.3, warmup=7, decay=True, ema=0.99, ema_std=0.1)
    assert recipe_from_json(json.loads(text)) == recipe
    later = {"huber_c": 0.0, "guidance": 1.0, "guidance_low": 0.0, "guidance_high": 0.0}
    assert json.loads(json.dumps(recipe_to_json(recipe))) == {"name": "edm", "options": options | later}


def test_every_truncation_is_a_sentence(saved):
    whole = saved.read_bytes()
    for length in (0, 1, 7, 8, 50, len(whole) // 2, len(whole) - 1):
        saved.write_bytes(whole[:length])
        with pytest.raises(cm.Error, match="truncated or damaged"):
            load_model(saved)


def test_foreign_files_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    for content in (b"\x80\x04N.", b"PK\x03\x04 a zip", b"{}" * 100):
        path.write_bytes(content)
        with pytest.raises(cm.Error, match="not a safetensors file"):
            load_model(path)
    for metadata in (None, {"format": "pt"}, {"cmcore": "[]"}, {"cmcore": '{"format": "one"}'}):
        path.write_bytes(safetensors.numpy.save({"a": np.ones(2)}, metadata))
        with pytest.raises(cm.Error, match="without cmcore's manifest"):
            load_model(path)
    path.write_bytes(safetensors.numpy.save({"a": np.ones(2)}, {"cmcore": "{"}))
    with pytest.raises(cm.Error, match="damaged"):
        load_model(path)


def test_missing_files_are_sentences(tmp_path):
    with pytest.raises(cm.Error, match="no run folder or model file"):
        load_model(tmp_path / "nothing")
    with pytest.raises(cm.Error, match="not a run folder"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda m: m.update(format=2), "newer"),
        (lambda m: m.pop("recipe"), "lacks 'recipe'"),
        (lambda m: m.pop("data"), "lacks 'data'"),
        (lambda m: m["recipe"].update(name="magic"), "no recipe named 'magic'"),
        (lambda m: m["recipe"]["options"].update(wings=2), "no option 'wings'"),
        (lambda m: m["recipe"].update(options=3), "cannot be used"),
        (lambda m: m["network"].update(kind="transformer"), "Unknown network"),
        (lambda m: m["network"].update(width=16), "has shape"),
        (lambda m: m["network"].update(blocks=2), "lack"),
        (lambda m: m["data"].update(shape=[4, 4]), "different shapes"),
        (lambda m: m.update(path="trigflow"), "path"),
        (lambda m: m["parametrization"].update(t_min=0.1), "parametrisation"),
    ],
)
def test_what_does_not_fit_is_refused(saved, change, match):
    tamper(saved, change)
    with pytest.raises(cm.Error, match=match):
        load_model(saved)


def test_weights_that_are_not_finite_are_refused(saved):
    tamper(saved, lambda m: None, lambda w: w | {"head.bias": np.full_like(w["head.bias"], np.nan)})
    with pytest.raises(cm.Error, match=r"head\.bias.*not finite"):
        load_model(saved)


def test_states_replace_each_other_and_keep_every_dtype(tmp_path):
    arrays = {"a/b": np.float32(2.5).reshape(()), "t": np.arange(6.0).reshape(2, 3).T, "n": np.uint32([7])}
    save_state(tmp_path, 5, {"a/b": np.zeros(())}, 1.0)
    save_state(tmp_path, 10, arrays, 2.25)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000010.safetensors"]
    step, loaded, seconds = load_state(tmp_path)
    assert (step, seconds) == (10, 2.25)
    for name, array in arrays.items():
        assert loaded[name].dtype == array.dtype
        assert np.array_equal(loaded[name], array)
        assert loaded[name].shape == array.shape


def test_the_newest_readable_state_is_taken(tmp_path):
    assert load_state(tmp_path / "none") is None
    assert newest_step(tmp_path / "none") == 0
    save_state(tmp_path, 5, {"a": np.ones(3)}, 1.0)
    whole = (tmp_path / "step-00000005.safetensors").read_bytes()
    (tmp_path / "step-00000010.safetensors").write_bytes(whole[:-1])
    (tmp_path / ".step-00000020.safetensors.x.tmp").write_bytes(whole)
    assert load_state(tmp_path)[0] == 5
    assert newest_step(tmp_path) == 10
    (tmp_path / "step-00000005.safetensors").unlink()
    with pytest.raises(cm.Error, match=r"step-00000010.*truncated"):
        load_state(tmp_path)


def test_a_state_that_is_not_finite_replaces_nothing(tmp_path):
    save_state(tmp_path, 5, {"a": np.ones(3)}, 1.0)
    with pytest.raises(ValueError, match=r"'a'.*not finite"):
        save_state(tmp_path, 6, {"a": np.array([1, np.inf])}, 1.0)
    assert load_state(tmp_path)[0] == 5
