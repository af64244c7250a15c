"""Networks and their settings on the command line: --network, --set-network and cmcore networks."""

import importlib
import json
import re
from dataclasses import dataclass
from typing import Annotated, Literal, Optional

import numpy as np
import pytest
from conftest import TRAINABLE, write_distribution

import cmcore as cm
from cmcore.model import load_model
from cmcore.networks import PRESETS, Architecture, registry
from cmcore.run import cli
from cmcore.run.folder import RunFolder
from cmcore.run.network_settings import Setting, expected, read, settings_of

pytestmark = pytest.mark.usefixtures("as_we_found_it")
FIRST = TRAINABLE[0] if TRAINABLE else ""
trains = pytest.mark.skipif(not TRAINABLE, reason="no backend that can train takes part")
TINY = [f"--set-network={s}" for s in ("width=8", "heads=2", "blocks=1", "features=4")]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "images.npy"
    np.save(path, np.random.default_rng(0).uniform(-1, 1, (40, 4, 4)).astype("float32"))
    return path


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "points.npz"
    np.savez(path, x=np.random.default_rng(0).normal(size=(50, 3)).astype("float32"))
    return path


def train(data, out, *more):
    common = [
        "--recipe",
        "ect",
        "--backend",
        FIRST,
        "--no-compile",
        "--batch",
        "8",
        "--steps",
        "6",
        "--save-every",
        "2",
    ]
    try:
        return cli.main(["train", "--data", str(data), "--out", str(out), *common, *more])
    except SystemExit as left:
        return left.code


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert train(images, out, "--network", "dit-tiny", *TINY) == 0
    return out


@trains
def test_a_run_keeps_what_was_typed_and_what_it_amounts_to(whole):
    config, plan, _ = RunFolder(whole).read()
    assert config.network == "dit-tiny"
    assert config.network_settings == {"width": 8, "heads": 2, "blocks": 1, "features": 4}
    assert plan.architecture == PRESETS["dit-tiny"]((1, 4, 4), width=8, heads=2, blocks=1, features=4)


