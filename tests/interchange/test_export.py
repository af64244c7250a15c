"""What is exported is read back to the same bits, and real diffusers pipelines sample it to the same numbers."""

import importlib.util
import json
from dataclasses import replace

import numpy as np
import pytest
from small import ADM, DDPMPP, EDM_ADM, MODELS, NCSNPP, PLAIN, SHAPE, SIZES, model_of, weights_of

import cmcore as cm
from cmcore.interchange.torch_file import write_state_dict
from cmcore.networks import Adapted, ResidualConv, UNet

OPENAI = {"kind": "consistency", "side": 8, "head_width": 16}


@pytest.fixture(params=[*MODELS])
def case(request, tmp_path):
    to = "edm" if request.param.startswith("ect") else request.param.partition("-")[0]
    return MODELS[request.param](), to, tmp_path / "out"


def told(to, model):
    if to != "openai":
        return {}
    return {**OPENAI, "head_width": model.architecture.network.head_channels, "t_min": model.recipe.t_min}


def same(a, b):
    assert a.architecture == b.architecture
    assert a.recipe == b.recipe
    assert a.weights.keys() == b.weights.keys()
    return all(a.weights[name].tobytes() == b.weights[name].tobytes() for name in a.weights)


def test_what_is_exported_is_imported_to_the_same_bits_twice(case, tmp_path):
    model, to, out = case
    cm.export_model(model, to, out)
    back = cm.import_model(out, **told(to, model))
    assert same(back, model)
    cm.export_model(back, to, tmp_path / "again")
    files = [p for p in out.rglob("*") if p.is_file()] if out.is_dir() else [out]
    assert files
    assert all(
        p.read_bytes() == (tmp_path / "again" / p.relative_to(out)).read_bytes()
        for p in files
        if p != out and p.name != "README.md"
    )
    assert same(cm.import_model(tmp_path / "again", **told(to, model)), model)


def test_openai_and_diffusers_files_are_two_ways_to_say_the_same(tmp_path):
    model = MODELS["openai"]()
    cm.export_model(model, "openai", tmp_path / "a.pt")
    cm.export_model(model, "diffusers", tmp_path / "a")
    assert same(cm.import_model(tmp_path / "a.pt", **OPENAI), cm.import_model(tmp_path / "a"))


def test_what_only_training_needs_is_left_out(tmp_path):
    network = ADM.with_options(two_times=False, log_weight=True)
    model = model_of(Adapted(network, "free", "log", (250.0, 0.0)), "cd")
    cm.export_model(model, "diffusers", tmp_path / "a")
    back = cm.import_model(tmp_path / "a")
    assert back.architecture.network == ADM
    assert not any("log_weight" in name for name in back.weights)


@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="needs torch")
def test_torch_itself_reads_the_state_dict(tmp_path):
    import torch

    tensors = {
        "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "half": np.ones((2, 1), np.float16),
        "empty": np.zeros((0, 3), np.float32),
        "count": np.asarray(3),
    }
    write_state_dict(tmp_path / "a.pt", tensors)
    for mapped in (False, True):
        read = torch.load(tmp_path / "a.pt", weights_only=True, mmap=mapped)
        assert list(read) == list(tensors)
        assert all(
            str(read[k].numpy().dtype) == str(a.dtype) and (read[k].numpy() == a).all() for k, a in tensors.items()
        )
    with pytest.raises(ValueError, match="cannot hold"):
        write_state_dict(tmp_path / "b.pt", {"a": np.zeros(2, np.complex64)})
    assert not (tmp_path / "b.pt").exists()


