"""Disks that refuse what others do, are full, or hold something already: a run goes on, or a sentence says why not."""

import errno
import os
import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import TRAINABLE
from toy import make_data

import cmcore as cm
from cmcore import _files
from cmcore.model import load_model
from cmcore.run import lock
from cmcore.run.cli import main
from cmcore.run.config import Config
from cmcore.run.folder import RunFolder
from cmcore.run.plan import make_plan
from cmcore.run.resuming import changes
from cmcore.run.train import train
from cmcore.training import Trainer

pytestmark = pytest.mark.skipif(not TRAINABLE, reason="no backend that can train takes part")

DATA = make_data()
CONFIG = Config(
    data="toy",
    recipe="ect",
    backend=TRAINABLE[0] if TRAINABLE else None,
    steps=4,
    save_every=2,
    sample_every=4,
    batch=8,
    width=8,
    blocks=1,
    compiled=False,
)


@pytest.fixture(autouse=True)
def nothing_left_out(monkeypatch):
    monkeypatch.setattr(_files, "_left_out", set())


@pytest.fixture(scope="module")
def bits():
    return weights(train(CONFIG, DATA))


def weights(model):
    return {name: w.tobytes() for name, w in model.weights.items()}


def refusing(code, when=lambda *a: True):
    """A function that fails as a system call does, where ``when`` says so."""

    def wrap(original):
        def refused(*args, **kwargs):
            if when(*args):
                raise OSError(code, os.strerror(code))
            return original(*args, **kwargs)

        return refused

    return wrap


def is_folder(handle, *_):
    return Path(f"/proc/self/fd/{handle}").is_dir()


REFUSALS = {
    "flock ENOLCK": (lock.fcntl, "flock", refusing(errno.ENOLCK), "locks"),
    "flock ENOSYS": (lock.fcntl, "flock", refusing(errno.ENOSYS), "locks"),
    "flock ENOTSUP": (lock.fcntl, "flock", refusing(errno.ENOTSUP), "locks"),
    "fsync of a folder EINVAL": (os, "fsync", refusing(errno.EINVAL, is_folder), "flushing folders"),
    "fsync of a folder EBADF": (os, "fsync", refusing(errno.EBADF, is_folder), "flushing folders"),
    "fsync ENOSYS": (os, "fsync", refusing(errno.ENOSYS), "flushing files"),
    "opening a folder EACCES": (
        os,
        "open",
        refusing(errno.EACCES, lambda *a: a[1] & os.O_DIRECTORY),
        "flushing folders",
    ),
    "chmod EPERM": (os, "chmod", refusing(errno.EPERM), "setting permissions"),
    "chmod ENOTSUP": (os, "chmod", refusing(errno.ENOTSUP), "setting permissions"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_courtesy_that_a_disk_refuses_is_left_out_with_one_warning(tmp_path, monkeypatch, bits, name):
    place, function, wrap, what = REFUSALS[name]
    monkeypatch.setattr(place, function, wrap(getattr(place, function)))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert weights(train(CONFIG, DATA, out=tmp_path / "run")) == bits
    ours = [str(w.message) for w in said if "left out" in str(w.message)]
    assert len([message for message in ours if f"does not support {what}" in message]) == 1
    assert str(tmp_path) in ours[0]
    assert weights(load_model(tmp_path / "run")) == bits


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_disk_that_fails_at_any_write_keeps_the_newest_state(tmp_path, monkeypatch, bits, function, code):
    """Each write in turn: the run says where, and goes on from the newest whole state to the same bits."""
    original, failed = getattr(os, function), 0
    for k in range(100):
        calls, run = iter(range(1000)), tmp_path / str(k)
        with monkeypatch.context() as patch:
            patch.setattr(os, function, refusing(code, lambda *_, calls=calls, k=k: next(calls) == k)(original))
            try:
                train(CONFIG, DATA, out=run)
                break
            except (cm.Error, OSError) as told:
                failed += 1
                text = cm.errors.sentence(told)
        assert os.strerror(code) in text
        assert str(run) in text
        if (run / "config.json").exists():
            assert f"cmcore train --out {run} --resume" in text
            # If the very last write failed, nothing is left to do.
            with suppress(cm.Error):
                train(CONFIG, DATA, out=run, resume=True)
        else:
            assert not run.exists()
            train(CONFIG, DATA, out=run)
        assert weights(load_model(run)) == bits
    assert failed >= 5


def test_no_lock_and_a_living_holder_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(lock.fcntl, "flock", refusing(errno.ENOLCK)(lock.fcntl.flock))
    host = lock.socket.gethostname()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for holder, taken in ((f"{host} {os.getppid()}", True), (f"{host} 999999999", False), ("elsewhere 1", False)):
            (tmp_path / lock.NAME).write_text(holder)
            if taken:
                with pytest.raises(cm.Error, match="Another process"), lock.held(tmp_path):
                    pass
            else:
                with lock.held(tmp_path):
                    assert (tmp_path / lock.NAME).read_text() == f"{host} {os.getpid()}\n"


def test_an_empty_folder_is_filled_in_place(tmp_path, monkeypatch, bits):
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "lost+found").mkdir()
    (empty / ".hidden").write_text("mine")
    (tmp_path / "link").symlink_to(empty)
    node = empty.stat().st_ino
    monkeypatch.chdir(empty)
    for out in (".", str(tmp_path / "link")):
        assert weights(train(CONFIG, DATA, out=out)) == bits
        assert empty.stat().st_ino == node
        assert (empty / ".hidden").read_text() == "mine"
        with pytest.raises(cm.Error, match="holds a run already"):
            train(CONFIG, DATA, out=out)
        RunFolder(empty)._remove_parts()


def test_a_place_that_cannot_be_written_to_is_a_sentence(tmp_path, monkeypatch, capsys):
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "file").write_text("")
    arguments = ["train", "--data", "digits", "--steps", "1", "--batch", "2", "--backend", CONFIG.backend, "--out"]
    assert main([*arguments, str(tmp_path / "nowhere")]) == 2
    assert "is a link to nothing" in capsys.readouterr().err
    assert main([*arguments, str(tmp_path / "file" / "run")]) == 2
    assert "Not a directory" in capsys.readouterr().err
    monkeypatch.setattr(os, "mkdir", refusing(errno.EROFS)(os.mkdir))
    with pytest.raises(OSError, match="Read-only"):
        train(CONFIG, DATA, out=tmp_path / "run")


