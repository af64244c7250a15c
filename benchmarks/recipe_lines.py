"""What does a method cost to add? The lines of each recipe's own class, without docstrings and blank lines.

    python benchmarks/recipe_lines.py

"declares" counts its options, name, summary and citation; "computes" the bodies and heads of its methods. What several
recipes share, in classes above them or in the rest of the library, is not counted for any.
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


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _length(node: ast.Expr) -> int:
    return node.end_lineno - node.lineno + 1


def main() -> None:
    """Print a row for each recipe, and the medians."""
    rows = {name: count(name) for name in recipes.names()}
    print("| recipe | declares | computes | in all |\n|---|---|---|---|")
    for name, (declares, computes) in rows.items():
        print(f"| {name} | {declares} | {computes} | {declares + computes} |")
    declares, computes = (median(column) for column in zip(*rows.values(), strict=True))
    print(f"| median | {declares:g} | {computes:g} | {median(a + b for a, b in rows.values()):g} |")


if __name__ == "__main__":
    main()
