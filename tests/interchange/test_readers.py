"""What the readers of other programs' files give, beside what those programs give."""

import importlib.util
import pickle

import numpy as np
import pytest
from attacks import tensors_file

from cmcore.interchange import msgpack
from cmcore.interchange.opening import opened


def odd_tensors():
    """Every type, views with offsets and strides, numbers that are shared, and numbers that are extreme."""
    import torch

    base = torch.arange(60, dtype=torch.float32).reshape(3, 4, 5)
    halves = torch.tensor([1.0, -2.5, 65504.0, 6e-8, -0.0, float("inf")])
    return {
        "whole": base,
        "part": base[1:, 2, ::2],
        "turned": base.permute(2, 0, 1),
        "spread": torch.tensor([7.0]).expand(3),
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 4),
        "parameter": torch.nn.Parameter(base[0].clone()),
        "half": halves.to(torch.float16),
        "bfloat16": torch.cat([halves, torch.tensor([3e38, 1e-40])]).to(torch.bfloat16)[1:],
        "double": torch.tensor([1e300, 1 / 3], dtype=torch.float64),
        "int64": torch.tensor([2**62, -1]),
        "int32": torch.tensor([-(2**31)], dtype=torch.int32),
        "int16": torch.tensor([-300], dtype=torch.int16),
        "int8": torch.tensor([-7], dtype=torch.int8),
        "uint8": torch.tensor([250], dtype=torch.uint8),
        "bool": torch.tensor([True, False]),
    }


def write_zip(tensors, place):
    import torch

    torch.save(tensors, place)


def write_old(tensors, place):
    import torch

    torch.save(tensors, place, _use_new_zipfile_serialization=False)


def write_pickle(protocol):
    return lambda tensors, place: place.write_bytes(pickle.dumps(tensors, protocol))


@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="needs torch")
@pytest.mark.parametrize(
    "write",
    [write_zip, write_old, write_pickle(3), write_pickle(4), write_pickle(5)],
    ids=["zip", "old", "3", "4", "5"],
)
def test_tensors_of_torch(write, tmp_path):
    import torch

    tensors = odd_tensors()
    write(tensors, tmp_path / "a")
    read = opened(tmp_path / "a").tensors
    assert list(read) == list(tensors)
    for name, tensor in tensors.items():
        exact = tensor.detach()
        expected = (exact.float() if exact.dtype == torch.bfloat16 else exact).numpy()
        assert read[name].dtype == expected.dtype
        assert read[name].shape == expected.shape
        assert read[name].tobytes() == expected.tobytes()


@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="needs torch")
def test_modules_that_were_pickled_whole(tmp_path):
    import torch

    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    torch.save({"ema": net, "step": 3}, tmp_path / "a.pt")
    read = opened(tmp_path / "a.pt").tensors
    expected = net.state_dict()
    assert read.keys() == expected.keys()
    assert all((read[name] == tensor.numpy()).all() for name, tensor in expected.items())


@pytest.mark.skipif(not importlib.util.find_spec("flax"), reason="needs flax")
def test_msgpack_of_flax_itself(monkeypatch):
    import ml_dtypes
    from flax import serialization

    monkeypatch.setattr(serialization, "MAX_CHUNK_SIZE", 64)
    values = {
        "cut": np.arange(100, dtype=np.float32).reshape(4, 25),
        "kinds": {k: np.array([0, 1, 100], k) for k in ("float16", "float64", "int8", "uint16", "int64", "bool")},
        "bfloat16": np.array([1.0, -2.5, 3e38], ml_dtypes.bfloat16),
        "scalar": np.float32(1.5),
        "zero": np.zeros((0, 3), np.float32),
        "plain": {"a": 1, "b": -(2**40), "c": 1.25, "d": "ü" * 300, "e": None, "f": True, "g": [1, -7, 200], "h": b"x"},
    }
    read = msgpack.read(serialization.msgpack_serialize(values))
    assert read["plain"] == values["plain"]
    for expected, got in [
        (values["cut"], read["cut"]),
        (values["bfloat16"].astype(np.float32), read["bfloat16"]),
        (np.array(values["scalar"]), read["scalar"]),
        (values["zero"], read["zero"]),
        *((a, read["kinds"][k]) for k, a in values["kinds"].items()),
    ]:
        assert got.dtype == expected.dtype
        assert got.shape == expected.shape
        assert got.tobytes() == expected.tobytes()


def test_safetensors_of_types_that_numpy_lacks(tmp_path):
    header = {
        "a": {"dtype": "BF16", "shape": [2, 1], "data_offsets": [0, 4]},
        "b": {"dtype": "F16", "shape": [2], "data_offsets": [4, 8]},
        "c": {"dtype": "I64", "shape": [], "data_offsets": [8, 16]},
        "d": {"dtype": "BOOL", "shape": [2], "data_offsets": [16, 18]},
    }
    numbers = b"\x80\x3f\x20\xc0" + np.array([0.5, 3], "<f2").tobytes() + np.array(-9, "<i8").tobytes() + b"\1\0"
    (tmp_path / "a").write_bytes(tensors_file(header, numbers))
    read = opened(tmp_path / "a").tensors
    assert read["a"].dtype == np.float32
    assert {name: a.tolist() for name, a in read.items()} == {
        "a": [[1.0], [-2.5]],
        "b": [0.5, 3.0],
        "c": -9,
        "d": [True, False],
    }
