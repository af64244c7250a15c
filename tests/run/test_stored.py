"""Samples that stay as they are stored: the same floats as ever, batch by batch, without ever being there all at once."""

import hashlib
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_data import idx_bytes

from cmcore import Error
from cmcore.errors import sentence
from cmcore.run.config import Config
from cmcore.run.data import Dataset, load, mapped, samples
from cmcore.run.data.mapped import mapping
from cmcore.run.data.samples import Samples
from cmcore.run.plan import fingerprint, make_plan, same_data
from cmcore.run.standardize import measured

RNG = np.random.default_rng(0)


def noise(*shape):
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def before(x):
    """The floats that bytes were made of before they stayed bytes."""
    return x.astype(np.float32) / np.float32(127.5) - np.float32(1)


X = noise(40, 3, 6, 5)


def of_npy(place, x):
    np.save(place / "a.npy", x)
    return place / "a.npy"


def of_npz(place, x):
    np.savez(place / "a.npz", x=x, y=np.arange(len(x)), x_test=x[:5])
    return place / "a.npz"


def of_idx(place, x):
    (place / "a").write_bytes(idx_bytes(x))
    return place / "a"


@pytest.mark.parametrize("write", [of_npy, of_npz, of_idx])
@pytest.mark.parametrize("order", ["channels first", "channels last", "grey"])
def test_files_that_are_not_packed_are_mapped_and_give_the_same_floats(tmp_path, monkeypatch, write, order):
    monkeypatch.setattr("cmcore.run.data.numpy_files.LARGE", 1)
    x = {"channels first": X, "channels last": np.moveaxis(X, 1, 3), "grey": X[:, 0]}[order]
    data = load(str(write(tmp_path, np.ascontiguousarray(x))))
    assert mapping(data.samples.stored) is not None
    assert data.samples.stored.dtype == np.uint8
    expected = before(X[:, :1] if order == "grey" else X)
    assert data.x.tobytes() == expected.tobytes()
    assert data.sigma_data == pytest.approx(expected.astype(np.float64).std(), rel=1e-12)
    floats = Dataset(expected, None, (), None, "a", True)
    for step in (0, 3):
        batch = data.batch(1, step, 16)[0]
        assert batch.tobytes() == floats.batch(1, step, 16)[0].tobytes()
        assert batch.flags.c_contiguous
        batch[:] = 9  # one's own
    assert data.x.tobytes() == expected.tobytes()


def test_fortran_order_and_floats_are_mapped_too(tmp_path):
    x = np.asfortranarray(np.linspace(-1, 1, 96, dtype=np.float32).reshape(6, 1, 4, 4))
    data = load(str(of_npy(tmp_path, x)))
    assert mapping(data.samples.stored) is not None
    assert data.batch(0, 0, 6)[0].tobytes() == x[
        np.argsort(np.random.Philox(np.random.SeedSequence((0, 0))).random_raw(6), kind="stable")
    ].tobytes(order="C")


