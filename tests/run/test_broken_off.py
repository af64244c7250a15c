"""Runs broken off at every fifth call that touches their folder. The long form, at every call and with real kills, is
``benchmarks/disk_faults.py``."""

import errno
import os
import shutil
import sys
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import TRAINABLE
from run_files import differences, unreadable
from toy import make_data

import cmcore as cm
from cmcore.run.checkpoint import newest_step
from cmcore.run.config import Config
from cmcore.run.folder import Log, RunFolder
from cmcore.run.lock import held
from cmcore.run.train import train

pytestmark = pytest.mark.skipif(not TRAINABLE, reason="no backend that can train takes part")

DATA = make_data()
CONFIG = Config(
    data="toy",
    recipe="cd",
    backend=TRAINABLE[0] if TRAINABLE else None,
    steps=2,
    save_every=1,
    sample_every=1,
    batch=4,
    width=8,
    blocks=1,
    compiled=False,
    options={"ema_std": 0.1},
)


class Killed(BaseException):
    """Stands for SIGKILL: nothing that would touch the disk is done after it."""


class Calls:
    """Strikes at a call, by Python's audit events, and then, if it lasts, at all later ones."""

    seen, at, strikes, lasts = 0, 0, None, True
    CHANGES = ("open", "fcntl.flock", "os.chmod", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate")

    def hook(self, event, arguments):
        if not self.at or (event not in self.CHANGES and event != "os.fsync"):
            return
        path = arguments[0]
        path = str(Path(f"/proc/self/fd/{path}").readlink()) if isinstance(path, int) else os.fsdecode(path)
        if not path.startswith(str(self.under)):
            return
        self.seen += 1
        if self.seen == self.at or (self.lasts and self.seen > self.at):
            raise Killed if self.strikes is Killed else OSError(self.strikes, os.strerror(self.strikes), path)

    @contextmanager
    def struck(self, under, at, strikes, lasts=True):
        self.under, self.at, self.seen, self.strikes, self.lasts = under, at, 0, strikes, lasts
        try:
            yield
        finally:
            self.at = 0


CALLS = Calls()
sys.addaudithook(CALLS.hook)


@pytest.fixture
def heard(monkeypatch):
    """The hook hears of fsync too, of which Python tells nothing; no power is cut here, so that it may be left out."""
    monkeypatch.setattr(os, "fsync", lambda handle: sys.audit("os.fsync", handle))


@pytest.fixture(scope="module")
def teacher():
    return train(replace(CONFIG, recipe="edm", options={}), DATA)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, teacher):
    out = tmp_path_factory.mktemp("whole") / "run"
    train(CONFIG, DATA, out=out, teacher=teacher)
    return out


@pytest.fixture(scope="module")
def begun(tmp_path_factory, teacher):
    """A run that was killed after its first step was saved."""
    out = tmp_path_factory.mktemp("begun") / "run"
    for at in range(40, 500):
        shutil.rmtree(out, ignore_errors=True)
        with CALLS.struck(out, at, Killed), suppress(Killed):
            train(CONFIG, DATA, out=out, teacher=teacher)
        if newest_step(out / "state") == 1:
            return out


def go_on(out, teacher):
    with suppress(cm.Error):
        train(CONFIG, DATA, out=out, teacher=teacher, resume=(out / "config.json").exists())


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
@pytest.mark.parametrize("origin", ["new", "resumed"])
@pytest.mark.parametrize("how", ["killed", "full", "failing once"])
def test_a_run_broken_off_at_any_call_ends_where_an_undisturbed_one_does(
    tmp_path, teacher, whole, begun, heard, how, origin
):
    strikes = {"killed": Killed, "full": errno.ENOSPC, "failing once": errno.EIO}[how]
    struck = 0
    for at in range(1, 1000, 5):
        out = tmp_path / str(at)
        if origin == "resumed":
            shutil.copytree(begun, out)
        text, resume = "", origin == "resumed"
        try:
            with CALLS.struck(out, at, strikes, how != "failing once"):
                train(CONFIG, DATA, out=out, teacher=teacher, resume=resume)
                if CALLS.seen < at:
                    break
        except Killed:
            pass
        except (cm.Error, OSError) as told:
            text = cm.errors.sentence(told)
            assert os.strerror(strikes) in text
            assert str(out) in text
            if (out / "config.json").exists() and "config.json" not in text:
                assert f"cmcore train --out {out} --resume" in text
        struck += 1
        assert unreadable(out) == []
        go_on(out, teacher)
        assert differences(out, whole) == []
    assert struck > 5


def test_a_finished_run_whose_last_picture_is_missing_makes_it(tmp_path, teacher, whole):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    RunFolder(out).picture(2).unlink()
    train(CONFIG, DATA, out=out, teacher=teacher, resume=True)
    assert differences(out, whole) == []
    with pytest.raises(cm.Error, match="finished"):
        train(CONFIG, DATA, out=out, teacher=teacher, resume=True)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_log_on_a_full_disk_names_its_file():
    with pytest.raises(OSError, match="No space") as told:
        Log(Path("/dev/full"), 0).add(1, 0.5, {}, 8)
    assert told.value.filename == "/dev/full"


def test_a_lock_that_cannot_be_written_hides_no_other_error(tmp_path):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(OSError, match="model"), held(tmp_path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model")
        with held(tmp_path):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
