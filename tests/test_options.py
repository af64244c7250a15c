"""Options say what they are where they are declared, and everything that lists them reads it there."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import cmcore as cm
from cmcore import recipes
from cmcore.options import POSITIVE, option, options_of
from cmcore.recipes import NoiseLevel
from cmcore.run import methods
from cmcore.run.cli import main


@pytest.mark.parametrize("name", recipes.names())
def test_every_option_has_a_line_of_help_and_every_text_its_choices(name):
    recipe = recipes.get(name)
    for part in (recipe, recipe.optimizer, recipe.average):
        for declared in options_of(part).values():
            if declared.name not in ("optimizer", "average"):
                assert declared.help, declared.name
                assert bool(declared.choices) == isinstance(declared.default, str), declared.name


class Own(NoiseLevel):
    name, summary, citation = "own", "One's own.", "nobody"

    def pair(self, draws, scalars):
        raise NotImplementedError

    def per_sample(self, nets, batch, times):
        raise NotImplementedError


def test_an_own_option_meets_no_rule_of_ours():
    @dataclass(frozen=True)
    class Plain(Own):
        n: int = 1
        c: float = -3.0
        gamma: float = 17.0
        power: float = -1.0

    assert (Plain().n, Plain().gamma) == (1, 17.0)
    assert options_of(Plain)["n"].help == ""


def test_a_new_default_takes_nothing_back():
    @dataclass(frozen=True)
    class Declared(Own):
        share: float = option(0.5, "a share", POSITIVE)
        way: str = option("a", "a way", ("a", "b"))

    @dataclass(frozen=True)
    class Derived(Declared):
        share: float = 0.25
        way: str = "b"

    said = options_of(Derived)
    assert (said["share"].default, said["share"].help, said["share"].limit) == (0.25, "a share", POSITIVE)
    assert (said["way"].default, said["way"].choices) == ("b", ("a", "b"))
    with pytest.raises(ValueError, match=r"share must be positive, got 0\."):
        Derived(share=0)
    with pytest.raises(ValueError, match="Unknown way 'c'; choose one of a, b"):
        replace(Derived(), way="c")


def test_the_page_of_recipes_is_that_of_the_declarations():
    page = Path(__file__).parent.parent / "docs" / "recipes.md"
    assert page.read_text() == methods.to_markdown(), "write it anew: cmcore recipes --markdown > docs/recipes.md"


def test_the_program_lists_methods_and_options(capsys):
    assert main(["recipes"]) == 0
    listed = capsys.readouterr().out
    assert all(f"\n{name} " in listed for name in recipes.names())
    assert main(["recipes", "cd"]) == 0
    told = capsys.readouterr().out
    assert "Needs a teacher (--teacher), a run of edm." in told
    assert re.search(r"n +18 +a whole number, 2 or more, the ends of the grid +points of the Karras grid", told)
    assert cm.recipes.cite("cd").splitlines()[0] in told
    assert main(["recipes", "cdd"]) == 2
    assert "no recipe named 'cdd'" in capsys.readouterr().err
