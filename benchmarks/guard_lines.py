"""How much of the mathematics is checks? The lines that look at what a function is given, of all lines of code.

    python benchmarks/guard_lines.py

Counted as guards are the statements ``raise``, a condition whose whole body raises, calls of functions that only check (named
``check_...``, ``_check_...`` or ``_require...``) and lines with ``isinstance`` or ``is_number``, each with all its lines. Code is every line
that is neither blank, a comment nor a docstring. The mathematics is what DESIGN.md lists from paths to oracles; the functions that
check, `cmcore/_arrays.py` and `cmcore/_options.py`, are apart.
"""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

CORE = Path(__file__).resolve().parents[1] / "cmcore"
ROOMS = ("paths", "grids", "parametrization", "flow_maps", "tangents", "distances", "weightings", "losses", "sampling", "posterior", "_normal", "_rows")  # fmt: skip
FOLDERS = ("solvers", "oracles")
CHECKS = ("check_", "_check_", "_require")


def files() -> list[Path]:
    """Return the files of the mathematics."""
    return [CORE / f"{room}.py" for room in ROOMS] + [p for f in FOLDERS for p in sorted((CORE / f).glob("*.py"))]


def code_lines(source: str) -> set[int]:
    """Return the numbers of the lines that hold code."""
    blank = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    lines = {n for t in tokens if t.type not in blank for n in range(t.start[0], t.end[0] + 1)}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines -= set(range(node.lineno, node.end_lineno + 1))
    return lines


def guard_lines(source: str) -> set[int]:
    """Return the numbers of the lines that check."""
    found: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Raise) or (isinstance(node, ast.stmt) and _calls_a_check(node)):
            found |= set(range(node.lineno, node.end_lineno + 1))
        elif isinstance(node, ast.If) and all(isinstance(n, ast.Raise) for n in node.body) and not node.orelse:
            found |= set(range(node.lineno, node.end_lineno + 1))
        elif isinstance(node, ast.FunctionDef) and node.name.startswith(CHECKS):
            found |= set(range(node.lineno, node.end_lineno + 1))
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("isinstance", "is_number")
        ):
            found.add(node.lineno)
    return found & code_lines(source)


def _calls_a_check(node: ast.stmt) -> bool:
    """Whether a simple statement calls a function that checks."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.If | ast.For | ast.With | ast.Try | ast.While):
        return False
    calls = (n.func for n in ast.walk(node) if isinstance(n, ast.Call))
    names = (f.id if isinstance(f, ast.Name) else f.attr if isinstance(f, ast.Attribute) else "" for f in calls)
    return any(name.startswith(CHECKS) or name == "check" for name in names)


def count() -> dict[str, tuple[int, int]]:
    """Return the guards' lines and all lines of code of each file."""
    sources = {str(p.relative_to(CORE)): p.read_text() for p in files()}
    return {name: (len(guard_lines(s)), len(code_lines(s))) for name, s in sources.items()}


def main() -> None:
    """Print a row for each file, and the sum."""
    rows = count()
    print("| file | guards | code | share |\n|---|---|---|---|")
    for name, (guards, code) in {**rows, "in all": tuple(map(sum, zip(*rows.values(), strict=True)))}.items():
        print(f"| {name} | {guards} | {code} | {guards / max(code, 1):.1%} |")


if __name__ == "__main__":
    main()