def test_packed_archives_are_read(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", X)
    data = load(str(tmp_path / "a.npz"))
    assert mapping(data.samples.stored) is None
    assert data.x.tobytes() == before(X).tobytes()


@pytest.mark.parametrize("file", ["a.npy", "a.npz"])
@pytest.mark.parametrize("cut", [1, 100, 2500])
def test_truncated_files_are_sentences(tmp_path, monkeypatch, file, cut):
    monkeypatch.setattr("cmcore.run.data.numpy_files.LARGE", 1)
    path = (of_npy if file == "a.npy" else of_npz)(tmp_path, X)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(Error, match="cannot be read as"):
        load(str(path))


def test_a_member_that_claims_more_than_it_has_is_a_sentence(tmp_path, monkeypatch):
    """Though what it claims lies in the file: that is the next member."""
    monkeypatch.setattr("cmcore.run.data.numpy_files.LARGE", 1)
    path = of_npz(tmp_path, noise(400, 3, 6, 5))
    path.write_bytes(path.read_bytes().replace(b"(400, 3, 6, 5)", b"(401, 3, 6, 5)"))
    with pytest.raises(Error, match=r"it should have 36,090 bytes .* and has 36,000"):
        load(str(path))


def test_a_range_of_bytes_is_what_it_was(tmp_path):
    x, said = noise(9, 1, 4, 4) // 2, []
    data = load(str(of_npy(tmp_path, x)), value_range=(10, 100), note=said.append)
    assert data.samples.stored.dtype == np.uint8
    expected = ((x.astype(np.float64) - 10) * (2 / 90) - 1).astype(np.float32)
    assert data.x.tobytes() == expected.clip(-1, 1).tobytes()
    assert said[0].startswith(f"{(np.abs(expected) > 1.0001).mean():.2%} of the values")
    assert data.sigma_data == pytest.approx(expected.clip(-1, 1).astype(np.float64).std(), rel=1e-6)


def test_grey_pictures_as_rgb_take_no_more_room(tmp_path):
    data = load(str(of_npy(tmp_path, X[:, 0])), channels=3)
    assert data.shape == (3, 6, 5)
    assert data.samples.stored.strides[1] == 0
    assert data.x.tobytes() == before(np.repeat(X[:, :1], 3, 1)).tobytes()


def old_fingerprint(x, labels=None):
    digest = hashlib.sha256(np.ascontiguousarray(x).data)
    if labels is not None:
        digest.update(labels.data)
    return digest.hexdigest()[:16]


@pytest.mark.parametrize("labelled", [False, True])
def test_data_of_old_runs_are_known_again(labelled):
    labels, names = (np.arange(40) % 3, tuple("abc")) if labelled else (None, ())
    for x in (X, before(X)):
        data = Dataset(x, labels, names, None, "a", True)
        assert same_data(old_fingerprint(before(X), labels), data)
        assert same_data(fingerprint(data), data)
        changed = x.copy()
        changed[-1, -1, -1, -1] = changed[-1, -1, -1, -1] == 0
        other = Dataset(changed, labels, names, None, "a", True)
        assert not same_data(old_fingerprint(before(X), labels), other)
        assert not same_data(fingerprint(data), other)
    if labelled:
        assert not same_data(fingerprint(data), Dataset(x, labels[::-1].copy(), names, None, "a", True))


def test_the_table_is_part_of_the_data():
    dark = Samples(X, table=np.linspace(-1, 1, 256, dtype=np.float32) ** 3)
    assert fingerprint(Dataset(dark, None, (), None, "a", True)) != fingerprint(Dataset(X, None, (), None, "a", True))


def test_a_plan_of_bytes_is_one_of_their_floats():
    plans = [make_plan(Config(recipe="ect"), Dataset(x, None, (), None, "a", True)) for x in (X, before(X))]
    assert plans[0].recipe.sigma_data == pytest.approx(plans[1].recipe.sigma_data, rel=1e-12)
    same = replace(plans[0].data, fingerprint="")
    assert same == replace(plans[1].data, fingerprint="")


def test_scales_are_measured_in_pieces(monkeypatch):
    x = RNG.normal(3, 2, (50, 4)).astype(np.float32)
    x[:, 2] = 7
    x[:, 3] = np.arange(50) == 30  # in most pieces constant
    whole = measured(Samples(x), per_column=True)
    monkeypatch.setattr(samples, "PIECE", 12)
    np.testing.assert_allclose(measured(Samples(x), per_column=True), whole, rtol=1e-12)
    assert whole[1][2] == 0
    assert whole[1][0] == pytest.approx(2 * x[:, 0].astype(np.float64).std(), rel=1e-12)
    assert Samples(x).facts.deviation == pytest.approx(x.astype(np.float64).std(), rel=1e-12)


def test_rows_are_a_part_of_what_is_stored(monkeypatch):
    rows = np.array([3, 4, 9, 39])
    monkeypatch.setattr(samples, "PIECE", 200)
    part = Samples(X, rows)
    assert len(part) == 4
    assert part.whole().tobytes() == before(X[rows]).tobytes()
    assert part.take(np.array([2, 0])).tobytes() == before(X[[9, 3]]).tobytes()
    assert part.facts == Samples(X[rows]).facts


def resident(path):
    """How many bytes of a mapped file this process holds."""
    held, ours = 0, False
    with Path("/proc/self/smaps").open() as file:
        for line in file:
            if "-" in line.split()[0]:
                ours = line.rstrip().endswith(str(path))
            elif ours and line.startswith("Rss:"):
                held += 1024 * int(line.split()[1])
    return held


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux tells what is resident")
def test_a_mapped_file_does_not_stay_in_memory(tmp_path, monkeypatch):
    path = of_npy(tmp_path, noise(4096, 3, 64, 64))
    monkeypatch.setattr(mapped, "RESIDENT", 2**23)
    data = load(str(path))
    assert resident(path) < 2e7
    for step in range(8):
        data.batch(0, step, 512)
        assert resident(path) < 2e7
    for _ in data.samples.floats():
        assert resident(path) < 2e7
    monkeypatch.setattr(mapped, "RESIDENT", 2**30)
    for _ in data.samples.floats():
        pass
    assert resident(path) > 48e6  # as it would be


def test_a_file_that_became_shorter_is_a_sentence(tmp_path):
    path = of_npy(tmp_path, noise(64, 3, 64, 64))
    data = load(str(path))
    os.truncate(path, 64 * 3 * 64 * 64)
    with pytest.raises(OSError, match="has become shorter") as raised:
        data.batch(0, 0, 64)
    assert sentence(raised.value) == f"The file has become shorter: {path}."
