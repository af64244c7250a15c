"""``cmcore train --data FOLDER --out RUN`` and nothing else: what is chosen, and the two runs that it makes of pictures."""

import json
import signal
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import CHOSEN, TRAINABLE
from PIL import Image

import cmcore as cm
from cmcore.backend import computes_natively
from cmcore.model import load_model
from cmcore.recipes import by_name
from cmcore.run import cli, defaults
from cmcore.run.folder import RunFolder
from cmcore.run.lock import held
from cmcore.run.loop import Run

needs_training = pytest.mark.skipif(not TRAINABLE, reason="no backend that can train takes part")
pytestmark = pytest.mark.usefixtures("as_we_found_it")
FIRST = TRAINABLE[0] if TRAINABLE else ""
FEW = "--steps 8 --batch 4 --width 8 --save-every 1 --sample-every 8 --precision float32".split()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / f"{i}.png")
    return folder


def train(*arguments, few=FEW, backend=FIRST):
    quick = ["--no-compile"] if backend == "torch" and "--resume" not in arguments else []
    chosen = [] if "--resume" in arguments else ["--backend", backend]
    try:
        return cli.main(["train", *map(str, arguments), *chosen, *quick, *(few if chosen else ())])
    except SystemExit as left:
        return left.code


def settings(run):
    return RunFolder(run).read()[0]


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, photos):
    run = tmp_path_factory.mktemp("whole") / "mine"
    assert train("--data", photos, "--out", run) == 0
    return run


# What is chosen


def shown(chosen):
    return chosen.teacher_steps * chosen.batch


def test_steps_grow_with_the_pictures_within_bounds():
    counts = [2, 100, 1000, 3000, 10_000, 60_000, 10**7]
    steps = [defaults.for_pictures(count, (3, 32, 32)).teacher_steps for count in counts]
    assert steps == sorted(steps)
    assert shown(defaults.for_pictures(2, (3, 32, 32))) == pytest.approx(defaults.LEAST, abs=64)
    assert shown(defaults.for_pictures(10**7, (3, 32, 32))) == pytest.approx(defaults.MOST, abs=64)
    assert shown(defaults.for_pictures(3000, (3, 32, 32))) == pytest.approx(90 * 3000, abs=64)
    assert defaults.for_pictures(3000, (1, 32, 32)) == defaults.for_pictures(3000, (3, 32, 32))


def test_three_thousand_small_pictures_take_less_than_an_hour():
    """At the speeds of a CPU of two cores with bfloat16, in pictures a second."""
    chosen = defaults.for_pictures(3000, (3, 32, 32))
    seconds = shown(chosen) / (1.7 * 86) + chosen.student_steps * chosen.batch / (1.7 * 43)
    assert 40 * 60 < seconds < 50 * 60


def test_the_average_is_as_long_as_a_tenth_of_the_steps():
    assert defaults.for_pictures(3000, (3, 32, 32), steps=5000).teacher["ema"] == 0.998
    for steps in (1, 2, 9, 40, 300, 5000, 10**6):
        chosen = defaults.for_pictures(3000, (3, 32, 32), steps=steps)
        assert (chosen.teacher_steps, chosen.student_steps) == (steps, max(1, steps // 4))
        for options in (chosen.teacher, chosen.student):
            assert 0.5 <= options["ema"] <= 0.9999
            assert options["warmup"] <= 100
        for name, options in zip(defaults.RECIPES, (chosen.teacher, chosen.student), strict=True):
            assert by_name(cm.recipes.get(name, **options)).items() >= dict(options).items()


def test_a_given_batch_keeps_the_number_of_pictures_that_are_shown():
    assert shown(defaults.for_pictures(3000, (3, 32, 32), batch=128)) == pytest.approx(270_000, abs=128)
    assert defaults.for_pictures(3000, (3, 32, 32), batch=128).batch == 128


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 32, 48), (3, 30, 30), (3, 17, 32), (3, 18, 16)])
def test_every_size_of_pictures_has_a_network(shape):
    chosen = defaults.for_pictures(3000, shape)
    fits = shape[1] % 4 == shape[2] % 4 == 0
    assert chosen.network == ("unet-patches" if fits else None)
    if fits:
        cm.networks.PRESETS[chosen.network](shape)


