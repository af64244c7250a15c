"""A network of somebody else's distribution, the example's, in the program."""

import importlib

import numpy as np
import pytest
from conftest import TRAINABLE, write_distribution
from networks.own import EXAMPLE

import cmcore as cm
from cmcore.model import load_model
from cmcore.networks import registry
from cmcore.run.cli import main


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    """The example as an installed distribution, with entry points that are no networks."""
    objects = {"patches": "Patches", "other": "Patches", "function": "main", "part": "Transformer"}
    points = "".join(f"{name} = patches_for_cmcore:{found}\n" for name, found in objects.items())
    place = tmp_path / "theirs"
    place.mkdir()
    write_distribution(place, "patches", f"[cmcore.networks]\n{points}", "patches_for_cmcore", EXAMPLE.read_text())
    monkeypatch.syspath_prepend(place)
    importlib.invalidate_caches()
    registry._others.cache_clear()
    yield
    registry._others.cache_clear()


def test_entry_points_are_architectures_of_their_kind(theirs):
    assert cm.networks.names() == ("mlp", "conv", "unet", "dit", "function", "other", "part", "patches")
    made = cm.networks.from_config({"kind": "patches", "shape": [1, 8, 8], "width": 8})
    assert made == cm.networks.get("patches")((1, 8, 8), width=8)
    assert cm.networks.from_config(cm.networks.to_config(made)) == made
    for name in ("function", "part", "other"):
        with pytest.raises(TypeError, match=rf"must be a class derived from .*Architecture whose kind is '{name}'"):
            cm.networks.get(name)
    with pytest.raises(
        ValueError,
        match=r"Unknown network 'vit'; did you mean 'dit'\? The known ones are mlp, conv, unet, dit, function, other",
    ):
        cm.networks.get("vit")


@pytest.mark.skipif(not TRAINABLE, reason="no backend that can train takes part")
def test_the_program_trains_resumes_and_samples_it(theirs, tmp_path, monkeypatch, as_we_found_it):
    np.save(tmp_path / "data.npy", np.random.default_rng(0).uniform(-1, 1, (40, 4, 4)).astype("float32"))
    common = ["train", "--data", str(tmp_path / "data.npy"), "--recipe", "ect", "--network", "patches", "--width", "8"]
    common += [
        "--blocks",
        "1",
        "--backend",
        TRAINABLE[0],
        "--no-compile",
        "--batch",
        "8",
        "--steps",
        "6",
        "--save-every",
        "2",
    ]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert main([*common, "--out", str(whole)]) == 0

    step = cm.Trainer.step
    calls = []

    def interrupted(self, index, *args):
        calls.append(index)
        if index == 3 and len(calls) == 4:
            raise KeyboardInterrupt
        return step(self, index, *args)

    monkeypatch.setattr(cm.Trainer, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        main([*common, "--out", str(broken)])
    assert main(["train", "--out", str(broken), "--resume"]) == 0
    assert calls == [0, 1, 2, 3, 2, 3, 4, 5]
    one, two = load_model(whole), load_model(broken)
    assert all(np.array_equal(w, two.weights[name]) for name, w in one.weights.items())
    out = tmp_path / "samples.npz"
    assert main(["sample", str(broken), "--n", "3", "--steps", "2", "--backend", "numpy", "--out", str(out)]) == 0
    assert np.load(out)["x"].shape[0] == 3


def test_a_broken_entry_point_is_a_sentence(tmp_path, monkeypatch):
    write_distribution(tmp_path, "broken", "[cmcore.networks]\nbroken = no_such_module:Net\n", "other", "")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    registry._others.cache_clear()
    try:
        with pytest.raises(cm.Error, match=r"'no_such_module:Net' of the distribution 'broken' cannot be loaded"):
            cm.networks.get("broken")
    finally:
        registry._others.cache_clear()
