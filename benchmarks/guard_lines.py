"""How much of the mathematics is checks? The lines that look at what a function is given, of all lines of code.

    python benchmarks/guard_lines.py

Guards are the statements ``raise``, a condition whose whole body raises, calls of functions that check (named ``check_...``,
``_check_...`` or ``_require...``), such functions whole, and lines with ``isinstance`` or ``is_number``, each with all its lines; the line
``check_arguments(__name__)`` at the end of a module is one. Declared are the conditions and sentences that types state, ``Rule``,
``Condition``, ``OnHost``, ``Limit``, whether in a signature, at a dataclass's field or in the name of a type above them: they are no statements
of a formula, but they are lines, so they have a column of their own. An annotation in a signature, ``x: Samples``, is neither.
Code is every line that is neither blank, a comment nor a docstring. The mathematics is what DESIGN.md lists from paths to
oracles, and the times of samplers; what checks for all of them, `cmcore/_door.py`, `cmcore/_arrays.py` and `cmcore/_options.py`, is apart.
"""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

CORE = Path(__file__).resolve().parents[1] / "cmcore"
ROOMS = ("paths", "grids", "parametrization", "flow_maps", "tangents", "distances", "weightings", "losses", "sampling", "posterior", "noise_levels", "_normal", "_rows", "_times")  # fmt: skip
FOLDERS = ("solvers", "oracles")
CHECKS = ("check_", "_check_", "_require")
DECLARED = ("Rule", "Condition", "OnHost", "Limit")


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


def declared_lines(source: str) -> set[int]:
    """Return the numbers of the lines that state a condition of a type and its sentence, but for guards."""
    calls = (n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name))
    found = {line for n in calls if n.func.id in DECLARED for line in range(n.lineno, n.end_lineno + 1)}
    return (found & code_lines(source)) - guard_lines(source)


def _calls_a_check(node: ast.stmt) -> bool:
    """Whether a simple statement calls a function that checks."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.If | ast.For | ast.With | ast.Try | ast.While):
        return False
    calls = (n.func for n in ast.walk(node) if isinstance(n, ast.Call))
    names = (f.id if isinstance(f, ast.Name) else f.attr if isinstance(f, ast.Attribute) else "" for f in calls)
    return any(name.startswith(CHECKS) or name == "check" for name in names)


def count() -> dict[str, tuple[int, int, int]]:
    """Return the guards' lines, the declared ones and all lines of code of each file."""
    sources = {str(p.relative_to(CORE)): p.read_text() for p in files()}
    return {name: (len(guard_lines(s)), len(declared_lines(s)), len(code_lines(s))) for name, s in sources.items()}


def total() -> tuple[int, int, int]:
    """Return the sums of `count`."""
    guards, declared, code = (sum(column) for column in zip(*count().values(), strict=True))
    return guards, declared, code


def main() -> None:
    """Print a row for each file, and the sum."""
    print("| file | guards | declared | code | guards' share |\n|---|---|---|---|---|")
    for name, (guards, declared, code) in {**count(), "in all": total()}.items():
        print(f"| {name} | {guards} | {declared} | {code} | {guards / max(code, 1):.1%} |")


if __name__ == "__main__":
    main()