def test_layers_are_in_bfloat16_where_a_device_says_that_it_has_it():
    def backend(types, **more):
        return SimpleNamespace(float_types=lambda: types, **more)

    both = ("bfloat16", "float32")
    for natively in (True, False):
        one = backend(both, computes_natively=lambda dtype, natively=natively: natively)
        assert computes_natively(one, "bfloat16") is natively
        assert defaults.precision(one) == ("bfloat16" if natively else "float32")
    assert defaults.precision(backend(both)) == "float32"
    assert defaults.precision(backend(("float32",), computes_natively=lambda dtype: True)) == "float32"


@pytest.mark.parametrize("name", CHOSEN)
def test_a_backend_answers_what_it_computes_natively(name):
    backend = cm.load(name)
    assert defaults.precision(backend) in ("bfloat16", "float32")
    if name != "torch":
        assert defaults.precision(backend) == "float32" or not backend.device.lower().startswith("cpu")


def test_torch_tells_of_instructions_for_bfloat16(monkeypatch):
    torch = pytest.importorskip("torch")
    from cmcore_torch.devices import computes_natively as natively

    names = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    for there in ((), (False,), (False, False), (True,), (False, True)):
        for name in names:
            monkeypatch.delattr(torch.cpu, name, raising=False)
        for name, has in zip(names, there, strict=False):
            monkeypatch.setattr(torch.cpu, name, lambda has=has: has, raising=False)
        assert natively("cpu", "bfloat16") is any(there)
    for capability, has in (((7, 5), False), ((8, 0), True), ((9, 0), True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, c=capability: c)
        assert natively("cuda:0", "bfloat16") is has
    assert not natively("mps:0", "bfloat16")
    assert natively("cpu", "float32")


# The two runs


@needs_training
def test_pictures_get_a_teacher_and_a_student(whole, photos):
    teacher, student = settings(whole.with_name("mine-teacher")), settings(whole)
    assert (teacher.recipe, teacher.steps, teacher.batch) == ("edm", 8, 4)
    assert (student.recipe, student.steps, student.batch) == ("cd", 2, 4)
    assert (teacher.options["lr"], student.options["lr"]) == (1e-3, 5e-4)
    assert student.options["weighting"] == "inverse_gap"
    assert load_model(whole).architecture == load_model(whole.with_name("mine-teacher")).architecture
    assert load_model(whole).architecture.patch == 2
    assert load_model(whole).step == 2
    assert (whole / "samples" / "step-00000002.png").exists()


@needs_training
def test_the_first_line_says_what_is_trained_and_how_to_have_another(photos, tmp_path, capsys):
    run = tmp_path / "mine"
    assert train("--data", photos, "--out", run, "--dry-run", few=["--precision", "float32", "--width", "8"]) == 0
    out, err = capsys.readouterr()
    chosen = defaults.for_pictures(12, (3, 16, 16))
    for said in (
        f"the teacher (edm, {chosen.teacher_steps:,} steps of 64) in {run}-teacher",
        f"then the student (cd, {chosen.student_steps:,} steps of 64) in {run}.",
        "give --recipe NAME",
    ):
        assert said in err
    for said in ("edm: ", "unet, ", "steps taken here", f"the student (cd) in {run}: {chosen.student_steps:,} steps"):
        assert said in out
    assert files(tmp_path) == []


@needs_training
def test_what_is_given_is_respected(photos, tmp_path):
    run = tmp_path / "mine"
    typed = ["--set", "lr=0.002", "--set", "mean=-1", "--set", "n=9", "--set", "ema_halflife=3"]
    typed += ["--seed", "3", "--network", "conv", "--flip", "--blocks", "1", "--held-out", "0.25"]
    assert train("--data", photos, "--out", run, *typed) == 0
    teacher, student = settings(tmp_path / "mine-teacher"), settings(run)
    for config in (teacher, student):
        assert (config.seed, config.flip, config.held_out) == (3, True, "0.25")
        assert (config.options["lr"], config.options["ema_halflife"]) == (0.002, 3)
        assert "ema" not in config.options
        assert config.options["decay"] is True
    assert teacher.options["mean"] == -1
    assert "n" not in teacher.options
    assert student.options["n"] == 9
    assert "mean" not in student.options
    assert load_model(run).architecture.kind == "conv"


@needs_training
@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["--set", "wings=2"], "have no option 'wings'"),
        (["--set", "double_every=9"], "have no option"),
        (["--set", "lr=fast"], "must be a number"),
        (["--set", "ema=0.9", "--set", "ema_std=0.1"], "only one of"),
        (["--set", "guidance=2"], "acts on classes"),
        (["--set", "lr=-1"], "must be positive"),
        (["--network", "mlp", "--set-network", "patch=2"], "no setting 'patch'"),
        (["--recipe", "cd"], "needs --teacher"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_is_left(photos, tmp_path, typed, told, capsys):
    assert train("--data", photos, "--out", tmp_path / "mine", *typed) == 2
    assert told in capsys.readouterr().err
    assert files(tmp_path) == []


@needs_training
def test_other_data_have_one_run_of_ect(tmp_path, photos):
    np.savez(tmp_path / "points.npz", x=np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32))
    small = ["--steps", "2", "--batch", "4", "--width", "8", "--blocks", "1"]
    for name, typed in (
        ("points", ["--data", tmp_path / "points.npz"]),
        ("tiny", ["--data", photos, "--size", "8", "--set", "lr=0.002"]),
        ("asked", ["--data", photos, "--recipe", "ect", "--size", "16"]),
    ):
        assert train("--out", tmp_path / name, *typed, few=small) == 0
        assert settings(tmp_path / name).recipe == "ect"
        assert not RunFolder(tmp_path / name).phases.exists()
        assert not (tmp_path / f"{name}-teacher").exists()
    assert settings(tmp_path / "tiny").options == {"lr": 0.002}


