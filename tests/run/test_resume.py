"""Runs killed with SIGKILL at random moments end, once resumed, where undisturbed ones do. The long form is
``benchmarks/kill_resume.py``, whose function this is."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kill_resume.py"


@pytest.fixture(scope="module")
def harness():
    spec = importlib.util.spec_from_file_location("kill_resume", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_killed_runs_end_with_the_same_bits(trainable, harness, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    arguments = ["--data", "digits", "--recipe", "ct", "--backend", trainable.name, "--steps", "400"]
    arguments += ["--width", "16", "--blocks", "1", "--batch", "16", "--save-every", "5", "--sample-every", "400"]
    arguments += ["--no-compile"] if trainable.name == "torch" else []
    whole, broken, kills = harness.kill_and_resume(arguments, tmp_path, kills=2, seed=7)
    assert kills > 0
    assert harness.same_weights(whole, broken)
    logs = [(run / "log.csv").read_text().splitlines() for run in (whole, broken)]
    assert [line.split(",")[0] for line in logs[0]] == [line.split(",")[0] for line in logs[1]]
