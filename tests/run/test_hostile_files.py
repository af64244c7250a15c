"""Damaged and hostile inputs are sentences: a short form of `benchmarks/fuzz.py`, and what it found."""

import gzip
import json
import random
import struct
import zipfile

import fuzz
import numpy as np
import pytest
from conftest import CHOSEN

import cmcore as cm
from cmcore.model import load_model
from cmcore.run.data import load, unpacking
from cmcore.run.folder import RunFolder

pytestmark = pytest.mark.skipif("torch" not in CHOSEN, reason="the run that is spoilt is torch's")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return fuzz.World(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_spoilt_inputs_are_told_in_sentences(world, target, monkeypatch):
    monkeypatch.chdir(world.place)
    for seed in range(60 if target != "cli" else 20):
        read = fuzz.reading(world, target, random.Random(f"{target} {seed}"))[1]
        assert not fuzz.judged(read), f"python benchmarks/fuzz.py --only {target} --replay {seed}"


def test_what_is_no_sentence_is_seen():
    def raise_(error):
        raise error

    for error in (
        KeyError("a"),
        RecursionError("deep"),
        OverflowError("big"),
        UnicodeDecodeError("utf-8", b"", 0, 1, "x"),
    ):
        assert fuzz.judged(lambda error=error: raise_(error))
    assert not fuzz.judged(lambda: raise_(cm.Error("It is gone.")))


def manifest_of(path, change):
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"]["cmcore"] = change(header["__metadata__"]["cmcore"])
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data[8 + size :]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "[" * 100_000,
        lambda text: text.replace('"step": 1', '"step": Infinity'),
        lambda text: text.replace('"step": 1', '"step": NaN'),
        lambda text: text.replace('"step": 1', '"step": null'),
    ],
)
def test_manifests_without_sense_are_sentences(world, tmp_path, change):
    (tmp_path / "model.safetensors").write_bytes(manifest_of(world.run.model, change))
    with pytest.raises(cm.Error, match=r"model\.safetensors"):
        load_model(tmp_path)


def test_a_configuration_without_end_is_a_sentence(tmp_path):
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(cm.Error, match="cannot be used"):
        RunFolder(tmp_path).read()


@pytest.mark.parametrize("setting", ["width", "blocks", "features", "classes"])
def test_a_network_larger_than_its_file_is_refused_before_it_is_made(world, tmp_path, setting):
    def change(text):
        manifest = json.loads(text)
        manifest["network"][setting] = 2**31
        return json.dumps(manifest)

    (tmp_path / "model.safetensors").write_bytes(manifest_of(world.run.model, change))
    with pytest.raises(cm.Error, match=f"{setting} 2147483648"):
        load_model(tmp_path)


@pytest.mark.parametrize("kind", ["npz", "idx"])
def test_archives_that_unpack_to_too_much_are_refused(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(unpacking, "SPARE", 1000)
    zeros = np.zeros((100, 64, 64), np.uint8)
    zeros[0] = 255
    path = tmp_path / ("a.npz" if kind == "npz" else "a-images.gz")
    if kind == "npz":
        np.savez_compressed(path, zeros)
    else:
        path.write_bytes(gzip.compress(bytes((0, 0, 8, 3)) + struct.pack(">3I", *zeros.shape) + zeros.tobytes()))
    with pytest.raises(cm.Error, match="unpacks to"):
        load(str(path))
    monkeypatch.setattr(unpacking, "FACTOR", 10_000)
    assert len(load(str(path)).x) == 100


def test_a_member_that_is_no_array_is_a_sentence(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x", b"not an array")
    with pytest.raises(cm.Error, match="is no array"):
        load(str(tmp_path / "a.npz"))
