"""The seed paper's equations are where docs/methods.md says they are."""

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("equations", ROOT / "benchmarks" / "equations.py")
equations = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(equations)


def test_the_page_says_where_each_equation_is():
    inside = equations.parted(equations.PAGE.read_text())[1]
    assert inside == equations.table(), "python benchmarks/equations.py --write"


def test_every_numbered_equation_and_algorithm_has_a_place():
    said = " ".join(place for place, _, _ in equations.PLACES)
    numbers = {int(n) for group in re.findall(r"equations? ([\d, ]+)", said) for n in re.findall(r"\d+", group)}
    assert numbers == set(range(1, 11))
    assert {f"algorithm {n}" for n in range(1, 5)} <= {place for place, _, _ in equations.PLACES}
