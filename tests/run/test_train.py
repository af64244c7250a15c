import csv
import errno
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import TRAINABLE
from toy import make_data

import cmcore as cm
from cmcore.model import load_model
from cmcore.run import loop
from cmcore.run.config import Config, parse_options
from cmcore.run.folder import RunFolder
from cmcore.run.lock import held
from cmcore.run.plan import fingerprint, make_plan
from cmcore.run.report import Progress
from cmcore.run.train import train

DATA = make_data()
FIRST = TRAINABLE[0] if TRAINABLE else ""
needs_training = pytest.mark.skipif(not TRAINABLE, reason="no backend that can train takes part")


def make_config(backend, **changes):
    # torch.compile takes longer than these runs; the others' compilers are faster than running without.
    settings = dict(recipe="ct", backend=backend, steps=12, batch=8, width=8, blocks=1, compiled=backend != "torch")
    return Config(**settings | changes)


def same_weights(a, b):
    return a.weights.keys() == b.weights.keys() and all(
        a.weights[k].tobytes() == b.weights[k].tobytes() for k in a.weights
    )


class Notes(Progress):
    """Remembers everything it is told, and sends Ctrl-C after a step."""

    def __init__(self, interrupt_after=None):
        self.interrupt_after, self.notes, self.rows, self.done, self.ended = interrupt_after, [], [], [], False

    def advance(self, done):
        self.done.append(done)
        if done == self.interrupt_after:
            os.kill(os.getpid(), signal.SIGINT)

    def measure(self, row):
        self.rows.append(row)

    def note(self, message):
        self.notes.append(message)

    def end(self):
        self.ended = True


@pytest.fixture
def name(trainable):
    return trainable.name


def test_a_run_leaves_all_its_files(tmp_path, name):
    progress = Notes()
    model = train(make_config(name, sample_every=6), DATA, out=tmp_path / "run", progress=progress)
    folder = RunFolder(tmp_path / "run")
    assert model.step == model.steps == 12
    assert same_weights(load_model(folder.path), model)
    assert [p.name for p in folder.state.iterdir()] == ["step-00000012.safetensors"]
    assert sorted(p.name for p in folder.samples.iterdir()) == ["step-00000006.png", "step-00000012.png"]
    assert progress.done == list(range(1, 13))
    assert progress.ended
    with folder.log.open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(1, 13))
    assert {"step", "loss", "lr", "n", "target_decay", "images_per_second", "seconds"} <= rows[0].keys()
    assert [float(row["loss"]) for row in rows] == [row["loss"] for row in progress.rows]
    assert len({row["loss"] for row in rows}) == 12
    config, plan, versions = folder.read()
    assert config == make_config(name, sample_every=6, device=cm.load(name).device)
    assert plan.recipe.sigma_data == pytest.approx(DATA.x.std(), rel=1e-6)
    assert versions[name] == cm.load(name).version()


def test_an_interrupted_run_ends_with_the_same_bits(tmp_path, name):
    config = make_config(name, save_every=5)
    whole = train(config, DATA, out=tmp_path / "whole")
    progress = Notes(interrupt_after=7)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(config, DATA, out=tmp_path / "broken", progress=progress)
    assert signal.getsignal(signal.SIGINT) is before
    assert progress.done[-1] == 7
    assert load_model(tmp_path / "broken").step == 7
    assert f"cmcore train --out {tmp_path / 'broken'} --resume" in progress.notes[-1]
    resumed = train(config, DATA, out=tmp_path / "broken", resume=True)
    assert same_weights(resumed, whole)
    logs = [RunFolder(tmp_path / run).log.read_text().splitlines() for run in ("whole", "broken")]
    assert [line.split(",")[:2] for line in logs[0]] == [line.split(",")[:2] for line in logs[1]]
    assert load_model(tmp_path / "broken").step == 12


@needs_training
@pytest.mark.parametrize("step", [5, 12])
def test_a_run_killed_right_after_it_wrote_a_state_is_completed(tmp_path, monkeypatch, step):
    """Also after the last step's, when there is nothing left to train."""
    config = make_config(FIRST, steps=12, save_every=5, sample_every=5)
    whole = train(config, DATA, out=tmp_path / "whole")

    class Killed(BaseException):
        pass

    def save_state(folder, done, *state):
        original(folder, done, *state)
        if done == step:
            raise Killed

    original = loop.save_state
    with monkeypatch.context() as patched:
        patched.setattr(loop, "save_state", save_state)
        with pytest.raises(Killed):
            train(config, DATA, out=tmp_path / "broken")
    assert load_model(tmp_path / "broken").step < step
    train(config, DATA, out=tmp_path / "broken", resume=True)
    assert same_weights(load_model(tmp_path / "broken"), whole)
    pictures = [sorted(p.name for p in RunFolder(tmp_path / run).samples.iterdir()) for run in ("whole", "broken")]
    assert pictures[0] == pictures[1]


