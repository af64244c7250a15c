"""The benchmark of the train step runs, and its two steps agree; how fast they are is not a test's business."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TRAINABLE

OVERHEAD = Path(__file__).parent.parent / "benchmarks" / "overhead.py"


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINABLE[:1])
def test_both_steps_agree_and_are_timed(name):
    options = ["--backend", name, "--net", "tiny", "--recipe", "ct-target", "cd", "--rounds", "1", "--seconds", "0"]
    done = subprocess.run([sys.executable, OVERHEAD, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n| tiny |") == 2