@pytest.mark.parametrize("broken_off", ["at step 0", "while it starts", "between its two last files"])
def test_a_run_that_never_took_a_step_is_begun_anew(tmp_path, bits, broken_off, monkeypatch):
    run = RunFolder(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr("cmcore.training.Trainer.step", refusing(errno.ENOMEM)(None))
        with pytest.raises(cm.Error):
            train(replace(CONFIG, width=16), DATA, out=run.path)
    assert run.config.exists()
    if broken_off == "while it starts":
        run.config.unlink()
    if broken_off != "at step 0":
        run.starting.touch()
    with lock.held(run.path), pytest.raises(cm.Error, match="Another process"):
        train(CONFIG, DATA, out=run.path)
    assert weights(train(CONFIG, DATA, out=run.path)) == bits
    run.starting.touch()
    with pytest.raises(cm.Error, match="holds a run already"):
        train(CONFIG, DATA, out=run.path)


def test_what_is_no_start_of_ours_is_never_removed(tmp_path):
    for name in ("state", "samples", "model.safetensors", "photo.jpg"):
        folder = tmp_path / name.replace(".", "")
        folder.mkdir()
        (folder / name).write_text("precious")
        with pytest.raises(cm.Error, match="not empty"):
            train(CONFIG, DATA, out=folder)
        assert (folder / name).read_text() == "precious"
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "config.json").write_text("{}")
    with pytest.raises(cm.Error, match="holds a run already"):
        train(CONFIG, DATA, out=foreign)


@pytest.fixture
def stopped(tmp_path):
    """A run that was broken off after two steps, and its data, in a folder each."""
    (tmp_path / "data").mkdir()
    data = tmp_path / "data" / "points.npz"
    np.savez(data, x=np.random.default_rng(0).uniform(-1, 1, (40, 5)).astype(np.float32))
    run = tmp_path / "run"
    arguments = f"--data {data} --recipe ect --backend {CONFIG.backend} --batch 8 --width 8 --blocks 1 --no-compile"
    return run, data, [*arguments.split(), "--steps", "4", "--save-every", "2", "--out", str(run)]