@needs_training
def test_ctrl_c_while_a_step_is_being_recorded_loses_nothing(tmp_path):
    class Late(Notes):
        def measure(self, row):
            if row["step"] == 7:
                os.kill(os.getpid(), signal.SIGINT)

    progress = Late()
    with pytest.raises(KeyboardInterrupt):
        train(make_config(FIRST, save_every=5), DATA, out=tmp_path / "run", progress=progress)
    step = load_model(tmp_path / "run").step
    assert step in (7, 8)
    assert f"Saved after step {step}." in progress.notes[-1]


@needs_training
@pytest.mark.parametrize("name", TRAINABLE)
def test_layers_compute_in_bfloat16_and_weights_stay_float32(tmp_path, name):
    losses = {}
    if "bfloat16" not in cm.load(name).float_types():
        with pytest.raises(cm.Error, match=r"cannot compute in 'bfloat16'; .*[iI]t has float32"):
            train(make_config(name, precision="bfloat16"), DATA)
        return
    for precision in ("float32", "bfloat16"):
        notes = Notes()
        config = make_config(name, precision=precision)
        model = train(config, DATA, out=tmp_path / precision, progress=notes)
        losses[precision] = np.mean([float(row["loss"]) for row in notes.rows])
        assert {w.dtype for w in model.weights.values()} == {np.dtype(np.float32)}
    assert 0 < abs(losses["bfloat16"] / losses["float32"] - 1) < 0.02
    other = replace(make_config(name), steps=20)
    with pytest.raises(cm.Error, match="--precision bfloat16 there, float32 here"):
        train(other, DATA, out=tmp_path / "bfloat16", resume=True)


def test_training_lowers_the_loss():
    progress = Notes()
    config = make_config(FIRST, recipe="edm", steps=150, batch=32, width=16, options={"lr": 3e-3})
    # Two patterns, almost: much easier to denoise than a Gaussian of their standard deviation.
    pattern = np.where(np.arange(16) % 3 == 0, 0.9, -0.9).reshape(1, 4, 4)
    x = np.stack([pattern, -pattern] * 20).astype(np.float32) + 0.02 * DATA.x
    train(config, type(DATA)(x, DATA.labels, DATA.classes, DATA.held_out, DATA.name, DATA.images), progress=progress)
    losses = [row["loss"] for row in progress.rows]
    assert np.mean(losses[-30:]) < 0.7 * np.mean(losses[:5])


@needs_training
def test_distillation_starts_from_its_teacher_and_can_be_resumed_without_it(tmp_path):
    train(make_config(FIRST, recipe="edm"), DATA, out=tmp_path / "teacher")
    progress = Notes(interrupt_after=4)
    config = make_config(FIRST, recipe="cd", teacher=str(tmp_path / "teacher"), options={"mu": 0.5})
    whole = train(config, DATA)
    with pytest.raises(KeyboardInterrupt):
        train(config, DATA, out=tmp_path / "student", progress=progress)
    assert "starts from the teacher's weights" in progress.notes[0]
    (tmp_path / "teacher" / "model.safetensors").unlink()
    assert same_weights(train(config, DATA, out=tmp_path / "student", resume=True), whole)


@needs_training
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"width": 16}, "its network (width 16) is not the teacher's (width 8)."),
        ({"width": 16, "blocks": 2}, "its network (width 16, blocks 2) is not the teacher's (width 8, blocks 1)."),
        ({"network": "conv"}, "its network (kind conv) is not the teacher's (kind mlp)."),
        ({"recipe": "ayf"}, "its network is of the kind 'velocity' and the teacher's of the kind 'edm'."),
    ],
)
def test_a_student_that_cannot_start_from_its_teacher_says_so(changes, told):
    teacher, progress = train(make_config(FIRST, recipe="edm", steps=1), DATA), Notes()
    train(make_config(FIRST, steps=1, **({"recipe": "cd"} | changes)), DATA, teacher=teacher, progress=progress)
    assert f"The student starts from random weights: {told}" in progress.notes
    assert not any("starts from the teacher's" in note for note in progress.notes)


@needs_training
def test_weights_to_start_from_are_used():
    first = train(make_config(FIRST, recipe="edm"), DATA)
    # A learning rate this small leaves float32 weights where they are.
    second = train(make_config(FIRST, recipe="ect", steps=2, options={"lr": 1e-30}), DATA, init=first)
    assert all(np.allclose(second.weights[k], w, rtol=1e-6, atol=0) for k, w in first.weights.items())
    assert second.recipe.sigma_data == first.recipe.sigma_data


