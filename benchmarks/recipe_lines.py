"""What does a method cost to add? The lines of each recipe's own class, without docstrings and blank lines.

    python benchmarks/recipe_lines.py

"declares" counts its options, name, summary and citation; "computes" the bodies and heads of its methods. What several
recipes share, in parts, functions and the rest of the library, is not counted for any. "depth" is the longest way of inheritance
from `Recipe`, "refused" the number of options that the recipe has and leaves no choice of.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from statistics import median

from cmcore import recipes


def lines(node: ast.stmt) -> int:
    """Return how many lines of code a statement of a class has, docstrings apart."""
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
    return node.end_lineno - first + 1 - sum(_length(n) for n in ast.walk(node) if _is_docstring(n))


def count(name: str) -> tuple[int, int]:
    """Return the lines in which a recipe declares and computes."""
    source = textwrap.dedent(inspect.getsource(type(recipes.get(name))))
    body = [n for n in ast.parse(source).body[0].body if not _is_docstring(n)]
    computes = sum(lines(n) for n in body if isinstance(n, ast.FunctionDef))
    return sum(lines(n) for n in body) - computes, computes


def depth(cls: type, root: type) -> int:
    """Return how many steps of inheritance lie between a class and another above it, by the longest way."""
    return 1 + max((depth(base, root) for base in cls.__bases__ if issubclass(base, root)), default=-1)


NEAR = {"levels": 5, "s1": 200, "start": 32, "t_min": 0.003}
"""Other values where not any number will do."""


def refused(name: str) -> list[str]:
    """Return the options of a recipe of which it takes no other value than its own."""
    recipe, found = recipes.get(name), []
    for option in recipes.options_of(recipe).values():
        if option.name in ("optimizer", "average"):
            continue
        value = getattr(recipe, option.name)
        if option.choices:
            other = next(choice for choice in option.choices if choice != value)
        elif isinstance(value, bool):
            other = not value
        else:
            other = NEAR.get(option.name, value + 1 if isinstance(value, int) else 0.75 * value or 0.5e-3)
        # A teacher that is said to be on another path is said to predict something else, too.
        beside = {"teacher_predicts": "noise"} if option.name in ("teacher_path", "teacher_time_scale") else {}
        try:
            recipes.get(name, **beside | {option.name: other})
        except ValueError:
            found.append(option.name)
    return found


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _length(node: ast.Expr) -> int:
    return node.end_lineno - node.lineno + 1


def main() -> None:
    """Print a row for each recipe, and the medians."""
    rows = {name: count(name) for name in recipes.names()}
    print("| recipe | declares | computes | in all | depth | refused |\n|---|---|---|---|---|---|")
    for name, (declares, computes) in rows.items():
        own = depth(type(recipes.get(name)), recipes.Recipe), len(refused(name))
        print(f"| {name} | {declares} | {computes} | {declares + computes} | {own[0]} | {own[1]} |")
    declares, computes = (median(column) for column in zip(*rows.values(), strict=True))
    print(f"| median | {declares:g} | {computes:g} | {median(a + b for a, b in rows.values()):g} | | |")


if __name__ == "__main__":
    main()