def broken_off(monkeypatch, images, out, *options):
    """A run that Ctrl-C ends in its fourth step; the steps that were begun, and will be."""
    step, calls = cm.Trainer.step, []

    def interrupted(self, index, *args):
        calls.append(index)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return step(self, index, *args)

    monkeypatch.setattr(cm.Trainer, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(images, out, *options)
    return calls


@trains
def test_a_preset_trains_resumes_and_samples(whole, images, tmp_path, monkeypatch):
    broken = tmp_path / "broken"
    calls = broken_off(monkeypatch, images, broken, "--network", "dit-tiny", *TINY)
    assert cli.main(["train", "--out", str(broken), "--resume", *TINY]) == 0
    assert calls == [0, 1, 2, 3, 2, 3, 4, 5]
    one, two = load_model(whole), load_model(broken)
    assert all(np.array_equal(w, two.weights[name]) for name, w in one.weights.items())
    assert any(w.any() for name, w in one.weights.items() if name.startswith("final_layer"))
    out = tmp_path / "samples.npz"
    assert cli.main(["sample", str(broken), "--n", "3", "--steps", "2", "--backend", "numpy", "--out", str(out)]) == 0
    assert np.load(out)["x"].shape[0] == 3


@trains
def test_another_setting_is_another_run(whole, images, tmp_path, capsys):
    assert cli.main(["train", "--out", str(whole), "--resume", "--set-network", "width=16"]) == 2
    assert "--set-network width=8 there, 16 here" in capsys.readouterr().err
    assert train(images, tmp_path / "other", "--init", str(whole), "--set-network", "patch=4") == 2
    assert "patch 2 there, 4 here" in capsys.readouterr().err
    # The network of the run, as it is and by the kind's name.
    assert train(images, tmp_path / "same", "--init", str(whole), "--set-network", "patch=2", "--steps", "1") == 0
    assert load_model(tmp_path / "same").architecture == load_model(whole).architecture


@trains
def test_a_run_from_before_there_were_settings_goes_on(images, tmp_path, monkeypatch):
    out = tmp_path / "old"
    calls = broken_off(monkeypatch, images, out, "--network", "mlp", "--width", "8", "--blocks", "1")
    stored = json.loads(RunFolder(out).config.read_text())
    assert stored["settings"].pop("network_settings") == {}
    RunFolder(out).config.write_text(json.dumps(stored))
    assert cli.main(["train", "--out", str(out), "--resume"]) == 0
    assert calls == [0, 1, 2, 3, 2, 3, 4, 5]
    assert load_model(out).architecture == cm.networks.ResidualMLP((1, 4, 4), width=8, blocks=1)


DIT = ["--network", "dit-tiny"]


@trains
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--network", "dita"], "Unknown network 'dita'; did you mean 'dit'? Choose one of mlp, conv, "),
        ([*DIT, "--set-network", "blocks"], "setting must be written KEY=VALUE, got 'blocks'."),
        ([*DIT, "--set-network", "=3"], "setting must be written KEY=VALUE, got '=3'."),
        (
            [*DIT, "--set-network", "depth=3"],
            "'dit' has no setting 'depth'; did you mean 'width'? Its settings are patch, width, blocks, ",
        ),
        ([*DIT, "--set-network", "width=wide"], "width must be a whole number, such as 384; got 'wide'."),
        ([*DIT, "--set-network", "width=8.5"], "width must be a whole number, such as 384; got '8.5'."),
        ([*DIT, "--set-network", "mlp_ratio=nan"], "mlp_ratio must be a number, such as 4.0; got 'nan'."),
        ([*DIT, "--set-network", "qkv_bias=yes"], "qkv_bias must be true or false, such as true; got 'yes'."),
        ([*DIT, "--set-network", "shape=1,8,8"], "shape is decided by the data (--size, --channels); leave it out"),
        ([*DIT, "--set-network", "classes=3"], "classes is decided by --classes; leave it out of --set-network."),
        ([*DIT, "--set-network", "two_times=true"], "two_times is decided by the recipe; leave it out"),
        ([*DIT, "--set-network", "patch=3"], "4 x 4 cannot be cut into patches of 3 x 3; use sides divisible by 3"),
        ([*DIT, "--set-network", "heads=5"], "width 96 is not divisible into 5 heads"),
        ([*DIT, "--set-network", "width=0"], "width must be at least 1, got 0."),
        ([*DIT, "--width", "8", "--set-network", "width=8"], "--width and --set-network width= are the same setting"),
        (["--network", "conv", "--set-network", "multipliers=1,x"], "whole numbers with commas between, such as 1,2,2"),
        (["--set-network", "heads=2"], "The network 'mlp' has no setting 'heads'; its settings are width, blocks"),
    ],
    ids=lambda x: x[-1] if isinstance(x, list) else "",
)
def test_what_is_wrong_is_told_in_a_sentence(options, said, images, tmp_path, capsys):
    assert train(images, tmp_path / "run", *options) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("cmcore: ")
    assert said in last
    assert last.endswith(".")
    assert not (tmp_path / "run").exists()


@trains
def test_a_transformer_of_points_is_told_in_a_sentence(points, tmp_path, capsys):
    assert train(points, tmp_path / "run", "--network", "dit-s/2") == 2
    assert "A diffusion transformer needs data of shape (C, H, W), got (3,)." in capsys.readouterr().err


@trains
def test_settings_reach_networks_that_are_chosen_by_the_data(images, points, tmp_path):
    assert (
        train(points, tmp_path / "mlp", "--set-network", "width=8", "--set-network", "features=6", "--steps", "1") == 0
    )
    assert load_model(tmp_path / "mlp").architecture == cm.networks.ResidualMLP((3,), width=8, features=6)
    small = ["--set-network", "multipliers=1,1", "--set-network", "width=8", "--blocks", "1", "--steps", "1"]
    assert train(images, tmp_path / "conv", "--network", "conv", *small) == 0
    made = load_model(tmp_path / "conv").architecture
    assert made == cm.networks.ResidualConv((1, 4, 4), width=8, multipliers=(1, 1), blocks=1)