def test_classes_and_points(tmp_path, name):
    data = make_data((3,), classes=4)
    progress = Notes()
    model = train(make_config(name, classes=True), data, out=tmp_path / "run", progress=progress)
    assert model.architecture.classes == 4
    assert model.data.classes == data.classes
    assert sum("not images" in note for note in progress.notes) == 1
    assert not any((tmp_path / "run" / "samples").iterdir())


@needs_training
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_state(tmp_path):
    config = make_config(FIRST, recipe="edm", steps=40, save_every=1, options={"lr": 1e30})
    with pytest.raises(cm.Error, match=r"(became (nan|inf)|broke down).*lower learning rate"):
        train(config, DATA, out=tmp_path / "run")
    model = load_model(tmp_path / "run")
    assert all(np.isfinite(w).all() for w in model.weights.values())


@needs_training
def test_a_state_that_is_not_finite_is_one_sentence(tmp_path, monkeypatch):
    def refused(*_):
        raise ValueError("The array 'w' holds numbers that are not finite.")

    monkeypatch.setattr(loop, "save_state", refused)
    with pytest.raises(cm.Error, match=r"broke down before step 0: The array 'w' .* not finite\. [A-Z]"):
        train(make_config(FIRST), DATA, out=tmp_path / "run")


@needs_training
def test_nothing_is_overwritten(tmp_path):
    config = make_config(FIRST, steps=2)
    train(config, DATA, out=tmp_path / "run")
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    with pytest.raises(cm.Error, match="--resume"):
        train(config, DATA, out=tmp_path / "run")
    with pytest.raises(cm.Error, match="is finished"):
        train(config, DATA, out=tmp_path / "run", resume=True)
    with pytest.raises(cm.Error, match="--seed 0 there, 1 here"):
        train(replace(config, seed=1), DATA, out=tmp_path / "run", resume=True)
    with pytest.raises(cm.Error, match=r"depend on: --width 8 there only; --classes here only\. "):
        train(replace(config, width=None, classes=True), DATA, out=tmp_path / "run", resume=True)
    with pytest.raises(cm.Error, match="the same data"):
        train(config, make_data(seed=1), out=tmp_path / "run", resume=True)
    assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    for taken in (tmp_path / "mine", tmp_path / "mine" / "thesis.txt"):
        with pytest.raises(cm.Error, match="--out must be a new or empty folder"):
            train(config, DATA, out=taken)
    with pytest.raises(cm.Error, match="no run"):
        train(config, DATA, out=tmp_path / "mine", resume=True)


@needs_training
def test_half_written_log_lines_and_left_over_files_are_removed(tmp_path):
    config = make_config(FIRST, save_every=5)
    with pytest.raises(KeyboardInterrupt):
        train(config, DATA, out=tmp_path / "run", progress=Notes(interrupt_after=6))
    folder = RunFolder(tmp_path / "run")
    with folder.log.open("a") as file:
        file.write("7,0.25,0.1\n8,0.2")
    leftover = folder.state / f".{'0123456789abcdef' * 2}.tmp"
    foreign = folder.path / ".mine.tmp"
    for file in (leftover, foreign):
        file.write_bytes(b"half")
    train(config, DATA, out=tmp_path / "run", resume=True)
    assert [line.split(",")[0] for line in folder.log.read_text().splitlines()] == ["step", *map(str, range(1, 13))]
    assert not leftover.exists()
    assert foreign.exists()


