"""What the conformance kit calls of a namespace, held against what the core calls, both read from their source."""

import ast
from pathlib import Path

import cmcore
from cmcore.testing import arrays

CORE = Path(cmcore.__file__).parent
GIVE_A_NAMESPACE = {"namespace", "functions", "check_real", "check_state"}


def is_namespace(node):
    """Whether an expression is the namespace of an array, as far as its source tells."""
    if isinstance(node, ast.Call):
        return called(node) in GIVE_A_NAMESPACE
    return isinstance(node, ast.Name) and node.id == "xp"


def called(node):
    return getattr(node.func, "id", None) or getattr(node.func, "attr", None)


def uses(source):
    """The names that are taken of a namespace, each with the keywords that it is called with, or None if it is not called."""
    tree = ast.parse(source)
    functions = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_namespace(node.value):
            call = functions.get(id(node))
            yield node.attr, call and frozenset(keyword.arg for keyword in call.keywords)


def unknown(source, known):
    """What a source takes of a namespace and ``known`` does not, or not with these keywords."""
    names = {name for name, _ in known}
    for name, keywords in uses(source):
        if name not in names or (keywords is not None and (name, keywords) not in known):
            yield name, sorted(keywords or ())


def core():
    return {path: path.read_text() for path in sorted(CORE.rglob("*.py")) if CORE / "testing" not in path.parents}


KNOWN = set(uses(Path(arrays.__file__).read_text()))


def test_the_kit_calls_all_that_the_core_calls_with_its_keywords():
    found = {str(path.relative_to(CORE)): sorted(unknown(source, KNOWN)) for path, source in core().items()}
    assert {path: what for path, what in found.items() if what} == {}
    assert {"asarray", "tan", "where"} <= {name for source in core().values() for name, _ in uses(source)}


def test_what_the_kit_lacks_is_found():
    for code in (
        "xp.cumulative_prod(x)",
        "namespace(x).sort(x)",
        "backend.namespace(x, y).sort(x)",
        "check_real(t, 't').sort",
        "xp.full(shape, 1.0, dtype=x.dtype)",
        "xp.concat(parts)",
    ):
        assert list(unknown(code, KNOWN)), code
    assert not list(unknown("xp.concat(parts, axis=0); namespace(x).full_like(x, 1.0); f(xp.sqrt)", KNOWN))


def test_a_namespace_has_no_other_name_in_the_core():
    """Or the tests above would not see what is called of it."""
    for path, source in core().items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Assign):
                pairs = [(t, node.value) for t in node.targets]
                if isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple):
                    pairs = list(zip(node.targets[0].elts, node.value.elts, strict=True))
                for target, value in pairs:
                    if isinstance(value, ast.Call) and is_namespace(value):
                        assert getattr(target, "id", None) == "xp", f"{path}:{node.lineno}"
