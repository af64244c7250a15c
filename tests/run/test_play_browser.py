"""The page to play with in a browser: the walk of benchmarks/browser.py. Skipped where there is no Chromium."""

import chromium
import pytest
from browser import walk
from test_edit import make_model
from test_play import desk, serving

pytestmark = pytest.mark.skipif(
    chromium.PROGRAM is None, reason="no Chromium is installed (Debian: apt install chromium)"
)


@pytest.fixture(scope="module")
def seen():
    with serving(desk(make_model(shape=(3, 8, 8), classes=2), make_model("sct", (3, 8, 8), classes=2))) as address:
        with chromium.browser() as started:
            yield walk(started, f"http://{address}/")


def test_nothing_is_asked_for_of_any_other_address_and_nothing_fails(seen):
    assert seen["foreign"] == []
    assert seen["complaints"] == []


def test_samples_their_class_and_their_evaluations(seen):
    assert len(seen["first"]) == 18
    assert len(set(seen["first"])) == 18
    assert len(set(seen["labelled"])) == 8
    assert seen["evaluation"] == "after evaluation 1 of 2, t = 80"
    # The slider is that of the first run's card.
    assert not set(seen["evaluated"][:4]) & set(seen["labelled"])
    assert seen["evaluated"][4:] == seen["labelled"][4:]
    assert all(took.endswith((" ms", " s")) for took in seen["took"])
    assert seen["taken"] == 1


def test_a_mask_and_a_stroke_are_edited_at_once(seen):
    assert 2 <= seen["masked"] < 64
    assert seen["kept"]
    assert len(set(seen["inpainted"])) == len(set(seen["stroked"])) == 8
    assert seen["painted"]
    assert seen["cleared"]


def test_a_wrong_upload_is_a_sentence_in_the_page(seen):
    assert seen["problem"] == "The file is no picture of a kind that can be read, such as a PNG or a JPEG."


def test_the_slider_leads_from_one_seed_to_the_other(seen):
    assert len(set(seen["between"])) == 3
    assert [seen["between"][0], seen["between"][2]] == seen["ends"][:2]


def test_the_keyboard_is_enough(seen):
    assert seen["keyboard"] == {"opened": True, "on": "board", "made": 8}


def test_two_tabs_do_not_mix(seen):
    first, second, first_alone, second_alone = seen["tabs"]
    assert (first, second) == (first_alone, second_alone)
    assert not set(first) & set(second)


def test_a_phone_and_the_dark(seen):
    for name in ("phone", "phone-dark", "dark"):
        assert seen[name]["sample"]
        assert seen[name]["edit"]
    assert seen["phone"]["background"] == "rgb(247, 247, 245)"
    assert seen["phone-dark"]["background"] == seen["dark"]["background"] == "rgb(16, 18, 20)"