@needs_training
def test_folders_that_are_there_are_refused(whole, photos, tmp_path, capsys):
    before = files(whole.parent)
    assert train("--data", photos, "--out", whole) == 2
    assert "add --resume" in capsys.readouterr().err
    # A run of somebody's is not the teacher of a new one.
    other = whole.parent / "mine-teacher"
    other.rename(tmp_path / "new-teacher")
    assert train("--data", photos, "--out", tmp_path / "new") == 2
    assert f"--recipe cd --teacher {tmp_path / 'new-teacher'}" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert train("--out", tmp_path / "new", "--resume") == 2
    (tmp_path / "new-teacher").rename(other)
    assert files(whole.parent) == before
    (tmp_path / "full-teacher").mkdir()
    (tmp_path / "full-teacher" / "letter.txt").write_text("")
    assert train("--data", photos, "--out", tmp_path / "full") == 2
    assert "letter.txt" in capsys.readouterr().err
    assert not (tmp_path / "full").exists()
    # A finished one is told as always.
    assert train("--out", whole, "--resume") == 2
    assert "is finished after 2 steps" in capsys.readouterr().err


# Broken off


def same_weights(run, other):
    for a, b in ((run, other), (run.with_name(f"{run.name}-teacher"), other.with_name(f"{other.name}-teacher"))):
        ours, theirs = load_model(a), load_model(b)
        assert ours.step == theirs.step
        assert ours.weights.keys() == theirs.weights.keys()
        assert all(np.array_equal(w, theirs.weights[name]) for name, w in ours.weights.items())


def stop_at(monkeypatch, recipe, at):
    """Have Ctrl-C pressed once, before a step of one of the two."""
    real = Run._step

    def step(self, index):
        if self._config.recipe == recipe and index == at:
            monkeypatch.setattr(Run, "_step", real)
            signal.raise_signal(signal.SIGINT)
        real(self, index)

    monkeypatch.setattr(Run, "_step", step)