def break_off(arguments, monkeypatch):
    """Train until before the fourth step."""
    original = Trainer.step

    def stopping(self, index, *args, **kwargs):
        if index == 3:
            raise KeyboardInterrupt
        return original(self, index, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", stopping)
        with pytest.raises(KeyboardInterrupt):
            main(["train", *arguments])


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "--save-every 1",
        "--sample-every 3",
        "--device cpu",
        "--data MOVED",
        "--save-every 1 --data MOVED",
    ],
)
def test_what_changes_no_numbers_may_change(stopped, monkeypatch, typed):
    run, data, arguments = stopped
    whole = run.with_name("whole")
    assert main(["train", *arguments[:-1], str(whole)]) == 0
    break_off(arguments, monkeypatch)
    moved = data.with_name("elsewhere.npz")
    if "MOVED" in typed:
        data.rename(moved)
    assert main(["train", "--out", str(run), "--resume", *typed.replace("MOVED", str(moved)).split()]) == 0
    assert weights(load_model(run)) == weights(load_model(whole))
    if "MOVED" in typed:
        assert RunFolder(run).read()[0].data == str(moved)


def test_what_changes_numbers_is_told(stopped, monkeypatch, capsys):
    run, data, arguments = stopped
    break_off(arguments, monkeypatch)
    capsys.readouterr()
    resume = ["train", "--out", str(run), "--resume"]
    assert main([*resume, "--batch", "4"]) == 2
    assert "--batch 8 there, 4 here" in capsys.readouterr().err
    data.rename(data.with_name("gone.npz"))
    assert main(resume) == 2
    assert "--data" in capsys.readouterr().err
    other = data.with_name("other.npz")
    np.savez(other, x=np.ones((40, 5), np.float32) * np.arange(5, dtype=np.float32))
    assert main([*resume, "--data", str(other)]) == 2
    assert "The data is not what the run" in capsys.readouterr().err
    assert main([*resume, "--device", "nonsense:7"]) == 2
    assert "nonsense:7" in capsys.readouterr().err


def test_the_teacher_may_move_but_not_change(tmp_path):
    config = replace(CONFIG, recipe="edm", steps=2)
    train(config, DATA, out=tmp_path / "teacher")
    train(replace(config, seed=1), DATA, out=tmp_path / "other")
    student = replace(CONFIG, recipe="cd", teacher=str(tmp_path / "teacher"))
    train(replace(student, steps=4), DATA, out=tmp_path / "run")
    (tmp_path / "run" / "model.safetensors").unlink()
    (tmp_path / "teacher").rename(tmp_path / "moved")
    with pytest.raises(cm.Error, match="has another teacher"):
        train(replace(student, teacher=str(tmp_path / "other")), DATA, out=tmp_path / "run", resume=True)
    train(replace(student, teacher=str(tmp_path / "moved")), DATA, out=tmp_path / "run", resume=True)
    assert RunFolder(tmp_path / "run").read()[0].teacher == str(tmp_path / "moved")


def test_another_way_of_computing_is_told():
    plan = make_plan(CONFIG, DATA)
    assert changes(plan, CONFIG, replace(CONFIG, save_every=1, data="elsewhere")) == []
    (said,) = changes(plan, CONFIG, replace(CONFIG, compiled=True))
    assert "compiled=False and goes on with compiled=True" in said
    (said,) = changes(plan, replace(CONFIG, device="cuda:0"), replace(CONFIG, device="cpu"))
    assert "device=cuda:0 and goes on with device=cpu: the same results to the bit are not assured" in said
    kept = make_plan(replace(CONFIG, options={"ema_std": 0.1}), DATA)
    assert changes(kept, CONFIG, replace(CONFIG, save_every=1)) == ["From here on an average is kept every 1 steps."]


def test_who_is_refused_leaves_the_holder_its_folder(tmp_path, monkeypatch):
    """Both find no folder and make it; the one that does not get the lock must not tidy it away."""
    folder = tmp_path / "run"
    with lock.held(folder):
        exists = Path.exists
        monkeypatch.setattr(Path, "exists", lambda self, **_: self != folder and exists(self))
        with pytest.raises(cm.Error, match="Another process"), lock.held(folder):
            pass
        assert (folder / lock.NAME).is_file()
        (folder / "config.json").write_text("{}")
    assert (folder / "config.json").is_file()


def test_a_lock_on_a_file_that_was_removed_holds_nothing(tmp_path, monkeypatch):
    path = tmp_path / lock.NAME
    taken = lock._taken

    def removed_meanwhile(file, where):
        path.unlink()
        return taken(file, where)

    monkeypatch.setattr(lock, "_taken", removed_meanwhile)
    with pytest.raises(cm.Error, match="Another process"), lock.locked(path, "training"):
        pass
