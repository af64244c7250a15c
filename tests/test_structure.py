"""How the house hangs together, read from its source: what imports what, and who knows of frameworks."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from cmcore.backend import PREFERENCE

ROOT = Path(__file__).parents[1]


def modules():
    """Every file of cmcore and its backends by the name under which it is imported."""
    found = {}
    for place in (ROOT, ROOT / "backends"):
        for package in place.glob("cmcore*"):
            for path in package.rglob("*.py"):
                parts = path.relative_to(place).with_suffix("").parts
                found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(source):
    """The names that a file imports, wherever in it, as (module, name or None)."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "Imports are absolute here."
            yield from ((node.module, alias.name) for alias in node.names)


def graph(sources):
    """The files that each file imports: of a package, the submodule that is asked for, else its __init__."""

    def resolved(module, name):
        return f"{module}.{name}" if f"{module}.{name}" in sources else module

    return {
        here: {there for pair in imported(source) if (there := resolved(*pair)) in sources} - {here}
        for here, source in sources.items()
    }


def test_no_two_files_import_each_other():
    sources = {name: path.read_text() for name, path in modules().items()}
    assert {"cmcore", "cmcore.run.train", "cmcore_torch.backend", "cmcore_tinygrad.functions.creation"} <= set(sources)
    try:
        TopologicalSorter(graph(sources)).prepare()
    except CycleError as circle:
        pytest.fail(" <- ".join(circle.args[1]))


def test_the_recipes_use_no_oracle():
    """Nor does anything that they import: what is proved by an oracle must not be made of it."""
    files = graph({name: path.read_text() for name, path in modules().items()})
    reached = set()
    ahead = {name for name in files if name.startswith("cmcore.recipes")}
    while ahead:
        reached |= ahead
        ahead = set().union(*(files[name] for name in ahead)) - reached
    assert {"cmcore.posterior", "cmcore.grids"} <= reached
    assert not {name for name in reached if name.startswith("cmcore.oracles")}


def test_a_circle_is_found_wherever_it_hides():
    sources = {
        "house": "from house import a",
        "house.a": "def f():\n    from house.b import g",
        "house.b": "if TYPE_CHECKING:\n    from house import c",
        "house.c": "import house.d",
        "house.d": "import numpy",
    }
    TopologicalSorter(graph(sources)).prepare()
    with pytest.raises(CycleError):
        TopologicalSorter(graph(sources | {"house.d": "from house.a import f"})).prepare()


FRAMEWORKS = {"torch", "jax", "tinygrad", "jaxlib", "flax", "equinox", "optax"}


def said(source, but=()):
    """The words of a program's names and texts, comments and docstrings aside, outside the assignments to names in ``but``."""
    ahead = [ast.parse(source)]
    while ahead:
        node = ahead.pop()
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id in but for t in node.targets):
            continue
        for _, value in ast.iter_fields(node):
            if isinstance(value, str):
                yield from re.findall("[a-z]+", value.lower())
        ahead += ast.iter_child_nodes(node)


def test_the_core_names_no_framework():
    """A backend speaks for itself; only the order in which one is looked for is the core's."""
    for name, path in modules().items():
        # Other programs' files name frameworks, which reading and writing them has to.
        if name.partition(".")[0] == "cmcore" and not name.startswith("cmcore.interchange"):
            order = ("PREFERENCE",) if name == "cmcore.backend.registry" else ()
            assert not FRAMEWORKS & set(said(path.read_text(), order)), name
    assert set(PREFERENCE) <= FRAMEWORKS | {"numpy"}


def test_what_is_said_is_found_wherever_it_hides():
    for code in (
        "import torch",
        "from torch.nn import x",
        "x.jax()",
        "f(optax=1)",
        "def flax_of(): pass",
        "x = f'{y} in TinyGrad'",
        "def f():\n    'Docs.'\n    return 'JAX'",
        "import a as equinox",
    ):
        assert FRAMEWORKS & set(said(code)), code
    assert not FRAMEWORKS & set(said('"""Of torch."""\nx = 1  # jax\n"""Of jax."""\nORDER = ("torch",)', {"ORDER"}))
