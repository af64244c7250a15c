"""The benchmarks run, and what they compare is the same; how fast it is is not a test's business."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import guard_lines
import pytest
import turns
from conftest import TRAINABLE

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
OVERHEAD = BENCHMARKS / "overhead.py"


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINABLE[:1])
def test_both_steps_agree_and_are_timed(name):
    options = ["--backend", name, "--net", "tiny", "--recipe", "cd", "--rounds", "1", "--seconds", "0"]
    done = subprocess.run([sys.executable, OVERHEAD, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n| tiny |") == 1


@pytest.mark.slow
@pytest.mark.skipif("torch" not in TRAINABLE or not importlib.util.find_spec("diffusers"), reason="needs diffusers")
def test_diffusers_pipeline_makes_the_same_pictures_and_is_timed():
    options = ["--shape", "3x8x8", "--batch", "2", "--rounds", "1", "--seconds", "0", "--ways", "ours, eager"]
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "peers.py", "sampling", *options], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("pictures of the same noise") == 2
    assert done.stdout.count("\n| ours, eager |") == 2


def test_ways_take_turns_in_an_order_that_reverses():
    called = []
    times = turns.take_turns({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, 2, 0.0)
    assert "".join(called) == "aabb" + "ba" + "ab"
    assert [len(found) for found in times.values()] == [2, 2]


def test_a_way_that_takes_half_the_time_is_twice_as_fast():
    rows = turns.table({"theirs": [1.0, 2.0], "ours": [0.5, 1.0]}, 6, "theirs")
    assert rows == ["| theirs | 4.0 | 1.00 (1.00 - 1.00) |", "| ours | 8.0 | 2.00 (2.00 - 2.00) |"]


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
