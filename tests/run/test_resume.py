"""Runs killed with SIGKILL at a random moment end, once resumed, where undisturbed ones do. The long form is
``benchmarks/kill_resume.py``, whose function this is. tinygrad's runs, which compile for most of a minute, are stopped and resumed in
`test_every_recipe.py`."""

import kill_resume
import pytest
from conftest import TRAINABLE
from run_files import differences


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TRAINABLE if name != "tinygrad"])
def test_killed_runs_end_with_the_same_bits(name, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    arguments = ["--data", "digits", "--recipe", "ct", "--backend", name, "--steps", "400"]
    arguments += ["--width", "16", "--blocks", "1", "--batch", "16", "--save-every", "5", "--sample-every", "400"]
    arguments += ["--no-compile"] if name == "torch" else []
    whole, broken, kills = kill_resume.kill_and_resume(arguments, tmp_path, kills=1, seed=7)
    assert kills > 0
    assert differences(broken, whole) == []