@dataclass(frozen=True)
class Odd(Architecture):
    shape: tuple[int, ...] = (2,)
    order: Annotated[Literal["first", "last"], "which comes first"] = "first"
    levels: tuple[int, ...] = ()
    taps: tuple[float, ...] = (1.0, 1.0)
    pair: tuple[int, int] = (1, 2)
    groups: int | None = None
    limit: Optional[float] = None  # noqa: UP045
    name: str = "odd"

    kind = "odd"

    def part(self):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("order", "last", "last"),
        ("levels", "", ()),
        ("levels", "16, 8", (16, 8)),
        ("taps", "1,3,3,1", (1.0, 3.0, 3.0, 1.0)),
        ("pair", "3,4", (3, 4)),
        ("groups", "none", None),
        ("groups", "4", 4),
        ("limit", "0.5", 0.5),
        ("name", "a b", "a b"),
    ],
)
def test_text_is_read_as_its_settings_type(name, text, value):
    got = read(Odd, {name: text})[name]
    assert got == value
    assert type(got) is type(value)
    # What was read may be given again.
    assert read(Odd, {name: got}) == {name: value}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("order", "middle", "order must be first or last, such as first; got 'middle'."),
        ("levels", "1.5", "levels must be whole numbers with commas between, such as an empty text; got '1.5'."),
        ("taps", "1,,2", "taps must be numbers with commas between, such as 1.0,1.0; got '1,,2'."),
        ("pair", "1,2,3", "pair must be whole numbers with commas between, such as 1,2; got '1,2,3'."),
        ("groups", "no", "groups must be a whole number or none, such as none; got 'no'."),
        ("limit", "inf", "limit must be a number or none, such as none; got 'inf'."),
    ],
)
def test_text_that_does_not_fit_is_a_sentence(name, value, said):
    with pytest.raises(ValueError, match=re.escape(f"The network's {said}") + "$"):
        read(Odd, {name: value})


def test_values_from_a_program_are_checked():
    with pytest.raises(TypeError, match=r"The network's width must be a whole number, got 2\.5"):
        read(cm.networks.DiT, {"width": 2.5})


def test_a_settings_meaning_is_in_its_type():
    found = settings_of(Odd)
    assert found["order"] == Setting("order", Literal["first", "last"], "first", "which comes first")
    assert found["taps"].meaning == ""
    assert "shape" not in found
    assert expected(found["order"].takes) == "first or last"


def test_networks_are_listed_with_their_sizes(capsys):
    assert cli.main(["networks"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert {*cm.networks.names(), *PRESETS} <= rows.keys()
    assert "4 x 32 x 32, 1,000 classes" in rows["dit-xl/2"]
    assert "674,816,272" in rows["dit-xl/2"].split()


def test_a_networks_settings_are_shown(capsys):
    assert cli.main(["networks", "dit-tiny"]) == 0
    out = capsys.readouterr().out
    rows = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    preset = PRESETS["dit-tiny"]
    size = sum(int(np.prod(s)) for s in preset(preset.shape).layout().values())
    assert f"For data of 1 x 8 x 8 it has {size:,} parameters" in out
    assert rows["width"].split()[1] == "96"
    assert rows["mlp_ratio"].split()[1] == "4.0"
    assert rows["qkv_bias"].endswith("whether queries, keys and values have a bias")
    for name in cm.networks.names():
        assert all(setting.meaning for setting in settings_of(cm.networks.get(name)).values()), name
    assert cli.main(["networks", "no-such"]) == 2
    assert "Unknown network 'no-such'" in capsys.readouterr().err


def test_a_broken_network_of_others_is_listed(tmp_path, monkeypatch, capsys):
    write_distribution(tmp_path, "broken", "[cmcore.networks]\nbroken = no_such_module:Net\n", "other", "")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    registry._others.cache_clear()
    try:
        assert cli.main(["networks"]) == 0
        (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("broken")]
        assert "'no_such_module:Net' of the distribution 'broken' cannot be loaded" in row
        assert cli.main(["networks", "broken"]) == 2
    finally:
        registry._others.cache_clear()
