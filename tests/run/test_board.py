"""TensorBoard's events, read back by TensorBoard."""

import csv
import io
import sys

import numpy as np
import pytest
from PIL import Image
from toy import make_data

from cmcore.errors import Error
from cmcore.run.board import check_installed
from cmcore.run.config import Config
from cmcore.run.report import Progress
from cmcore.run.train import train

CONFIG = {"compiled": False, "recipe": "ect", "width": 4, "blocks": 1, "batch": 8, "save_every": 3, "sample_every": 3}


class BreakingOff(Progress):
    def advance(self, done):
        if done == 5:
            raise KeyboardInterrupt


def test_numbers_and_pictures_reach_tensorboard(tmp_path):
    pytest.importorskip("torch")
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config, out = Config(**CONFIG, backend="torch", steps=6, log="tensorboard"), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(config, make_data(), out=out, progress=BreakingOff())
    train(config, make_data(), out=out, resume=True)
    events = reading.EventAccumulator(str(out / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    with (out / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in ("loss", "lr", "ema_decay"):
        told = events.Scalars(name)
        assert [e.step for e in told] == [int(r["step"]) for r in rows] == [1, 2, 3, 4, 5, 6]
        np.testing.assert_allclose([e.value for e in told], [float(r[name]) for r in rows], rtol=1e-6)
    assert sum(tag.startswith("loss_by_time/") for tag in events.Tags()["scalars"]) > 4
    pictures = {e.step: e.encoded_image_string for e in events.Images("samples")}
    assert sorted(pictures) == [3, 6]
    for step, png in pictures.items():
        with Image.open(out / "samples" / f"step-{step:08d}.png") as kept, Image.open(io.BytesIO(png)) as sent:
            np.testing.assert_array_equal(np.asarray(sent), np.asarray(kept))


def test_a_run_without_it_asks_for_no_package(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto", None)
    check_installed(None)
    train(Config(**CONFIG, backend="torch", steps=1), make_data(), out=tmp_path / "run")
    assert not (tmp_path / "run" / "tensorboard").exists()
    with pytest.raises(Error, match=r'pip install "cmcore\[tensorboard\]"'):
        train(Config(**CONFIG, backend="torch", steps=1, log="tensorboard"), make_data(), out=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_other_boards_are_refused():
    with pytest.raises(ValueError, match="--log cannot be 'wandb'; the known ones are tensorboard"):
        Config(log="wandb")
