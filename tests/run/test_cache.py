"""Decoded pictures that are kept: found again, never taken for others, and never in the way."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections import namedtuple

import numpy as np
import pytest
from conftest import TRAINABLE
from PIL import Image

from cmcore import Error
from cmcore.run import cli
from cmcore.run.data import cache, decoding, load
from cmcore.run.data.decoding import Fitting
from cmcore.run.data.folder import Folder
from cmcore.run.data.mapped import mapping
from cmcore.run.data.samples import Samples

RNG = np.random.default_rng(0)


@pytest.fixture
def photos(tmp_path):
    for name in ("b/0.png", "a/0.png", "a/1.png", "a/é.png", "b/x y.jpg"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RNG.integers(0, 256, (9, 8, 3), np.uint8)).save(tmp_path / "photos" / name)
    return tmp_path / "photos"


@pytest.fixture
def place(tmp_path):
    return tmp_path / "kept" / "here"


@pytest.fixture
def count(monkeypatch):
    """How often a picture was decoded."""
    calls, decode = [], decoding._decoded

    def counted(pictures, index, fitting):
        calls.append(pictures.names[index])
        return decode(pictures, index, fitting)

    monkeypatch.setattr(decoding, "_decoded", counted)
    return calls


def notes_of(source, **options):
    notes = []
    return load(str(source), note=notes.append, **options), "\n".join(notes)


def test_a_second_start_decodes_nothing_and_reads_the_same(photos, place, count):
    expected = load(str(photos), classes=True, cache="none")
    count.clear()
    for again in (False, True):
        data, notes = notes_of(photos, classes=True, cache=str(place))
        assert data.x.tobytes() == expected.x.tobytes()
        assert data.labels.tolist() == expected.labels.tolist() == [0, 0, 0, 1, 1]
        assert len(count) == 5
        (file,) = place.glob("*.npy")
        assert f"{file} (1 MiB)" in notes
        assert ("were decoded before" in notes) == again
        assert mapping(data.samples.stored) is not None
    assert mapping(expected.samples.stored) is None


def touched(photos):
    os.utime(photos / "a" / "0.png", ns=(0, 1))


def renamed(photos):
    (photos / "a" / "0.png").rename(photos / "a" / "00.png")


def removed(photos):
    (photos / "a" / "0.png").unlink()


def grown(photos):
    """By no more than a byte, and with the times as they were."""
    file = photos / "a" / "0.png"
    times = file.stat()
    with file.open("ab") as out:
        out.write(b"x")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def moved(photos):
    (photos / "a" / "0.png").rename(photos / "b" / "1.png")


@pytest.mark.parametrize("change", [touched, renamed, removed, grown, moved])
def test_another_folder_is_decoded_anew(photos, place, count, change):
    load(str(photos), cache=str(place))
    change(photos)
    count.clear()
    data = load(str(photos), cache=str(place))
    assert len(count) == len(data)
    assert data.x.tobytes() == load(str(photos), cache="none").x.tobytes()


@pytest.mark.parametrize("how", [{"size": 16}, {"fit": "pad"}, {"fast_jpegs": False}])
def test_what_is_done_to_pictures_is_part_of_what_they_are_found_by(photos, place, count, how):
    load(str(photos), cache=str(place))
    count.clear()
    data = load(str(photos), cache=str(place), **how)
    assert len(count) == 5
    assert data.x.tobytes() == load(str(photos), cache="none", **how).x.tobytes()


def test_copies_of_a_folder_are_not_taken_for_it(photos, place, tmp_path):
    """Which could have pictures of the same names, sizes and times, as unpacked from reproducible archives."""
    load(str(photos), cache=str(place))
    shutil.copytree(photos, tmp_path / "copy")
    load(str(tmp_path / "copy"), cache=str(place))
    assert len(list(place.glob("*.npy"))) == 2


def test_everything_that_tells_pictures_apart_is_in_their_key(photos, tmp_path):
    """One by one, as no system changes them: its times change with everything else."""
    changes = {
        "sizes": lambda v: v + 1,
        "times": lambda v: v + 1,
        "names": lambda v: [*v[1:], v[0]],
        "place": lambda _: tmp_path,
    }
    keys = {cache.key_of(Folder(photos), Fitting((8, 8)))}
    for name, change in changes.items():
        pictures = Folder(photos)
        setattr(pictures, name, change(getattr(pictures, name)))
        keys.add(cache.key_of(pictures, Fitting((8, 8))))
    assert len(keys) == 5
    assert cache.key_of(Folder(photos), Fitting((8, 8))) in keys


def test_parts_of_any_length_are_the_same(photos, place, monkeypatch):
    expected = load(str(photos), cache="none").x
    monkeypatch.setattr(decoding, "MOST_AT_ONCE", 2)
    for setting in ("none", str(place)):
        assert load(str(photos), cache=setting).x.tobytes() == expected.tobytes()


def test_grey_pictures_are_kept_grey(photos, place):
    for file in photos.rglob("*.*"):
        Image.open(file).convert("L").save(file)
    for setting in ("none", str(place), str(place)):
        assert load(str(photos), cache=setting).shape == (1, 32, 32)
        assert load(str(photos), cache=setting, channels=3).shape == (3, 32, 32)
    (file,) = place.glob("*.npy")
    assert np.load(file).shape == (5, 1, 32, 32)


def test_broken_files_are_told_at_each_start_and_decoded_once(photos, place, count):
    (photos / "a" / "5.png").write_bytes(b"nonsense")
    for _ in range(2):
        with pytest.raises(Error, match=r"1 of 6 files .*a/5.png .*--skip-broken"):
            load(str(photos), cache=str(place))
    for _ in range(2):
        data, notes = notes_of(photos, cache=str(place), skip_broken=True, classes=True)
        assert "Skipped: 1 of 6 files cannot be read" in notes
        assert data.labels.tolist() == [0, 0, 0, 1, 1]
    assert len(count) == 6
    expected = load(str(photos), cache="none", skip_broken=True)
    assert data.x.tobytes() == expected.x.tobytes()
    assert data.samples.facts == expected.samples.facts


def test_a_usual_place_that_refuses_is_done_without(photos, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    data, notes = notes_of(photos)
    assert len(data) == 5
    assert "are not kept for the next start: Not a directory" in notes
    with pytest.raises(Error, match=r"cannot be kept in .*file/x.* --cache none"):
        load(str(photos), cache=str(tmp_path / "file" / "x"))


def test_a_full_disk_is_seen_before_anything_is_decoded(photos, place, monkeypatch, count):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(5 * 3 * 32 * 32 - 1))
    with pytest.raises(Error, match=r"No space left on device: .*here\. Free some"):
        load(str(photos), cache=str(place))
    assert not count
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(5 * 3 * 32 * 32))
    load(str(photos), cache=str(place))


@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 100_000, b'{"problems": [[0]]}', b'{"problems": 3}'])
@pytest.mark.parametrize("end", ["npy", "json"])
def test_what_is_damaged_is_made_again(photos, place, count, content, end):
    load(str(photos), cache=str(place))
    (file,) = place.glob(f"*.{end}")
    whole = file.read_bytes()
    file.write_bytes(content)
    data = load(str(photos), cache=str(place))
    assert len(count) == 10
    assert file.read_bytes() == whole
    assert data.x.tobytes() == load(str(photos), cache="none").x.tobytes()


def test_a_kill_leaves_nothing_that_is_taken_for_whole(photos, place):
    code = f"""
        import os, signal
        from cmcore.run.data import decoding, load
        decoding.MOST_AT_ONCE = 2
        decode = decoding._decoded
        def last(pictures, index, fitting):
            if index == 4:
                os.kill(os.getpid(), signal.SIGKILL)
            return decode(pictures, index, fitting)
        decoding._decoded = last
        load({str(photos)!r}, cache={str(place)!r})
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert done.returncode == -9
    (left,) = place.iterdir()
    assert left.name.endswith(".tmp")
    load(str(photos), cache=str(place))
    assert left.exists()  # it could be another process's that still writes
    os.utime(left, (0, time.time() - cache.ABANDONED - 1))
    load(str(photos), cache=str(place), size=8)
    assert not left.exists()


