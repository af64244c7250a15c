"""What comes with the package: small, whole, found by name, and no better than said."""

from pathlib import Path

import numpy as np
import pytest
from conftest import CHOSEN

import cmcore as cm
from cmcore import shipped
from cmcore.features import load_classifier
from cmcore.run import cli
from cmcore.run.data import fashion, load

FOLDER = Path(shipped.__file__).parent
CLASSIFIERS = sorted(f.name.removesuffix(".classifier.safetensors") for f in FOLDER.glob("*.classifier.safetensors"))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_is_small_and_its_accuracy_is_said(name):
    place = shipped.classifier(name)
    assert place.stat().st_size < 2**20
    found = load_classifier(place, cm.load("numpy"))
    assert found.trained_on == name
    assert found.accuracy >= 0.91
    assert found.both(np.zeros((2, *found.architecture.shape), np.float32))[0].shape == (2, found.architecture.width)
    assert shipped.classifier("nothing") is None
    assert place.stem not in shipped.names()


@pytest.mark.skipif(not Path(fashion.FOLDER).is_dir(), reason="dataset-fashion-mnist is not installed")
@pytest.mark.skipif("torch" not in CHOSEN, reason="torch does not take part")
def test_the_classifier_is_as_right_as_it_says():
    """On the first 1,000 test pictures, within three standard deviations of so many."""
    found = load_classifier(shipped.classifier("fashion-mnist"), cm.load("torch"))
    test = load(f"{fashion.FOLDER}/t10k-images-idx3-ubyte.gz", classes=True, cache="none")
    right = np.mean(found.labels(test.samples.take(np.arange(1000))) == test.labels[:1000])
    deviation = (found.accuracy * (1 - found.accuracy) / 1000) ** 0.5
    assert abs(right - found.accuracy) < 3 * deviation


@pytest.mark.parametrize("name", shipped.names())
def test_a_model_is_found_by_its_name_unless_a_run_has_it(name, tmp_path, monkeypatch, capsys):
    assert shipped.path(name).stat().st_size < 5e6
    monkeypatch.chdir(tmp_path)
    assert cli.main(["sample", name, "--n", "2", "--backend", "numpy", "--out", "two.png"]) == 0
    assert (tmp_path / "two.png").is_file()
    assert cm.load_model(name).data.images
    (tmp_path / name).mkdir()
    with pytest.raises(cm.Error, match="is not a run folder"):
        cm.load_model(name)


def test_an_unknown_name_is_told_the_known_ones():
    with pytest.raises(cm.Error, match="There is no run folder or model file 'nothing'"):
        cm.load_model("nothing")
