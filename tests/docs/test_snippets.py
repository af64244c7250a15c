"""All that README.md, CONTRIBUTING.md and the pages of docs/ tell a reader to type is typed here, in a folder of its own for each page.

Commands of cmcore run in this process with what makes them quick (`reader.QUICK`), Python as it stands, the blocks of a page one after
the other. What a page needs otherwise it says in a comment (`pages`); what cannot be run is counted.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
from pages import PAGES, blocks
from reader import furnish, typed

import cmcore as cm

TYPED = [page for page in PAGES if any(not block.skip for block in blocks(page))]
SKIPPED = 6
"""How many blocks cannot be run; more of them need a reason to be raised."""


@pytest.fixture(scope="module")
def furnished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("furnished")
    furnish(folder)
    return folder


@pytest.mark.parametrize("page", TYPED)
def test_what_a_page_says_works(page, furnished, tmp_path, monkeypatch):
    for needed in ("torch", "sklearn"):
        pytest.importorskip(needed)
    folder = tmp_path / "folder"
    shutil.copytree(furnished, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    space = {"__name__": Path(page).stem, "np": np}
    with cm.using("torch"):
        for block in blocks(page):
            if block.skip:
                continue
            try:
                if block.language == "python":
                    exec(block.given, space)
                    exec(compile(block.typed(), f"{page}, from line {block.line},", "exec"), space)
                else:
                    for line in block.commands():
                        typed(line)
            except BaseException as error:
                error.add_note(f"{page}, line {block.line}")
                raise


def test_few_blocks_are_not_run_and_each_says_why():
    skipped = [block for page in PAGES for block in blocks(page) if block.skip]
    assert all(len(block.skip.split()) > 2 for block in skipped)
    assert len(skipped) <= SKIPPED, [(block.page, block.line, block.skip) for block in skipped]


def test_a_comment_is_of_the_block_that_follows():
    """A comment that no block follows would do nothing."""
    for page in PAGES:
        text = Path(__file__).parents[2].joinpath(page).read_text()
        comments = sum(text.count(f"<!-- {what}: ") for what in ("skip", "given", "run"))
        assert comments == sum(bool(block.skip or block.given or block.run) for block in blocks(page)), page
