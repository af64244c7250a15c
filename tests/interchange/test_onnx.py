"""Models as ONNX files, run by onnxruntime, against NumPy's networks; and the model card beside them."""

import json

import numpy as np
import pytest
from conftest import CHOSEN

import cmcore as cm
from cmcore.data_facts import DataFacts
from cmcore.generate import generate
from cmcore.interchange.card import card
from cmcore.networks import DiT, ResidualConv, ResidualMLP, UNet
from cmcore.run.cli import main
from cmcore.sampling import seeded_noise

LEVELS = {"width": 8, "multipliers": (1, 2), "blocks": 1}
ABC = ("a", "b", "c")


def make_model(recipe, architecture, classes=(), **facts):
    method = cm.recipes.get(recipe)
    architecture = architecture.with_options(method.two_times, method.learned_weight)
    rng = np.random.default_rng(0)
    weights = {n: (0.3 * rng.standard_normal(s)).astype(np.float32) for n, s in architecture.layout().items()}
    shape = architecture.shape
    data = DataFacts("toy", shape, len(shape) == 3, classes, **facts)
    return cm.Model(method, architecture, weights, data, 5, 10)


MODELS = {
    "points": lambda: make_model("ct", ResidualMLP((2,), width=8, blocks=1), center=(5.0, 1.0), scale=(2.0, 3.0)),
    "flow-map": lambda: make_model("meanflow", ResidualConv((1, 4, 6), **LEVELS, classes=3), ABC),
    "score": lambda: make_model(
        "edm",
        UNet((1, 2, 4), width=4, multipliers=(1, 1), blocks=1, attention=(2,), head_channels=4, residual=True),
    ),
    "trigflow": lambda: make_model("sct", DiT((1, 4, 4), width=16, blocks=1, heads=2, classes=3), ABC),
}


@pytest.mark.skipif("torch" not in CHOSEN, reason="the backend that writes ONNX files does not take part")
@pytest.mark.parametrize("kind", MODELS)
def test_files_give_numpys_numbers_for_any_batch(tmp_path, kind):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model, out = MODELS[kind](), tmp_path / "out"
    cm.export_model(model, "onnx", out)
    sessions = {path.name: runtime.InferenceSession(path) for path in out.glob("*.onnx")}
    assert sessions.keys() == {"function.onnx"} | ({"generator.onnx"} if kind != "score" else set())
    about = json.loads(sessions["function.onnx"].get_modelmeta().custom_metadata_map["cmcore"])
    assert (about["recipe"], about["t_max"]) == (model.recipe.name, model.recipe.highest_time)
    rng = np.random.default_rng(1)
    for batch in (1, 5):
        x = rng.standard_normal((batch, *model.data.shape)).astype(np.float32)
        times = {"t": np.linspace(0.3, 0.9, batch, dtype=np.float32) * np.float32(model.recipe.highest_time)}
        if model.recipe.two_times:
            times["s"] = 0.5 * times["t"]
        label = {"label": np.arange(batch, dtype=np.int32) % 3} if model.architecture.classes else {}
        expected = model.function("numpy")(x, *times.values(), **label)
        (got,) = sessions["function.onnx"].run(None, {"x": x, **times, **label})
        assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()
        if "generator.onnx" in sessions:
            z = seeded_noise(3, range(batch), model.data.shape, 0).astype(np.float32)
            (got,) = sessions["generator.onnx"].run(None, {"z": z, **label})
            expected = generate(model, batch, seed=3, backend=cm.load("numpy"), labels=label.get("label"))
            assert np.abs(got - expected).max() <= 1e-4 * np.abs(expected).max()


def test_without_a_backend_that_writes_it_the_sentence_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("cmcore.interchange.onnx.available", lambda: ("numpy",))
    with pytest.raises(cm.Error, match=r'pip install "cmcore\[onnx\]"'):
        cm.export_model(MODELS["points"](), "onnx", tmp_path / "out")


@pytest.mark.parametrize("to", ["diffusers", "edm", "onnx"])
@pytest.mark.parametrize("kind", MODELS)
def test_a_card_says_what_the_model_is(kind, to):
    model = MODELS[kind]()
    text = card(model, to, "mit", "name  frechet\none   1.5")
    head, rest = text.removeprefix("---\n").split("---\n", 1)
    assert 'license: "mit"' in head
    for said in (model.recipe.name, f"{model.step} of {model.steps} steps", "frechet", "@", "THIS_FOLDER", "mit"):
        assert said in rest
    assert "unknown" in card(model, to)


def test_the_command_writes_the_card_and_keeps_what_is_there(tmp_path, capsys):
    model = make_model(
        "ect", UNet((1, 8, 8), width=32, multipliers=(1, 2), blocks=1, attention=(2,), times="sinusoidal")
    )
    model.save(tmp_path / "run")
    rows = [{"name": "one step", "steps": 1, "nfe": 1, "frechet": 2.5, "sliced": 0.25, "ms": None}]
    (tmp_path / "run" / "eval.json").write_text("{}")
    command = ["export", str(tmp_path / "run"), "--to", "edm", str(tmp_path / "out"), "--license", "cc0-1.0"]
    assert main(command) == 2
    assert "eval.json cannot be read" in capsys.readouterr().err
    from cmcore.run.figures import Row

    fields = {name: rows[0].get(name) for name in Row.__dataclass_fields__}
    (tmp_path / "run" / "eval.json").write_text(json.dumps({"rows": [fields]}))
    assert main(command) == 0, capsys.readouterr().err
    text = (tmp_path / "out" / "README.md").read_text()
    assert "cc0-1.0" in text
    assert "2.5" in text
    assert main(command) == 2
    assert "not overwritten" in capsys.readouterr().err
