"""What methods there are, what each needs, and its options, as they are declared."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cmcore import recipes
from cmcore.options import Option
from cmcore.recipes import Recipe, options_of
from cmcore.run.network_settings import expected, written
from cmcore.run.report import either, table

HEAD = ("option", "default", "takes", "meaning")


def every() -> list[str]:
    """Return the table of all methods with a line each."""
    rows = [(name, recipes.get(name).summary) for name in recipes.names()]
    return [table(("recipe", "what for"), rows), "", "A recipe's needs and options: cmcore recipes NAME."]


def one(name: str) -> list[str]:
    """Return what there is to say of a method: what it needs, its options, its paper; `ValueError` if there is none."""
    recipe = recipes.get(name)
    return [
        f"{name}: {recipe.summary}",
        f"Needs {needs(recipe)}.",
        "",
        table(HEAD, rows(recipe)),
        "",
        f"To choose others: --recipe {name} --set OPTION=VALUE.",
        "",
        recipes.cite(name).strip(),
    ]


def needs(recipe: Recipe) -> str:
    """Return in words what a method needs: a teacher, derivatives, a network of two times."""
    found = []
    if recipe.needs_teacher:
        found.append(f"a teacher (--teacher), a run of {either(recipe.teachers)}")
    if recipe.needs_jvp:
        found.append("a Jacobian-vector product of the network in each step")
    if recipe.two_times:
        found.append("a network that is told two times, which the program sees to")
    return "; ".join(found) or "data alone"


def rows(recipe: Recipe) -> list[tuple[str, str, str, str]]:
    """Return a row for each option: the method's, its optimiser's, its average's."""
    own = [o for o in options_of(recipe).values() if o.name not in ("optimizer", "average")]
    parts = [*options_of(recipe.optimizer).values(), *options_of(recipe.average).values()]
    return [*_rows(own, recipes.by_name(recipe)), *_rows(parts, recipes.by_name(recipe))]


def _rows(options: Iterable[Option], values: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    return [(o.name, written(values[o.name]), _takes(o), o.help) for o in options]


def _takes(option: Option) -> str:
    if option.choices:
        return either(option.choices) + (", in Python a function" if option.functions else "")
    kind = expected(type(option.default))
    return f"{kind}, {option.limit.words.partition(':')[0]}" if option.limit else kind


def to_markdown() -> str:
    """Return docs/recipes.md: every method with its options."""
    lines = [
        "# Recipes and their options",
        "",
        "Made by `cmcore recipes --markdown`, from the declarations. Options are given as `--set OPTION=VALUE`, or as keywords of",
        "`cmcore.recipes.get`; docs/methods.md tells what the methods are.",
    ]
    for name in recipes.names():
        recipe = recipes.get(name)
        lines += ["", f"## {name}", "", f"{recipe.summary} Needs {needs(recipe)}.", ""]
        lines += [_line(HEAD), _line(["---"] * len(HEAD)), *map(_line, rows(recipe))]
    return "\n".join(lines) + "\n"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
