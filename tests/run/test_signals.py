"""What stops a run saves it, in whatever way it is stopped; what only asks for a save goes on."""

import csv
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from conftest import TRAINABLE
from PIL import Image
from toy import make_data

from cmcore.run.checkpoint import newest_step
from cmcore.run.config import Config
from cmcore.run.folder import RunFolder
from cmcore.run.report import Progress
from cmcore.run.save_timer import SaveTimer
from cmcore.run.signals import STOP, Stopped, heard
from cmcore.run.train import resolved, train

DATA = make_data()
CONFIG = Config(
    backend=TRAINABLE[0] if TRAINABLE else None, steps=8, save_every=8, sample_every=1, batch=8, width=8, blocks=1
)
needs_training = pytest.mark.skipif(not TRAINABLE, reason="no backend that can train takes part")


@pytest.fixture(autouse=True)
def as_in_a_terminal():
    """Whatever started the tests may have had them ignore some."""
    before = {signum: signal.signal(signum, signal.SIG_DFL) for signum in STOP}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


def config(**changes):
    return replace(CONFIG, compiled=False, **changes)


class Impatient(Progress):
    """Sends a signal as soon as a picture is begun."""

    def __init__(self, signum, at):
        self.signum, self.at, self.done, self.notes = signum, at, 0, []

    def advance(self, done):
        self.done = done

    @contextmanager
    def phase(self, what, quiet=False):
        if "picture" in what and self.done == self.at:
            os.kill(os.getpid(), self.signum)
            raise AssertionError("The picture was waited for.")
        yield lambda done, total: None

    def note(self, message):
        self.notes.append(message)


@needs_training
@pytest.mark.parametrize("at", [3, CONFIG.steps], ids=["within", "last step"])
@pytest.mark.parametrize("signum", STOP)
def test_a_signal_does_not_wait_for_a_picture(tmp_path, signum, at):
    whole = train(config(), DATA)
    progress = Impatient(signum, at)
    with pytest.raises(Stopped):
        train(config(), DATA, out=tmp_path / "run", progress=progress)
    folder = RunFolder(tmp_path / "run")
    assert newest_step(folder.state) == at
    assert not folder.picture(at).exists()
    assert any("--resume" in note for note in progress.notes)
    assert bits(train(config(), DATA, out=tmp_path / "run", resume=True)) == bits(whole)
    assert folder.picture(at).exists()


class Sending(Progress):
    """Sends a signal after some steps, and remembers what it is told."""

    def __init__(self, signum, *steps):
        self.signum, self.steps, self.notes = signum, steps, []

    def advance(self, done):
        if done in self.steps:
            os.kill(os.getpid(), self.signum)

    def note(self, message):
        self.notes.append(message)


def bits(model):
    return {name: w.tobytes() for name, w in model.weights.items()}


@needs_training
@pytest.mark.parametrize("signum", STOP)
def test_a_signal_saves_and_says_how_to_go_on(tmp_path, signum):
    whole = train(config(), DATA)
    before = signal.getsignal(signum)
    progress = Sending(signum, 3)
    with pytest.raises(Stopped) as stopped:
        train(config(), DATA, out=tmp_path / "run", progress=progress)
    assert stopped.value.signum == signum
    assert signal.getsignal(signum) is before
    folder = RunFolder(tmp_path / "run")
    assert newest_step(folder.state) == 3
    # No time for a picture: it is made when the run is resumed.
    assert sorted(p.name for p in folder.samples.iterdir()) == ["step-00000001.png", "step-00000002.png"]
    assert any("--resume" in note for note in progress.notes)
    assert bits(train(config(), DATA, out=tmp_path / "run", resume=True)) == bits(whole)
    assert (folder.samples / "step-00000003.png").exists()


@needs_training
@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="Windows has no SIGUSR1")
def test_a_request_saves_and_goes_on(tmp_path):
    seen = []

    class Asking(Sending):
        def advance(self, done):
            seen.append(newest_step(tmp_path / "run" / "state"))
            super().advance(done)

    model = train(config(), DATA, out=tmp_path / "run", progress=Asking(signal.SIGUSR1, 2, 5))
    assert seen == [0, 0, 2, 2, 2, 5, 5, 5]
    assert bits(model) == bits(train(config(), DATA))


