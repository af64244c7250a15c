"""``cmcore export RUN --to web``: its noise is the program's, and in a browser without a network its pictures too."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import chromium
import numpy as np
import pytest
from browser import served, walk_alone
from conftest import CHOSEN
from test_edit import make_model

import cmcore as cm
from cmcore import sampling
from cmcore.editing import edit_times, spherical
from cmcore.interchange import web
from cmcore.model import save_model
from cmcore.run import cli
from cmcore.run.page import PAGE
from cmcore.sampling import seeded_noise

NUMPY = cm.load("numpy")
RUNTIME = os.environ.get("ONNXRUNTIME_WEB")
"""The folder of the unpacked npm package."""


def run_in_node(code, folder):
    """What a module of the page gives in Node, as JSON."""
    for name in ("noise.js", "editing.js"):
        shutil.copy(PAGE / "browser" / name, (folder / name).with_suffix(".mjs"))
    (folder / "ask.mjs").write_text(code)
    done = subprocess.run(["node", folder / "ask.mjs"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")


@needs_node
def test_the_noise_is_the_programs_to_the_bit(tmp_path):
    asked = [(0, 0, 0, 1000), (7, 3, 2, 40_000), (2**32, 1, 1, 100), (2**53 - 1, 9, 40, 100)]
    code = f"""import {{ noise }} from "./noise.mjs";
    console.log(JSON.stringify({json.dumps(asked)}.map((one) => Array.from(noise(...one)))));"""
    for (seed, image, draw, size), found in zip(asked, run_in_node(code, tmp_path), strict=True):
        expected = seeded_noise(seed, [image], (size,), draw)[0]
        assert np.array_equal(np.array(found, np.float32), expected)
    # 40,000 numbers reach the ziggurat's tail.
    assert np.abs(seeded_noise(7, [3], (40_000,), 2)).max() > 3.6541528853610088


@needs_node
def test_the_times_the_sampler_and_the_great_circle_are_the_programs(tmp_path):
    a, b = seeded_noise(1, range(2), (50,))
    code = f"""import * as e from "./editing.mjs";
    const f = async (x, t) => Array.from(x, (v) => v / (1 + t)), noise = (draw) => [0.1 + draw, -0.2];
    const known = {{ mask: [1, 0], picture: [0.5, 0] }};
    console.log(JSON.stringify({{
      times: e.editTimes(7, 0.002, 80), between: e.spherical({a.tolist()}, {b.tolist()}, 0.3), same: e.spherical([1, 2], [1, 2], 0.3),
      sampled: await e.multistep(f, [2, 1.2, 0.7], noise, 0.5, () => 0), edited: await e.refined(f, [0.5, 0], known, [2, 1.2, 0.7], noise, 0.5),
    }}));"""
    found = run_in_node(code, tmp_path)
    assert np.allclose(found["times"], edit_times(7), rtol=1e-12)
    assert np.allclose(found["between"], spherical(a[None], b[None], 0.3)[0], atol=1e-6)
    assert np.allclose(found["same"], [1, 2])

    def f(x, t):
        return x / (1 + t[:, None])

    def noise(draw):
        return np.array([[1.1 + draw, -0.2]])

    z, times = np.array([[0.1, -0.2]]), (2.0, 1.2, 0.7)
    assert np.allclose(found["sampled"], sampling.multistep(f, z, times, noise, 0.5)[0], atol=1e-6)
    known = cm.editing.inpainting(np.array([[0.5, 0.0]]), np.array([[1.0, 0.0]]))
    assert np.allclose(found["edited"], cm.editing.edit(f, known, z, times, noise, 0.5)[0], atol=1e-6)


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    """The unpacked package, or what looks like it."""
    if RUNTIME:
        return Path(RUNTIME)
    dist = tmp_path_factory.mktemp("npm") / "package" / "dist"
    dist.mkdir(parents=True)
    for name in web.RUNTIME:
        (dist / name).write_bytes(name.encode())
    return dist.parent


def export(model, folder, *more):
    save_model(model, folder / "model.safetensors")
    return cli.main(["export", str(folder / "model.safetensors"), "--to", "web", str(folder / "out"), *map(str, more)])


def test_models_without_a_page_and_packages_without_files_are_told(tmp_path, runtime, capsys, monkeypatch):
    for model, said in ((make_model("edm"), "distil the model first"), (make_model(shape=(2, 4, 4)), "(2, 4, 4)")):
        assert export(model, tmp_path, "--onnxruntime-web", runtime) == 2
        assert said in capsys.readouterr().err
    assert export(make_model(), tmp_path, "--onnxruntime-web", tmp_path / "none") == 2
    assert "has no dist/ort.wasm.min.mjs" in capsys.readouterr().err
    monkeypatch.setattr(web.shutil, "which", lambda name: None)
    assert export(make_model(), tmp_path) == 2
    assert "there is no npm here" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    with pytest.raises(cm.Error, match="a model for onnx needs none"):
        cm.export_model(make_model(), "onnx", tmp_path / "out", onnxruntime_web=runtime)


def test_npm_that_fetches_nothing_is_told(tmp_path, capsys, monkeypatch):
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'npm error network' >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setattr(web.shutil, "which", lambda name: str(npm))
    assert export(make_model(), tmp_path) == 2
    assert "npm does not fetch onnxruntime-web (npm error network)" in capsys.readouterr().err


def test_a_flow_map_is_one_step_there_and_a_consistency_function_several():
    one, several = (web.about(make_model(name))["models"][0] for name in ("meanflow", "ct"))
    assert (len(one["times"]), len(several["times"])) == (1, web.MOST_STEPS)
    assert tuple(several["times"][2]) == cm.recipes.get("ct").times(3)
    assert "upscale" not in several["tasks"]


needs_torch = pytest.mark.skipif("torch" not in CHOSEN, reason="the backend that writes ONNX files does not take part")


MODEL = make_model("ct", (3, 8, 8), classes=2)


@pytest.fixture(scope="module")
def exported(tmp_path_factory, runtime):
    """The folder of a page."""
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("web")
    assert export(MODEL, folder, "--onnxruntime-web", runtime, "--license", "mit") == 0
    return folder / "out"


@needs_torch
def test_the_files_are_a_page_with_a_policy(exported):
    names = {path.name for path in exported.iterdir()}
    assert {"index.html", "app.js", "engine.js", "generator.onnx", "evaluation.onnx", "about.json", "README.md"} < names
    assert set(web.RUNTIME) < names
    page = (exported / "index.html").read_text()
    assert "default-src 'none'" in page
    assert "opened this as a file" in page
    for name in re.findall(r'(?:src|href)="([^":]+)"', page):
        assert (exported / name).is_file(), name
    for script in exported.glob("*.js"):
        for name in re.findall(r'from "\./(.+?)"', script.read_text()):
            assert (exported / name).is_file(), (script.name, name)
    assert 'license: "mit"' in (exported / "README.md").read_text()


@needs_torch
def test_one_evaluation_is_that_of_editing(exported):
    runtime = pytest.importorskip("onnxruntime")
    x, t = seeded_noise(0, range(3), MODEL.data.shape), np.array([0.1, 5.0, 80.0], np.float32)
    label = np.array([0, 1, 0], np.int32)
    (found,) = runtime.InferenceSession(exported / "evaluation.onnx").run(None, {"x": x, "t": t, "label": label})
    right = MODEL.recipe.consistency(MODEL.network(NUMPY))(x, t, label=label)
    assert np.abs(found - right).max() <= 1e-5


@needs_torch
@pytest.mark.skipif(chromium.PROGRAM is None, reason="no Chromium is installed (Debian: apt install chromium)")
@pytest.mark.skipif(RUNTIME is None, reason="ONNXRUNTIME_WEB names no folder (npm pack onnxruntime-web, unpacked)")
def test_without_a_network_a_browser_makes_the_programs_pictures(exported):
    asked = [
        {"task": "sample", "seed": 5, "n": 3},
        {"task": "sample", "seed": 6, "n": 2, "steps": 3, "label": "b"},
        {"task": "interpolate", "seed": 3, "seed_b": 8, "share": 0.0, "n": 1, "label": "b"},
    ]
    with served(exported) as url, chromium.browser() as started:
        seen = walk_alone(started, url, asked)
    expected = [MODEL.sample(3, seed=5, backend=NUMPY), MODEL.sample(2, seed=6, steps=3, label="b", backend=NUMPY)]
    expected.append(MODEL.sample(1, seed=3, label="b", backend=NUMPY))
    for found, right in zip(seen["values"], expected, strict=True):
        assert np.abs(np.reshape(found, right.shape) - right).max() <= 1e-3
    assert len(set(seen["inpainted"])) == 4
    assert len(set(seen["between"])) == 3
    assert seen["problem"] == ""
    assert seen["complaints"] == []
    assert seen["foreign"] == []