@needs_training
def test_a_run_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    config = make_config(FIRST, steps=2)

    def killed(*_):
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_model", killed)
        with pytest.raises(SystemExit):
            train(config, DATA, out=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
    train(config, DATA, out=tmp_path / "run")
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    (tmp_path / "run" / "state" / "step-00000002.safetensors").unlink()
    with pytest.raises(cm.Error, match="lost its training state"):
        train(config, DATA, out=tmp_path / "run", resume=True)


@needs_training
def test_teachers_and_starts_that_do_not_fit_are_sentences():
    config = make_config(FIRST, steps=1)
    consistency, teacher = train(config, DATA), train(replace(config, recipe="edm"), DATA)
    labelled = make_data(classes=2)
    classy = train(replace(config, recipe="edm", classes=True), labelled)
    jumps = train(replace(config, recipe="ctm"), DATA, teacher=teacher)
    guided = replace(config, recipe="cd", classes=True, options={"guidance": 3.0})
    cases = [
        (guided, labelled, {"teacher": classy}, "never trained without one; train it with --set label_dropout"),
        (replace(config, recipe="ect"), DATA, {"init": jumps}, "belong to another network"),
        (replace(config, recipe="sct"), DATA, {"init": teacher}, "unless --set network=edm is given"),
        (replace(config, recipe="cd"), DATA, {}, "needs --teacher"),
        (
            replace(config, recipe="cd", options={"teacher_predicts": "noise"}),
            DATA,
            {"teacher": teacher},
            "teacher_predicts=edm, got noise",
        ),
        (replace(config, recipe="pd", width=16), DATA, {"teacher": teacher}, "its network must be the teacher's"),
        (replace(config, recipe="pd"), DATA, {"teacher": teacher, "init": teacher}, "it takes no --init"),
        (config, DATA, {"teacher": teacher}, "takes no teacher"),
        (replace(config, recipe="cd"), DATA, {"teacher": consistency}, "must be trained with the recipe 'edm'"),
        (replace(config, recipe="cd"), make_data((1, 2, 2)), {"teacher": teacher}, "for data of shape"),
        (
            replace(config, recipe="cd", network="conv"),
            make_data((1, 8, 8)),
            {"teacher": teacher},
            "is for data of shape",
        ),
        (replace(config, recipe="cd", options={"sigma_data": 9.0}), DATA, {"teacher": teacher}, "sigma_data"),
        (replace(config, width=16), DATA, {"init": teacher}, "width 8 there, 16 here"),
        (replace(config, classes=True), DATA, {}, "no classes"),
        (replace(config, backend="numpy"), DATA, {}, "no gradients"),
    ]
    for settings, data, extra, match in cases:
        with pytest.raises(cm.Error, match=match):
            train(settings, data, **extra)


def test_options_are_parsed_by_the_type_of_their_field():
    parsed = parse_options("cd", ["n=40", "mu=0.9", "solver=euler", "betas=0.5,0.75", "decay=true", "lr=1e-3"])
    assert parsed == {"n": 40, "mu": 0.9, "solver": "euler", "betas": (0.5, 0.75), "decay": True, "lr": 1e-3}
    for pair, match in [
        ("n", "KEY=VALUE"),
        ("n=4.5", "a whole number"),
        ("decay=maybe", "true or false"),
        ("betas=1", "commas"),
        ("lr=fast", "a number"),
        ("colour=red", "no option 'colour'"),
        ("optimizer=adam", "no option 'optimizer'"),
    ]:
        with pytest.raises(ValueError, match=match):
            parse_options("cd", [pair])


@pytest.mark.parametrize("setting", ["steps", "batch", "width", "blocks", "size", "save_every"])
def test_settings_out_of_range_are_sentences(setting):
    with pytest.raises(ValueError, match=f"--{setting.replace('_', '-')} must be at least 1, got 0"):
        Config(**{setting: 0})


def test_defaults_depend_on_the_data():
    kinds = {
        shape: type(make_plan(Config(), make_data(shape)).architecture).__name__
        for shape in [(1, 8, 8), (3, 16, 16), (9,)]
    }
    assert list(kinds.values()) == ["ResidualMLP", "ResidualConv", "ResidualMLP"]
    assert fingerprint(DATA) == fingerprint(make_data()) != fingerprint(make_data(seed=1))


@needs_training
def test_a_run_under_way_is_not_resumed_by_another_process(tmp_path):
    config = make_config(FIRST, save_every=2)
    with pytest.raises(KeyboardInterrupt):
        train(config, DATA, out=tmp_path / "run", progress=Notes(interrupt_after=5))
    with held(tmp_path / "run"), pytest.raises(cm.Error, match="Another process is training"):
        train(config, DATA, out=tmp_path / "run", resume=True)
    assert train(config, DATA, out=tmp_path / "run", resume=True).step == 12


@needs_training
def test_times_that_cannot_be_are_refused_before_anything_is_made(tmp_path):
    with pytest.raises(ValueError, match="0 < t_min < t_max"):
        train(make_config(FIRST, recipe="edm", options={"t_min": 100.0}), DATA, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@needs_training
def test_what_a_disk_would_not_remove_is_removed_in_the_end(tmp_path, monkeypatch):
    config, folder = make_config(FIRST, save_every=5), RunFolder(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        train(config, DATA, out=folder.path, progress=Notes(interrupt_after=6))
    leftover = folder.state / f".{'0123456789abcdef' * 2}.tmp"
    leftover.write_bytes(b"half")
    unlink, failed = Path.unlink, []

    def once(self, *args, **kwargs):
        if self == leftover and not failed:
            failed.append(self)
            raise OSError(errno.EIO, "Input/output error")
        return unlink(self, *args, **kwargs)

    monkeypatch.setattr(Path, "unlink", once)
    train(config, DATA, out=folder.path, resume=True)
    assert failed == [leftover]
    assert not leftover.exists()
