"""Features: a classifier trained by one command, networks of others, and evaluations by them."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import CHOSEN

import cmcore as cm
from cmcore.features import Classifier, load_classifier
from cmcore.features.network import ClassifierNetwork
from cmcore.run import cli
from cmcore.run.chosen_features import chosen

SHAPE = (1, 8, 8)
CLASSIFIER = ClassifierNetwork(SHAPE, classes=3, width=5, channels=(4, 4, 8))


@pytest.fixture
def bars(tmp_path):
    """Bright bars in noise, at one of three heights, which are the classes."""
    rng = np.random.default_rng(0)
    labels = np.arange(240) % 3
    x = rng.integers(0, 90, (240, 1, 8, 8), np.uint8)
    for row, label in zip(x, labels, strict=True):
        row[0, 1 + 2 * label : 3 + 2 * label] += 120
    np.savez(tmp_path / "bars.npz", x=x, labels=labels)
    return tmp_path / "bars.npz"


def run(*arguments):
    return cli.main([str(a) for a in arguments])


def random_classifier(backend):
    rng = np.random.default_rng(0)
    weights = {n: rng.standard_normal(shape).astype(np.float32) for n, shape in CLASSIFIER.layout().items()}
    return Classifier(CLASSIFIER, weights, ("a", "b", "c"), "things", 0.5, 10, backend)


def test_features_are_the_same_on_every_backend():
    x = np.random.default_rng(1).uniform(-1, 1, (7, *SHAPE)).astype(np.float32)
    features, labels = random_classifier(cm.load("numpy")).both(x)
    assert features.shape == (7, 5)
    for name in CHOSEN:
        found, told = random_classifier(cm.load(name)).both(x)
        np.testing.assert_allclose(found, features, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(told, labels)


def test_a_classifier_is_read_as_it_was_written(tmp_path):
    own = random_classifier(cm.load("numpy"))
    own.save(tmp_path / "c.safetensors")
    read = load_classifier(tmp_path / "c.safetensors", cm.load("numpy"))
    x = np.random.default_rng(1).uniform(-1, 1, (3, *SHAPE)).astype(np.float32)
    np.testing.assert_array_equal(read(x), own(x))
    assert (read.names, read.accuracy, read.name) == (own.names, 0.5, "a classifier of things, 50.0% right")
    with pytest.raises(ValueError, match="takes pictures of shape"):
        read(x[:, :, :4])


@pytest.mark.parametrize("backend", [name for name in CHOSEN if name in ("torch", "jax")])
def test_a_classifier_learns_and_judges(bars, backend, tmp_path, capsys):
    out = tmp_path / "c.safetensors"
    command = ["classifier", "--data", bars, "--out", out, "--epochs", "6", "--batch", "24", "--backend", backend]
    assert run(*command) == 0
    assert "that it was not trained on get their class" in capsys.readouterr().err
    found = load_classifier(out, cm.load(backend))
    assert found.tested == 24
    assert found.accuracy > 0.9
    assert run(*command) == 2
    assert "new .safetensors" in capsys.readouterr().err


@pytest.fixture
def trained(bars, tmp_path):
    command = [
        "train",
        "--data",
        bars,
        "--recipe",
        "ict",
        "--steps",
        "2",
        "--batch",
        "4",
        "--network",
        "mlp",
        "--width",
        "8",
    ]
    assert (
        run(*command, "--blocks", "1", "--held-out", "0.3", "--out", tmp_path / "run", "--backend", CHOSEN_TRAINER) == 0
    )
    return tmp_path / "run"


CHOSEN_TRAINER = next((name for name in CHOSEN if name in ("torch", "jax", "tinygrad")), "torch")


@pytest.mark.skipif(not {"torch", "jax", "tinygrad"} & set(CHOSEN), reason="nothing that trains takes part")
def test_an_evaluation_by_a_classifier_has_every_figure(trained, tmp_path, capsys):
    random_classifier(None).save(tmp_path / "c.safetensors")
    places = ["--out", tmp_path / "e.json", "--plot", tmp_path / "e.svg"]
    command = [
        "eval",
        trained,
        "--n",
        "40",
        "--features",
        tmp_path / "c.safetensors",
        "--seeds",
        "2",
        "--backend",
        "numpy",
    ]
    capsys.readouterr()
    assert run(*command, *places) == 0
    told = capsys.readouterr().out
    assert "Compared: a classifier of things, 50.0% right. Means over 2 seeds" in told
    kept = json.loads((tmp_path / "e.json").read_text())
    assert (kept["features"], kept["seeds"]) == ("a classifier of things, 50.0% right", 2)
    one, two, floor = kept["rows"]
    for row in (one, two, floor):
        assert {
            "frechet",
            "kid",
            "precision",
            "recall",
            "density",
            "coverage",
            "memorized",
            "classes",
            "sliced",
        } <= row.keys()
        assert sum(row["shares"]) == pytest.approx(1)
    assert one["spread"]["frechet"][0] <= one["frechet"] <= one["spread"]["frechet"][1]
    assert floor["frechet"] < one["frechet"]
    ElementTree.parse(tmp_path / "e.svg")
    assert run(*command, *places) == 2
    assert "a new .json file" in capsys.readouterr().err


def test_features_by_name(tmp_path):
    numpy = cm.load("numpy")
    assert chosen(None, None, "things", SHAPE, numpy).name == "pixels"
    assert chosen("pixels", None, "fashion-mnist", (1, 28, 28), numpy).name == "pixels"
    for name, weights, said in (
        ("classifier", None, "No classifier for things comes with cmcore"),
        ("inception", None, "needs weights that you have"),
        ("dinov2", None, "needs weights that you have"),
        ("nothing", None, "Unknown features 'nothing'"),
        ("pixels", "w", "--weights are those of"),
        (str(tmp_path / "none.safetensors"), None, "There is no file"),
    ):
        with pytest.raises(cm.Error, match=said):
            chosen(name, weights, "things", SHAPE, numpy)


def test_features_of_an_onnx_file(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from cmcore.interchange.onnx_features import OnnxFeatures

    kernel = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"])
    sides = (
        [onnx.helper.make_tensor_value_info("x", 1, ["n", 3, 8, 8])],
        [onnx.helper.make_tensor_value_info("y", 1, ["n", 2, 1, 1])],
    )
    graph = onnx.helper.make_graph([node], "g", *sides, [onnx.numpy_helper.from_array(kernel, "w")])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "f.onnx")
    features = OnnxFeatures(tmp_path / "f.onnx")
    x = np.random.default_rng(1).uniform(-1, 1, (70, 1, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(
        features(x), np.einsum("ncij,ocij->no", np.repeat(x, 3, 1), kernel), rtol=1e-4, atol=1e-4
    )
    with pytest.raises(ValueError, match="takes pictures of shape"):
        features(x[:, :, :4])
    (tmp_path / "broken.onnx").write_bytes(b"nothing")
    with pytest.raises(cm.Error, match="no ONNX network"):
        OnnxFeatures(tmp_path / "broken.onnx")


def test_features_of_dinov2_are_those_of_transformers(tmp_path):
    """Random weights in the published layout."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    from cmcore.interchange.published_features import DinoV2

    config = transformers.Dinov2Config(
        hidden_size=12, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    net = transformers.Dinov2Model(config).eval()
    net.save_pretrained(tmp_path / "dino", safe_serialization=True)
    x = np.random.default_rng(0).uniform(-1, 1, (3, 3, 28, 28)).astype(np.float32)
    pixels = torch.from_numpy(np.rint(127.5 * (x + 1)).astype(np.float32)) / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = net((pixels - mean[:, None, None]) / std[:, None, None]).last_hidden_state[:, 0]
    np.testing.assert_allclose(DinoV2(tmp_path / "dino")(x), expected, rtol=1e-4, atol=1e-5)
