"""The benchmark of the train step runs, and its two steps agree; how fast they are is not a test's business."""

import subprocess
import sys
from pathlib import Path

import guard_lines
import pytest
from conftest import TRAINABLE

OVERHEAD = Path(__file__).parent.parent / "benchmarks" / "overhead.py"


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINABLE[:1])
def test_both_steps_agree_and_are_timed(name):
    options = ["--backend", name, "--net", "tiny", "--recipe", "cd", "--rounds", "1", "--seconds", "0"]
    done = subprocess.run([sys.executable, OVERHEAD, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n| tiny |") == 1


def test_the_mathematics_is_not_made_of_checks():
    guards, _, code = guard_lines.total()
    assert code > 1500
    assert guards <= 0.08 * code, f"{guards} of {code} lines: python benchmarks/guard_lines.py"


@pytest.mark.parametrize(
    ("source", "guards", "declared"),
    [
        ("def f(x: Samples) -> Samples:\n    return x + 1", set(), set()),
        ("def f(x):\n    check_state(x)\n    return x", {2}, set()),
        ("def f(x):\n    if x < 0:\n        raise ValueError(\n            x\n        )\n    return x", {2, 3, 4, 5}, set()),
        ("def f(x):\n    return 1 if isinstance(x, int) else x", {2}, set()),
        ("def _check_it(x):\n    y = x\n    return y", {1, 2, 3}, set()),
        ("T = Annotated[\n    float,\n    Rule(\n        lambda x: x > 0,\n        '.',\n    ),\n]", set(), {3, 4, 5, 6}),
        ("def f(x: Annotated[float, Limit(bool, '')]): ...\n\n\ncheck_arguments(__name__)", {4}, {1}),
    ],
)  # fmt: skip
def test_guards_are_counted(source, guards, declared):
    assert guard_lines.guard_lines(source) == guards
    assert guard_lines.declared_lines(source) == declared