@needs_training
@pytest.mark.parametrize(("recipe", "at"), [("edm", 3), ("edm", 7), ("cd", 0), ("cd", 1)])
def test_each_phase_goes_on_to_the_same_weights(recipe, at, whole, photos, tmp_path, monkeypatch, capsys):
    run = tmp_path / "mine"
    stop_at(monkeypatch, recipe, at)
    with pytest.raises(KeyboardInterrupt):
        train("--data", photos, "--out", run)
    assert f"To go on: cmcore train --out {run} --resume\n" in capsys.readouterr().err
    began = recipe == "cd"
    assert RunFolder(run).config.exists() is began
    # Begun anew it would be lost; resumed with other settings it would not be the same run.
    assert train("--data", photos, "--out", run) == 2
    assert "add --resume to go on with it" in capsys.readouterr().err
    assert cli.main(["train", "--out", str(run), "--resume", "--set", "lr=0.5"]) == 2
    assert "--set lr=" in capsys.readouterr().err
    if not began:
        assert cli.main(["info", str(run)]) == 2
        capsys.readouterr()
    # The same command with --resume, and the short one.
    typed = ["--data", str(photos), *FEW] if at % 2 else []
    assert cli.main(["train", "--out", str(run), "--resume", *typed]) == 0
    same_weights(run, whole)


@needs_training
def test_what_is_typed_again_is_known_again(photos, tmp_path, monkeypatch):
    typed = ["--set", "n=9", "--set", "mean=-1", "--set", "lr=0.002", "--set-network", "blocks=1"]
    for recipe in ("edm", "cd"):
        run = tmp_path / recipe
        stop_at(monkeypatch, recipe, 1)
        with pytest.raises(KeyboardInterrupt):
            train("--data", photos, "--out", run, *typed)
        assert cli.main(["train", "--data", str(photos), "--out", str(run), "--resume", *FEW, *typed]) == 0
        assert settings(run).options["n"] == 9
    same_weights(tmp_path / "edm", tmp_path / "cd")


@needs_training
def test_a_finished_teacher_is_gone_on_from(whole, photos, tmp_path, monkeypatch):
    """As after a kill between the two, and with data that have moved."""
    run = tmp_path / "mine"
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in photos.iterdir():
        (moved / path.name).write_bytes(path.read_bytes())
    stop_at(monkeypatch, "edm", 7)
    with pytest.raises(KeyboardInterrupt):
        train("--data", moved, "--out", run)
    assert cli.main(["train", "--out", f"{run}-teacher", "--resume"]) == 0
    assert not RunFolder(run).config.exists()
    moved.rename(tmp_path / "again")
    assert cli.main(["train", "--out", str(run), "--resume"]) == 2
    assert cli.main(["train", "--out", str(run), "--resume", "--data", str(tmp_path / "again")]) == 0
    assert settings(run).data == str(tmp_path / "again")
    same_weights(run, whole)


@needs_training
def test_a_start_that_took_no_step_is_begun_anew(whole, photos, tmp_path, monkeypatch):
    """Killed before the teacher's first step: the settings are there, and no run."""
    run, other = tmp_path / "mine", tmp_path / "other"
    for place in (run, other):
        place.mkdir()
        RunFolder(place).phases.write_bytes(RunFolder(whole).phases.read_bytes())
    assert train("--data", photos, "--out", run) == 0
    same_weights(run, whole)
    assert cli.main(["train", "--out", str(other), "--resume"]) == 0
    same_weights(other, whole)


@pytest.fixture
def stopped(photos, tmp_path, monkeypatch):
    """A run whose teacher was broken off."""
    run = tmp_path / "mine"
    stop_at(monkeypatch, "edm", 3)
    with pytest.raises(KeyboardInterrupt):
        train("--data", photos, "--out", run)
    return run


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


@needs_training
def test_a_second_start_beside_one_under_way_changes_nothing(whole, photos, tmp_path, capsys):
    """Before its first save a run has nothing to lose but itself."""
    one, both = tmp_path / "one", tmp_path / "both"
    assert train("--data", photos, "--out", one, "--recipe", "edm", few=[*FEW, "--steps", "1"]) == 0
    RunFolder(one).model.unlink()
    next(RunFolder(one).state.glob("step-00000001*")).rename(RunFolder(one).state / "step-00000000.safetensors")
    both.mkdir()
    RunFolder(both).phases.write_bytes(RunFolder(whole).phases.read_bytes())
    before = contents(tmp_path)
    for run, typed in ((one, ["--recipe", "edm"]), (both, ["--set", "n=5"]), (both, ["--resume"])):
        with held(run):
            assert train("--data", photos, "--out", run, *typed) == 2
        assert "Another process is training in" in capsys.readouterr().err
        assert contents(tmp_path) == before
    assert train("--data", photos, "--out", one, "--recipe", "edm") == 0


