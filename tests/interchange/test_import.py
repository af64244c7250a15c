"""Published checkpoints, as files of their layouts made here: what is made out, what is asked for, and what is refused."""

import importlib.util
import os
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest
from small import ADM, EDM_ADM, MODELS, NCSNPP, SHAPE, as_msgpack, edited, nested, rewritten, weights_of

import cmcore as cm
from cmcore.interchange import LAYOUTS
from cmcore.interchange.table import given
from cmcore.interchange.torch_file import write_state_dict
from cmcore.model import load_model
from cmcore.networks import Adapted
from cmcore.run.cli import main

OPENAI = {"kind": "consistency", "side": 8, "head_width": 16}
FLAX = {"kind": "consistency", "side": 8, "attention": 4}
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
needs_torch = pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="needs torch")


def tensors_of(layout, network, seed=0):
    rows, buffers = LAYOUTS[layout].table(network)
    return given(rows, buffers, weights_of(network, seed))


def holds(model, network, seed=0, prefix=""):
    weights = weights_of(network, seed)
    assert model.weights.keys() == {prefix + name for name in weights}
    return all(model.weights[prefix + name].tobytes() == w.tobytes() for name, w in weights.items())


@pytest.fixture
def openai(tmp_path):
    write_state_dict(tmp_path / "cd.pt", tensors_of("openai", ADM))
    return tmp_path / "cd.pt"


def test_a_state_dict_is_a_consistency_model_with_its_authors_scalings(openai):
    model = cm.import_model(openai, **OPENAI)
    assert model.architecture == Adapted(ADM, "free", "log", (250.0, 0.0))
    assert holds(model, ADM, prefix="net.")
    assert model.recipe == cm.recipes.get("cd", sigma_data=0.5, t_min=0.002, t_max=80.0)
    assert model.data.shape == SHAPE
    assert model.data.classes == ("0", "1", "2")


def test_options_say_what_the_file_does_not(openai):
    model = cm.import_model(openai, **OPENAI | {"kind": "score", "sigma_data": 0.7, "t_min": 0.01, "t_max": 50.0})
    assert model.recipe == cm.recipes.get("edm", sigma_data=0.7, t_min=0.01, t_max=50.0)
    assert cm.import_model(openai, **OPENAI, recipe="ict").recipe.name == "ict"