@pytest.mark.skipif(not importlib.util.find_spec("diffusers"), reason="needs diffusers")
@pytest.mark.parametrize("name", ["openai", "openai-plain"])
def test_the_real_pipeline_samples_the_same_numbers(name, tmp_path):
    import torch
    from diffusers import ConsistencyModelPipeline

    model = MODELS[name]()
    cm.export_model(model, "diffusers", tmp_path / "a")
    pipe = ConsistencyModelPipeline.from_pretrained(tmp_path / "a")
    pipe.set_progress_bar_config(disable=True)
    numpy = cm.load("numpy")
    net = numpy.network(model.architecture, model.weights)
    z, noise = (torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    labels = [0, 1, 2] if model.architecture.classes else None
    for steps in (1, 2):
        seen = []
        pipe(
            batch_size=3, class_labels=labels, num_inference_steps=steps, latents=z, output_type="pt",
            generator=torch.Generator().manual_seed(2), callback=lambda i, t, x, seen=seen: seen.append(x.numpy().copy()),
        )  # fmt: skip
        times = [float(s) for s in pipe.scheduler.sigmas[:steps]]
        cond = {} if labels is None else {"label": np.asarray(labels, np.int32)}
        got = model.recipe.sample(net, z.numpy(), times, lambda i: noise.numpy(), cond)
        assert np.abs(got - seen[-1]).max() < 1e-4 * np.abs(seen[-1]).max()


@pytest.mark.skipif(not importlib.util.find_spec("diffusers"), reason="needs diffusers")
@pytest.mark.parametrize("recipe", ["meanflow", "psd"])
def test_the_real_flow_map_scheduler_samples_the_same_numbers(recipe, tmp_path):
    import torch

    model = model_of(ADM.with_options(True, recipe == "psd"), recipe)
    cm.export_model(model, "diffusers", tmp_path / "a")
    assert same(cm.load_model(tmp_path / "a"), model)
    code = (tmp_path / "a" / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    for steps in (1, 2, 3):
        start = cm.load_model(tmp_path / "a").network("torch")
        names = {"cm": cm, "torch": torch}
        torch.manual_seed(5)
        with torch.no_grad(), cm.backend.using("torch"):
            exec(code.replace("THIS_FOLDER", str(tmp_path / "a")).replace("steps(2)", f"steps({steps})"), names)
        torch.manual_seed(5)
        z = torch.randn(4, *SHAPE)
        cond = {"label": torch.arange(4) % 3}
        with torch.no_grad():
            expected = model.recipe.sample(start, z, model.recipe.times(steps), None, cond)
        assert (names["x"] - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.skipif(not importlib.util.find_spec("diffusers"), reason="needs diffusers")
def test_a_run_with_openais_style_of_network_is_a_pipeline(tmp_path):
    from diffusers import ConsistencyModelPipeline

    from cmcore.run.cli import main

    run = [
        "train",
        "--data",
        "digits",
        "--recipe",
        "ct",
        "--network",
        "adm-tiny",
        "--steps",
        "2",
        "--batch",
        "2",
        "--no-compile",
    ]
    assert main([*run, "--backend", "torch", "--out", str(tmp_path / "run")]) == 0
    assert main(["export", str(tmp_path / "run"), "--to", "diffusers", str(tmp_path / "a")]) == 0
    assert main(["export", str(tmp_path / "run"), "--to", "openai", str(tmp_path / "a.pt")]) == 0
    pipe = ConsistencyModelPipeline.from_pretrained(tmp_path / "a")
    assert pipe(num_inference_steps=1, output_type="np").images.shape == (1, 8, 8, 1)


@pytest.mark.skipif(not importlib.util.find_spec("diffusers"), reason="needs diffusers")
@pytest.mark.parametrize("name", ["diffusers-epsilon", "diffusers-v"])
def test_the_real_network_and_schedule_give_the_same_denoiser(name, tmp_path):
    import torch
    from diffusers import DDPMPipeline

    model = MODELS[name]()
    cm.export_model(model, "diffusers", tmp_path / "a")
    pipe = DDPMPipeline.from_pretrained(tmp_path / "a")
    steps = torch.tensor([0, 17, 60, 90])
    kept = pipe.scheduler.alphas_cumprod.double()[steps][:, None, None, None]
    x = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(1))
    labels = {"class_labels": torch.tensor([0, 1, 2, 0])} if model.architecture.classes else {}
    with torch.no_grad():
        out = pipe.unet(x, steps, **labels).sample.double()
    noise = out if name.endswith("epsilon") else kept.sqrt() * out + (1 - kept).sqrt() * x
    expected = ((x - (1 - kept).sqrt() * noise) / kept.sqrt()).numpy()
    numpy = cm.load("numpy")
    denoiser = model.recipe.function(numpy.network(model.architecture, model.weights))
    sigma = ((1 - kept) / kept).sqrt().flatten().numpy().astype(np.float32)
    cond = {"label": np.asarray([0, 1, 2, 0], np.int32)} if labels else {}
    got = denoiser((x / kept.sqrt()).numpy().astype(np.float32), sigma, **cond)
    each = np.abs(got - expected).max(axis=(1, 2, 3)) / np.abs(expected).max(axis=(1, 2, 3))
    assert each.max() < 1e-4


@pytest.mark.parametrize(
    ("to", "model", "said"),
    [
        ("openai", lambda: model_of(ADM.with_options(True, False), "meanflow"), "a flow map.*scheduler: --to diffusers"),
        ("diffusers", lambda: model_of(ADM.with_options(True, False), "ctm"), "a flow map, whose network has two times"),
        ("openai", lambda: model_of(ADM, "sct"), "of the kind 'trigflow'"),
        ("edm", lambda: model_of(ResidualConv(SHAPE, width=8, multipliers=(1,), blocks=1)), "kind 'conv'"),
        ("diffusers", lambda: model_of(ADM, "cd"), "told 250 ln\\(t\\)"),
        ("diffusers", lambda: model_of(EDM_ADM), "this model is neither"),
        ("openai", lambda: model_of(ADM, "cd"), "told the time by the clock 'log'\\(250.0, 0.0\\)"),
        ("openai", lambda: model_of(Adapted(DDPMPP, "free", "log", (250.0, 0.0)), "cd"), "no place for the network's weight"),
        ("edm", lambda: model_of(PLAIN), "cannot say all of the network's settings.*head_channels"),
        ("edm", lambda: model_of(Adapted(EDM_ADM, "free", "log", (250.0, 0.0)), "cd"), "none of them"),
        (
            "diffusers",
            lambda: model_of(Adapted(UNet(SHAPE, width=32, multipliers=(1, 2), blocks=1, attention=(2,), times="sinusoidal"), "free", "log", (250.0, 0.0)), "cd"),
            "cannot say all.*group_channels",
        ),
        ("diffusers", lambda: model_of(Adapted(NCSNPP, "noise", "linear", (50.0, 1e-3, 0.3))), "no place for the network's weight"),
    ],
)  # fmt: skip
def test_what_a_program_has_not_the_like_of_is_said(to, model, said, tmp_path):
    with pytest.raises(cm.Error, match=said):
        cm.export_model(model(), to, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("to", ["diffusers", "openai", "edm"])
def test_units_that_a_file_cannot_say_are_not_lost(to, tmp_path):
    model = MODELS["edm-adm" if to == "edm" else "openai"]()
    data = replace(model.data, images=False, center=(1.0, 2.0, 3.0), scale=(7.0, 7.0, 7.0))
    with pytest.raises(cm.Error, match="no place for the center and scale"):
        cm.export_model(replace(model, data=data), to, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_diffusers_makes_square_images(tmp_path):
    network = UNet((3, 16, 8), **SIZES, head_channels=16, classes=3, times="sinusoidal", group_channels=1)
    model = model_of(Adapted(network, "free", "log", (250.0, 0.0)), "cd")
    with pytest.raises(cm.Error, match=r"makes square images; the model's are 16 x 8\."):
        cm.export_model(model, "diffusers", tmp_path / "a")


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "a").write_text("mine")
    with pytest.raises(cm.Error, match="exists already"):
        cm.export_model(MODELS["openai"](), "openai", tmp_path / "a")
    assert (tmp_path / "a").read_text() == "mine"
    with pytest.raises(ValueError, match="no format 'word'"):
        cm.export_model(MODELS["openai"](), "word", tmp_path / "b")


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    model = MODELS["openai"]()
    weights = {**model.weights, "net.stem.bias": np.full(32, np.nan, np.float32)}
    with pytest.raises(ValueError, match="not finite"):
        cm.export_model(type(model)(model.recipe, model.architecture, weights, model.data), "openai", tmp_path / "a")


def test_a_folder_is_a_pipeline_only_when_all_of_it_is_there(tmp_path):
    cm.export_model(MODELS["openai"](), "diffusers", tmp_path / "a")
    index = json.loads((tmp_path / "a" / "model_index.json").read_text())
    assert index["_class_name"] == "ConsistencyModelPipeline"
    times = [
        p.stat().st_mtime_ns
        for p in (tmp_path / "a").rglob("*")
        if p.is_file() and p.name not in ("model_index.json", "README.md")
    ]
    assert (tmp_path / "a" / "model_index.json").stat().st_mtime_ns >= max(times)
    assert weights_of(ADM).keys() == {name.removeprefix("net.") for name in cm.import_model(tmp_path / "a").weights}
