"""What a docstring names in single backticks is there, by that name."""

import ast
import builtins
import importlib
import re
from pathlib import Path

import pytest

import cmcore

ROOT = Path(cmcore.__file__).parent
NAMED = re.compile(r"(?<!`)`([A-Za-z_][\w.]*)`(?!`)")


def references(tree):
    """Each name, with the classes and functions that it is in and the arguments of the innermost."""

    def visit(node, inside):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            arguments = node.args if isinstance(node, ast.FunctionDef) else None
            known = {a.arg for a in (*arguments.args, *arguments.kwonlyargs)} if arguments else set()
            own = (*inside, node.name) if isinstance(node, ast.ClassDef) else inside
            for name in NAMED.findall(ast.get_docstring(node, clean=False) or ""):
                yield name, own, known
            inside = inside if isinstance(node, ast.Module) else (*inside, node.name)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside)

    return visit(tree, ())


def there(start, parts):
    """Whether attributes, fields or modules of these names lead on from an object."""
    for part in parts:
        if not hasattr(start, part):
            if part in {**getattr(start, "__annotations__", {}), **getattr(start, "__dataclass_fields__", {})}:
                return True
            try:
                start = importlib.import_module(f"{start.__name__}.{part}")
            except (ImportError, AttributeError):
                return False
        else:
            start = getattr(start, part)
    return True


def resolves(name, module, inside, arguments):
    parts = name.split(".")
    if parts[0] in arguments or hasattr(builtins, parts[0]) or name in cmcore.recipes.names():
        return True
    places = [module, cmcore]
    for outer in inside:
        if not hasattr(places[-1] if places[-1] is not cmcore else module, outer):
            break
        places.append(getattr(places[-1] if places[-1] is not cmcore else module, outer))
    if any(there(place, parts) for place in places):
        return True
    try:
        return there(importlib.import_module(parts[0]), parts[1:])
    except ImportError:
        return False


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_what_docstrings_name_is_there(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    if parts[-1] == "__main__":
        return
    module = importlib.import_module(".".join(parts).removesuffix(".__init__"))
    found = references(ast.parse(path.read_text(encoding="utf-8")))
    assert not [name for name, inside, arguments in found if not resolves(name, module, inside, arguments)]