@needs_torch
def test_files_of_torch_itself_old_and_new(tmp_path):
    import torch

    tensors = {name: torch.from_numpy(a.copy()) for name, a in tensors_of("openai", ADM).items()}
    # Stored in another order of axes, and in half as many bytes.
    tensors["out.2.weight"] = tensors["out.2.weight"].permute(1, 0, 2, 3).contiguous().permute(1, 0, 2, 3)
    tensors["time_embed.0.bias"] = tensors["time_embed.0.bias"].to(torch.bfloat16)
    torch.save(tensors, tmp_path / "new.pt")
    torch.save(tensors, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    new, old = (cm.import_model(tmp_path / f"{age}.pt", **OPENAI) for age in ("new", "old"))
    expected = weights_of(ADM)
    for model in (new, old):
        for name, weight in expected.items():
            exact = weight if name != "time_in.bias" else torch.from_numpy(weight).to(torch.bfloat16).float().numpy()
            assert (model.weights[f"net.{name}"] == exact).all()


class Pickled:
    """Pickles as a module does that has NVlabs/edm's persistence: a function's name, and its arguments."""

    def __init__(self, name, parameters=(), modules=(), buffers=(), **attributes):
        state = {"_parameters": dict(parameters), "_buffers": dict(buffers), "_modules": dict(modules), **attributes}
        self.meta = {
            "type": "class",
            "version": 6,
            "module_src": "raise SystemExit",
            "class_name": name,
            "state": state,
        }

    def __reduce__(self):
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (self.meta,)


@pytest.fixture
def persistence(monkeypatch):
    """The function that EDM's pickles name, which must not be called."""
    module = types.ModuleType("torch_utils.persistence")

    def _reconstruct_persistent_obj(meta):
        raise AssertionError("code in a file was run")

    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj
    monkeypatch.setitem(sys.modules, "torch_utils", types.ModuleType("torch_utils"))
    monkeypatch.setitem(sys.modules, "torch_utils.persistence", module)


def as_modules(tensors):
    """Nested modules with the tensors by their names, as torch's parameters."""
    import torch

    tree = {}
    for name, array in tensors.items():
        *path, last = name.split(".")
        place = tree
        for part in path:
            place = place.setdefault(part, {})
        place[last] = torch.nn.Parameter(torch.from_numpy(array.copy()))

    def module(content):
        inner = {k: module(v) for k, v in content.items() if isinstance(v, dict)}
        return Pickled("Module", {k: v for k, v in content.items() if not isinstance(v, dict)}, inner)

    return module(tree)


@needs_torch
@pytest.mark.parametrize(
    ("name", "attributes", "network", "expected"),
    [
        ("EDMPrecond", {"sigma_data": 0.6}, EDM_ADM, cm.recipes.get("edm", sigma_data=0.6)),
        ("ECMPrecond", {"sigma_data": 0.5, "sigma_min": 0.003}, NCSNPP, cm.recipes.get("cd", t_min=0.003)),
        ("VPPrecond", {"beta_d": 19.9, "beta_min": 0.1, "M": 1000}, EDM_ADM, cm.recipes.get("edm")),
        ("VEPrecond", {"sigma_min": 0.02, "sigma_max": 100}, NCSNPP, cm.recipes.get("edm", t_min=0.02, t_max=100.0)),
    ],
)
def test_a_pickle_with_source_code_is_read_and_not_run(name, attributes, network, expected, tmp_path, persistence):
    inside = {"model": as_modules(tensors_of("edm", network))}
    with (tmp_path / "net.pkl").open("wb") as file:
        pickle.dump(
            {"ema": Pickled(name, modules=inside, **attributes), "loss_fn": None, "dataset_kwargs": {"path": "x"}}, file
        )
    model = cm.import_model(tmp_path / "net.pkl")
    assert model.recipe == expected
    wrapped = {
        "VPPrecond": Adapted(network, "noise", "vp", (0.1, 20.0, 999.0)),
        "VEPrecond": Adapted(network, "minus_noise", "log", (1.0, -float(np.log(2.0)))),
    }.get(name, network)
    assert model.architecture == wrapped
    assert holds(model, network, prefix="net." if wrapped is not network else "")


@needs_torch
def test_whose_preconditioning_it_is_is_read_from_the_source(tmp_path, persistence):
    """TCM's ECMPrecond has the name of ECT's and is the identity at 0, as a function trained by `ect` is."""
    inside = {"model": as_modules(tensors_of("edm", NCSNPP))}
    source = (
        "class ECMPrecond(torch.nn.Module):\n    c_skip = self.sigma_data ** 2 / ({} ** 2 + self.sigma_data ** 2)\n"
    )
    for term, expected in (("sigma", "ect"), ("(sigma - self.sigma_min)", "cd")):
        net = Pickled("ECMPrecond", modules=inside, sigma_data=0.5, sigma_min=0.003)
        net.meta["module_src"] = source.format(term)
        with (tmp_path / "net.pkl").open("wb") as file:
            pickle.dump({"ema": net}, file)
        assert cm.import_model(tmp_path / "net.pkl").recipe.name == expected


@needs_torch
def test_the_prefix_of_data_parallel_is_left_out(tmp_path):
    import torch

    tensors = {f"module.{name}": torch.from_numpy(a) for name, a in tensors_of("openai", ADM).items()}
    torch.save(tensors, tmp_path / "a.pt")
    assert holds(cm.import_model(tmp_path / "a.pt", **OPENAI), ADM, prefix="net.")


class Command:
    """Pickles as a call of a command that leaves a file."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("place", ["alone", "among weights", "a zip"])
def test_a_pickle_that_would_run_a_command_is_read_as_data(place, tmp_path):
    command = Command(tmp_path / "trace")
    path = tmp_path / "bad.pkl"
    path.write_bytes(pickle.dumps(command if place == "alone" else {"a": command, "b": [command]}))
    if place == "a zip":
        content = path.read_bytes()
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", content)
    with pytest.raises(cm.Error, match=r"has no weights|holds no weights"):
        cm.import_model(path)
    assert not command.trace.exists()


@needs_torch
@pytest.mark.parametrize("times", [10**12, 100])
def test_tensors_that_are_larger_than_the_file_are_refused(times, tmp_path):
    import torch

    numbers = torch.ones(1000)
    torch.save({"a": numbers.expand(times, 1000), "b": numbers}, tmp_path / "a.pt")
    with pytest.raises(cm.Error, match="larger than the file by far"):
        cm.import_model(tmp_path / "a.pt")


def test_flax_parameters_by_the_set_that_is_chosen(tmp_path):
    sets = {name: nested(tensors_of("flax", NCSNPP, seed)) for seed, name in enumerate(("params", "params_ema"))}
    state = {"step": 7, "lr": 1e-4, **sets, "model_state": {}, "opt_state": {"0": {"mu": np.zeros(3, np.float32)}}}
    (tmp_path / "checkpoint_7").write_bytes(as_msgpack({**state, "rng_state": np.zeros(2, np.uint32)}))
    with pytest.raises(cm.Error, match="--set weights=NAME, of params, params_ema"):
        cm.import_model(tmp_path / "checkpoint_7", **FLAX)
    for seed, name in enumerate(sets):
        model = cm.import_model(tmp_path / "checkpoint_7", **FLAX, weights=name)
        assert model.architecture == NCSNPP
        assert holds(model, NCSNPP, seed)
    with pytest.raises(cm.Error, match="no weights 'average'; it has params, params_ema"):
        cm.import_model(tmp_path / "checkpoint_7", **FLAX, weights="average")


@pytest.mark.skipif(not importlib.util.find_spec("flax"), reason="needs flax")
def test_flax_itself_writes_such_files(tmp_path):
    from flax import serialization

    content = {"params_ema": nested(tensors_of("flax", NCSNPP)), "step": 7, "lr": 1e-4}
    (tmp_path / "a").write_bytes(serialization.to_bytes(content))
    assert holds(cm.import_model(tmp_path / "a", **FLAX), NCSNPP)


def test_bare_safetensors_are_asked_what_they_are_of(tmp_path):
    import safetensors.numpy

    dense = {n: np.ascontiguousarray(a) for n, a in tensors_of("edm", EDM_ADM).items()}
    safetensors.numpy.save_file(dense, tmp_path / "a.safetensors")
    with pytest.raises(cm.Error, match=r"--set preconditioning=\.\.\. \(how the network is used, EDMPrecond or"):
        cm.import_model(tmp_path / "a.safetensors")
    model = cm.import_model(tmp_path / "a.safetensors", preconditioning="VPPrecond")
    assert model.architecture.network == EDM_ADM
    assert holds(model, EDM_ADM, prefix="net.")


def test_filters_may_be_missing_but_not_others(tmp_path):
    import safetensors.numpy

    dense = {n: np.ascontiguousarray(a) for n, a in tensors_of("edm", NCSNPP).items()}
    bare = {n: a for n, a in dense.items() if "resample_filter" not in n}
    safetensors.numpy.save_file(bare, tmp_path / "a.safetensors")
    assert holds(cm.import_model(tmp_path / "a.safetensors", preconditioning="EDMPrecond"), NCSNPP)
    name = "enc.4x4_down.conv0.resample_filter"
    safetensors.numpy.save_file(dense | {name: dense[name] * 1.5}, tmp_path / "b.safetensors")
    with pytest.raises(cm.Error, match="1 name does not fit") as refused:
        cm.import_model(tmp_path / "b.safetensors", preconditioning="EDMPrecond")
    assert f"{name}  another constant  1x1x4x4" in refused.value.__notes__[0]


@pytest.fixture
def folder(tmp_path):
    cm.export_model(MODELS["openai"](), "diffusers", tmp_path / "a")
    return tmp_path / "a"


def test_names_that_do_not_fit_are_a_table(folder, capsys, tmp_path):
    def spoil(tensors):
        tensors["conv_in.wieght"] = tensors.pop("conv_in.weight")
        tensors["mid_block.attentions.0.to_k.bias"] = np.zeros(3, np.float32)
        tensors["conv_out.bias"] = np.zeros(3, np.int8)

    rewritten(folder / WEIGHTS, spoil)
    assert main(["import", str(folder), "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err.splitlines()
    assert "4 names do not fit" in said[0]
    cells = {tuple(line.split()) for line in said[1:]}
    assert {
        ("conv_in.weight", "missing", "32x3x3x3", "-"),
        ("mid_block.attentions.0.to_k.bias", "misshapen", "64", "3"),
        ("conv_out.bias", "of", "another", "type", "floating-point", "int8"),
        ("conv_in.wieght", "left", "over", "-", "32x3x3x3"),
    } <= cells
    assert not (tmp_path / "run").exists()


def test_a_long_table_is_cut(folder):
    rewritten(
        folder / WEIGHTS, lambda tensors: tensors.update({f"more.{i}": np.zeros(1, np.float32) for i in range(30)})
    )
    with pytest.raises(cm.Error, match="30 names do not fit") as refused:
        cm.import_model(folder)
    assert refused.value.__notes__[0].endswith("... and 10 more")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"act_fn": "gelu"}, "act_fn='gelu'; known here is 'silu' or 'swish'"),
        ({"down_block_types": ["SkipDownBlock2D", "AttnDownBlock2D"]}, "blocks of the type SkipDownBlock2D"),
        ({"up_block_types": ["ResnetUpsampleBlock2D", "AttnUpBlock2D"]}, "levels differ on the way down"),
        ({"down_block_types": ["DownBlock2D", "AttnDownBlock2D"]}, "in several ways \\(conv, resnet\\)"),
        ({"attn_norm_num_groups": None}, "middle attention has no norm"),
        ({"out_channels": 6}, "takes 3 channels and gives 6"),
        ({"sample_size": None}, "no sample_size"),
        ({"freq_shift": 2}, "freq_shift=2"),
        ({"sample_size": 9}, "cannot be halved 1 times"),
        ({"block_out_channels": [32, 48]}, "known here are multiples of the embedding's 32"),
        ({"layers_per_block": "two"}, "can be made out"),
        ({"norm_eps": "a"}, "eps must be a number"),
        ({"norm_eps": -1.0}, "eps must be positive"),
        ({"layers_per_block": 10**9}, "larger network than its"),
        ({"num_class_embeds": 10**12}, "larger network than its"),
        ({"block_out_channels": [10**15, 10**15]}, "larger network than its"),
    ],
)
def test_settings_of_diffusers_that_are_not_known_are_named(changes, said, folder):
    edited(folder / "unet" / "config.json", **changes)
    with pytest.raises(cm.Error, match=said):
        cm.import_model(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"_class_name": "UnCLIPScheduler"}, "scheduler UnCLIPScheduler with prediction_type 'epsilon' is not known"),
        (
            {"_class_name": "DDPMScheduler", "beta_schedule": "linear", "prediction_type": "flow"},
            "prediction_type 'flow'",
        ),
        ({"_class_name": "DDPMScheduler", "beta_schedule": "linear", "rescale_betas_zero_snr": True}, "noise alone"),
        (
            {"_class_name": "DDPMScheduler", "beta_schedule": "spiral"},
            "no schedule of betas 'spiral'; the known ones are",
        ),
        (
            {"_class_name": "DDPMScheduler", "beta_schedule": "linear", "num_train_timesteps": 10**9},
            "2 to 100000 steps",
        ),
    ],
)
def test_schedulers_that_are_not_known_are_named(changes, said, folder):
    edited(folder / "scheduler" / "scheduler_config.json", **changes)
    with pytest.raises(cm.Error, match=said):
        cm.import_model(folder)


def test_an_early_folder_of_diffusers_has_other_names_in_one_place(tmp_path):
    cm.export_model(MODELS["diffusers-epsilon"](), "diffusers", tmp_path / "a")
    expected = cm.import_model(tmp_path / "a")

    def early(tensors):
        for name in [n for n in tensors if ".attentions." in n]:
            new = name
            for today, then in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
                new = new.replace(f".{today}.", f".{then}.")
            tensors[new] = tensors.pop(name)

    rewritten(tmp_path / "a" / WEIGHTS, early)
    (tmp_path / "b").mkdir()
    for path in ("unet/config.json", WEIGHTS, "scheduler/scheduler_config.json"):
        (tmp_path / "a" / path).rename(tmp_path / "b" / path.rpartition("/")[2])
    back = cm.import_model(tmp_path / "b")
    assert back.architecture == expected.architecture
    assert all((back.weights[name] == w).all() for name, w in expected.weights.items())


def test_models_of_our_own_need_no_import(tmp_path):
    cm.model.save_model(MODELS["openai"](), tmp_path / "model.safetensors")
    for path in (tmp_path, tmp_path / "model.safetensors"):
        with pytest.raises(cm.Error, match="cmcore's own: use it as it is"):
            cm.import_model(path)


def test_weights_that_are_not_finite_are_refused(openai, tmp_path):
    tensors = tensors_of("openai", ADM)
    tensors["out.2.bias"] = np.full(3, np.inf, np.float32)
    write_state_dict(openai, tensors)
    with pytest.raises(ValueError, match="not finite"):
        cm.import_model(openai, **OPENAI)


def test_betas_one_by_one(folder):
    betas = [0.01, 0.02, 0.99]
    edited(
        folder / "scheduler" / "scheduler_config.json",
        _class_name="DDIMScheduler",
        beta_schedule="linear",
        trained_betas=betas,
    )
    model = cm.import_model(folder)
    assert model.architecture == Adapted(ADM, "noise", "betas", tuple(betas))
    assert model.recipe.t_min == pytest.approx((1 / 0.99 - 1) ** 0.5)
    assert model.recipe.t_max == pytest.approx((1 / (0.99 * 0.98 * 0.01) - 1) ** 0.5)


@pytest.mark.parametrize(
    ("options", "problem", "said"),
    [
        ({}, cm.Error, r"--set kind=\.\.\. .*; --set side=\.\.\. .*; --set head_width=\.\.\. "),
        ({**OPENAI, "kind": "good"}, cm.Error, "no model of the kind 'good'; the known ones are consistency, score"),
        ({**OPENAI, "attention": 4}, ValueError, "leaves no choice of 'attention'"),
        ({**OPENAI, "side": 9}, cm.Error, "cannot be halved"),
        ({**OPENAI, "head_width": 48}, cm.Error, "heads of 48"),
        ({**OPENAI, "recipe": "edm"}, cm.Error, "does not train a consistency model"),
        ({**OPENAI, "recipe": "meanflow"}, cm.Error, "trains another"),
        ({**OPENAI, "layout": "word"}, ValueError, "no layout 'word'"),
        ({"layout": "diffusers"}, cm.Error, "no config.json beside"),
        ({"layout": "flax", **FLAX}, cm.Error, "not those of an NCSN"),
    ],
)
def test_what_is_lacking_or_wrong_is_asked_for_by_name(options, problem, said, openai):
    with pytest.raises(problem, match=said):
        cm.import_model(openai, **options)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cannot be read"),
        (b"PK\x03\x04 no zip", "cannot be read"),
        (b"\x80\x04}q", "cannot be read"),
        (b"{}", "cannot be read"),
        (b"\x81\xa1a\xc0", "has no weights|holds no weights|cannot be read"),
        (b"\xff" * 40, "cannot be read"),
        # More bytes than any machine has, a place in memory that nobody needs, and values piled up.
        (b"\x80\x04\x8e" + (2**60).to_bytes(8, "little") + b"a.", "ends too early"),
        (b"\x80\x02}r\xff\xff\xff\x7f.", "has no weights; it has none"),
        (b"\x80\x02]" + b"2" * 10**6 + b".", "piles up"),
        (b"\x81\xa1a" + b"\x91" * 10**5, "nest too deep"),
        (b"\x81\xa1a\xdd\xff\xff\xff\xff\x90", "fewer values than it says"),
        ((2**60).to_bytes(8, "little") + b"{" + b" " * 100, "cannot be read"),
    ],
)
def test_what_is_no_checkpoint_is_a_sentence(content, said, tmp_path):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(cm.Error, match=said):
        cm.import_model(tmp_path / "a")


def test_places_without_a_checkpoint(tmp_path, folder):
    with pytest.raises(cm.Error, match="no file or folder"):
        cm.import_model(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(cm.Error, match="holds no checkpoint known here"):
        cm.import_model(tmp_path / "empty")
    (folder / WEIGHTS).unlink()
    with pytest.raises(cm.Error, match="no weights"):
        cm.import_model(folder)
    cm.export_model(MODELS["openai"](), "diffusers", tmp_path / "b")
    with pytest.raises(cm.Error, match=r"no scheduler/scheduler_config\.json"):
        cm.import_model(tmp_path / "b" / "unet")
    write_state_dict(tmp_path / "c.pt", {"a": np.zeros(2, np.float32)})
    with pytest.raises(cm.Error, match=r"none that is known here \(its weights are a, ...\)"):
        cm.import_model(tmp_path / "c.pt")


def test_a_file_that_ends_too_early_anywhere_is_a_sentence(openai, tmp_path):
    (tmp_path / "flax").write_bytes(as_msgpack({"params": nested(tensors_of("flax", NCSNPP))}))
    for path, options in ((openai, OPENAI), (tmp_path / "flax", FLAX)):
        whole = path.read_bytes()
        for at in np.linspace(0, len(whole) - 1, 12).astype(int):
            path.write_bytes(whole[:at])
            with pytest.raises(cm.Error, match=r"read|weights"):
                cm.import_model(path, **options)


def test_the_command_makes_a_run_that_samples_and_exports(openai, tmp_path, capsys):
    settings = [word for key, value in OPENAI.items() for word in ("--set", f"{key}={value}")]
    run = tmp_path / "run"
    assert main(["import", str(openai), "--out", str(run), *settings]) == 0
    assert "Imported a consistency model of" in capsys.readouterr().err
    model = load_model(run)
    assert holds(model, ADM, prefix="net.")
    assert main(["sample", str(run), "--n", "2", "--backend", "numpy", "--out", str(tmp_path / "a.npz")]) == 0
    assert np.load(tmp_path / "a.npz")["x"].shape == (2, *SHAPE)
    assert main(["import", str(openai), "--out", str(run), *settings]) == 2
    assert "not empty" in capsys.readouterr().err
    assert main(["export", str(run), "--to", "openai", str(tmp_path / "b.pt")]) == 0
    assert (tmp_path / "b.pt").read_bytes() == openai.read_bytes()
    for wrong, said in (("side", "takes KEY=VALUE"), ("side=x", "a whole number"), ("sigma_data=x", "a number")):
        assert main(["import", str(openai), "--out", str(tmp_path / "c"), "--set", wrong]) == 2
        assert said in capsys.readouterr().err


def test_a_variant_that_is_all_there_is_is_read(tmp_path):
    model = MODELS["openai"]()
    cm.export_model(model, "diffusers", tmp_path / "a")
    weights = tmp_path / "a" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert cm.import_model(tmp_path / "a").weights.keys() == model.weights.keys()
    (weights.with_name("diffusion_pytorch_model.ema.safetensors")).write_bytes(b"")
    with pytest.raises(cm.Error, match=r"has a config\.json but no weights"):
        cm.import_model(tmp_path / "a")