@needs_training
def test_what_a_refused_resumption_asked_for_is_not_remembered(stopped, photos, tmp_path, capsys):
    before = contents(tmp_path)
    other = tmp_path.with_name(f"{tmp_path.name}-others")
    other.mkdir()
    for colour in ("red", "blue"):
        Image.new("RGB", (16, 16), colour).save(other / f"{colour}.png")
    for typed, told in (
        (["--data", other], "is not what the run in"),
        (["--held-out", "0.5"], "is not what the run in"),
        (["--teacher", stopped], "trains its own teacher"),
        (["--init", stopped], "trains its own teacher"),
    ):
        assert train("--out", stopped, "--resume", *typed) == 2
        assert told in capsys.readouterr().err
        assert contents(tmp_path) == before


@needs_training
@pytest.mark.parametrize("option", ["n=1", "solver=foo", "teacher_path=linear"])
def test_a_students_option_is_checked_before_its_teacher_is_trained(option, photos, tmp_path, capsys):
    for dry in ([], ["--dry-run"]):
        assert train("--data", photos, "--out", tmp_path / "mine", "--set", option, *dry) == 2
        assert option.partition("=")[0] in capsys.readouterr().err
    assert files(tmp_path) == []


@needs_training
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_samples_that_cannot_be_are_told_before_training(dry, tmp_path, capsys):
    typed = ["--data", "digits", "--classes", "--recipe", "edm", "--set", "guidance=2"]
    assert train("--out", tmp_path / "run", *typed, *dry) == 2
    assert "label_dropout must be above 0" in capsys.readouterr().err
    assert files(tmp_path) == []


@needs_training
def test_a_student_that_has_not_begun_may_have_other_options(stopped, capsys):
    assert train("--out", stopped, "--resume", "--set", "n=1") == 2
    assert train("--out", stopped, "--resume", "--set", "n=7") == 0
    assert settings(stopped).options["n"] == 7


@needs_training
def test_a_teacher_that_is_gone_is_missed(stopped, tmp_path, capsys):
    (tmp_path / "mine-teacher").rename(tmp_path / "elsewhere")
    assert train("--out", stopped, "--resume") == 0
    assert (
        f"There is no run in {stopped}-teacher, so the teacher is trained from its first step."
        in capsys.readouterr().err
    )


@needs_training
def test_while_the_teacher_is_trained_all_commands_say_so(stopped, capsys):
    for command in (["sample", stopped, "--out", "x.png"], ["info", stopped], ["report", stopped]):
        assert cli.main([str(word) for word in command]) == 2
        told = capsys.readouterr().err
        assert f"its teacher is trained first, in {stopped}-teacher" in told
        assert f"to go on with that: cmcore train --out {stopped} --resume\n" in told
    assert cli.main(["info", f"{stopped}-teacher"]) == 0
    assert f"To go on: cmcore train --out {stopped} --resume\n" in capsys.readouterr().out


@needs_training
def test_settings_that_are_not_ours_are_a_sentence(tmp_path, capsys):
    for text in ("", "[]", "{}", json.dumps({"teacher": {}, "student": {"wings": 2}})):
        RunFolder(tmp_path).phases.write_text(text)
        assert cli.main(["train", "--out", str(tmp_path), "--resume"]) == 2
        assert "cannot be used" in capsys.readouterr().err


@needs_training
@pytest.mark.slow
# One shows that nothing in it is the first one's own.
@pytest.mark.parametrize("name", TRAINABLE[1:2])
def test_other_backends_train_both(name, photos, tmp_path):
    few = ["--steps", "4", "--batch", "4", "--network", "mlp", "--width", "8", "--blocks", "1"]
    assert train("--data", photos, "--out", tmp_path / "mine", few=few, backend=name) == 0
    assert load_model(tmp_path / "mine").step == 1