def test_what_is_known_of_large_files_is_kept(tmp_path, place, monkeypatch):
    monkeypatch.setattr(cache, "LARGE", 1)
    looks, look = [], Samples.look
    monkeypatch.setattr(Samples, "look", lambda *args: looks.append(1) or look(*args))
    x = RNG.integers(0, 256, (8, 1, 4, 4), np.uint8)
    np.save(tmp_path / "a.npy", x)
    first, again = (load(str(tmp_path / "a.npy"), cache=str(place)) for _ in range(2))
    assert len(looks) == 1
    assert first.samples.facts == again.samples.facts == look(Samples(x))
    load(str(tmp_path / "a.npy"), cache=str(place), value_range=(0, 200))
    load(str(tmp_path / "a.npy"), cache=str(place), channels=3)
    assert len(looks) == 3
    for file in place.glob("*.json"):
        file.write_text(json.dumps({"digest": 3}))
    assert load(str(tmp_path / "a.npy"), cache=str(place)).samples.facts == first.samples.facts
    assert len(looks) == 4
    np.save(tmp_path / "a.npy", x[::-1])
    assert load(str(tmp_path / "a.npy"), cache=str(place)).samples.facts.digest != first.samples.facts.digest


def test_the_usual_place(monkeypatch, tmp_path):
    assert cache.cache(None).folder == tmp_path.__class__(os.environ["XDG_CACHE_HOME"]) / "cmcore"
    monkeypatch.setattr("sys.platform", "linux")
    for relative in ("", "here"):
        monkeypatch.setenv("XDG_CACHE_HOME", relative)
        monkeypatch.setenv("HOME", str(tmp_path))
        assert cache.cache(None).folder == tmp_path / ".cache" / "cmcore"
    assert cache.cache("none").folder is None


@pytest.mark.skipif(not TRAINABLE, reason="no backend that can train takes part")
def test_a_run_remembers_its_cache_and_may_have_another(photos, place, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train = ["train", "--out", "run"]
    new = ["--data", "photos", "--steps", "1", "--batch", "4", "--size", "4", "--width", "8", "--blocks", "1"]
    assert cli.main([*train, *new, "--no-compile", "--backend", TRAINABLE[0], "--cache", "kept/here"]) == 0
    assert f"kept in {place}" in capsys.readouterr().err
    assert cli.main(["eval", "run", "--n", "4", "--steps", "1", "--backend", "numpy"]) == 0
    assert f"they are in {place}" in capsys.readouterr().err
    assert cli.main(["eval", "run", "--n", "4", "--steps", "1", "--backend", "numpy", "--cache", "none"]) == 0
    assert str(place) not in capsys.readouterr().err
    assert cli.main([*train, "--resume", "--cache", "none"]) == 2
    assert "is finished" in capsys.readouterr().err