@needs_training
def test_a_slow_run_is_saved_by_the_clock(tmp_path, monkeypatch):
    now = iter(range(0, 10_000, 25))
    monkeypatch.setattr("cmcore.run.loop.SaveTimer", lambda minutes: SaveTimer(minutes, lambda: next(now)))
    seen = []

    class Looking(Progress):
        def advance(self, done):
            seen.append(newest_step(tmp_path / "run" / "state"))

    model = train(config(save_minutes=1.5), DATA, out=tmp_path / "run", progress=Looking())
    # After a minute, then a minute and a half from the end of that save, at 25 s from look to look.
    assert seen == [0, 0, 0, 3, 3, 3, 3, 7]
    assert bits(model) == bits(train(config(), DATA))
    with (tmp_path / "run" / "log.csv").open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == list(range(1, 9))


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with heard(print) as asked:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert asked.stop is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_ctrl_c_is_heard_in_the_background():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with heard(print) as asked:
        os.kill(os.getpid(), signal.SIGINT)
        assert asked.stop == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_second_signal_stops_at_once():
    notes = []
    with heard(notes.append) as asked:
        os.kill(os.getpid(), signal.SIGINT)
        assert asked.stop == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert len(notes) == 1


@pytest.mark.parametrize(
    ("signum", "status", "told"),
    [
        (signal.SIGTERM, 143, "cmcore: interrupted.\n"),
        (signal.SIGINT, 130, "cmcore: interrupted.\n"),
        (signal.SIGHUP, 129, "cmcore: interrupted.\n"),
        (signal.SIGUSR1, 7, ""),
    ],
)
def test_a_command_ends_with_a_sentence_and_the_signals_status(signum, status, told):
    program = """
import os, signal
for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(signum, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
import cmcore.run.cli
def stopped(args=None):
    os.kill(os.getpid(), {})
    return 7
cmcore.run.cli.main = stopped
from cmcore.__main__ import main
raise SystemExit(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program.format(int(signum))], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (status, told)


@needs_training
def test_compiling_is_chosen_where_it_pays():
    def chosen(**settings):
        return resolved(replace(CONFIG, **settings))[0].compiled

    assert chosen(compiled=True) is True
    assert chosen(compiled=False) is False
    if "torch" in TRAINABLE:
        assert chosen(backend="torch", recipe="ect", steps=4000) is False
        assert chosen(backend="torch", recipe="ect", steps=10**5) is True
        assert chosen(backend="torch", recipe="sct", steps=10) is False
        assert chosen(backend="torch", recipe="sct", steps=4000) is True
    for name in set(TRAINABLE) - {"torch"}:
        assert chosen(backend=name, recipe="ect", steps=10) is True


STALLED = """
import hashlib, os, sys
from cmcore.__main__ import main
from cmcore.run.data import decoding, samples

decode, (silent, _) = decoding._decoded, os.pipe()

def wait():
    print("stalled", flush=True)
    os.read(silent, 1)  # as a disk that does not answer

def stalled(pictures, index, fitting):
    if index == 1:
        wait()
    return decode(pictures, index, fitting)

class Digest:
    def __init__(self, _):
        pass

    def update(self, _):
        wait()

if sys.argv.pop(1) == "decoding":
    decoding._decoded = stalled
else:
    samples.hashlib.sha256 = Digest
sys.exit(main())
"""


@needs_training
@pytest.mark.timeout(120)
@pytest.mark.parametrize("where", ["decoding", "looking through"])
def test_a_disk_that_does_not_answer_does_not_keep_ctrl_c(tmp_path, where):
    (tmp_path / "data").mkdir()
    for i in range(40):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)).save(
            tmp_path / "data" / f"{i:02}.png"
        )
    command = ["train", "--data", str(tmp_path / "data"), "--cache", "none", "--out", str(tmp_path / "run")]
    command += ["--backend", TRAINABLE[0]]
    process = subprocess.Popen(
        [sys.executable, "-c", STALLED, where, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "stalled\n", process.communicate()
    process.send_signal(signal.SIGINT)
    try:
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert told.endswith("cmcore: interrupted.\n")
    assert "Traceback" not in told
