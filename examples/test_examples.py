"""Every example runs and makes its picture; the toy, trained for longer, comes close to the exact answer."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

HERE = Path(__file__).parent
MORE = {"digits": ("--samples", "64"), "new_network": ("--samples", "16")}
# Compiling with torch takes longer than these few steps do without, and threads do not help networks this small.
ENVIRONMENT = os.environ | {"TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": "1"}


def run(name, backend, out, steps, *more):
    command = [sys.executable, HERE / f"{name}.py", "--backend", backend, "--steps", str(steps), "--out", out, *more]
    done = subprocess.run(command, capture_output=True, text=True, cwd=out.parent, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["toy2d", "digits", "bring_your_own", "new_method", "new_network"])
def test_runs_and_makes_its_picture(name, backend, tmp_path):
    out = tmp_path / "picture.png"
    text = run(name, backend, out, 3, *MORE.get(name, ()))
    numbers = [float(n) for n in re.findall(r"-?(?:\d+\.\d+|nan|inf)\b", text)]
    assert len(numbers) >= 3
    assert all(map(math.isfinite, numbers)), text
    with Image.open(out) as picture:
        assert min(picture.size) > 100
        assert len(picture.convert("RGB").getcolors(2**24)) > 2, "the picture is empty"
    assert list(tmp_path.iterdir()) == [out]
    if name == "new_network":
        assert "the weights are the same bits" in text
        differences = re.findall(r"furthest from \w+'s (\S+)", text)
        assert len(differences) > 1
        assert all(float(d) < 1e-5 for d in differences)


def test_toy_comes_close_to_the_exact_answer(backend, tmp_path):
    if backend == "tinygrad":
        pytest.skip("too slow on a CPU: the mathematics is the same, and tests/cross_backend compares the numbers")
    text = run("toy2d", backend, tmp_path / "picture.png", 2000)
    teacher, distilled, trained = (float(e) for e in re.findall(r"exact answer ([\d.]+)", text))
    assert teacher < 0.12
    # The map of a Gaussian with the data's covariance, which knows nothing of the blobs, is 0.30 away.
    assert distilled < 0.22
    assert trained < 0.22
