"""Runs of earlier versions: options that their methods left no choice of, and random numbers that had no names."""

import json

import pytest
from conftest import TRAINABLE
from test_train import Notes, make_config, same_weights
from toy import make_data

import cmcore as cm
from cmcore.model import recipe_from_json, recipe_to_json
from cmcore.run.train import train

FIRST = TRAINABLE[0] if TRAINABLE else ""
DATA = make_data((3,))
# What they wrote beside the options that there are.
REFUSED = {
    "psd": {"t_min": 0.002, "t_max": 80.0, "distance": "squared_l2", "weighting": "uniform"},
    "ect": {"t_min": 0.002},
    "tcm": {"t_min": 0.002, "mean": -1.1, "std": 2.0, "stages": 8},
    "sct": {"t_min": 0.002, "distance": "squared_l2", "weighting": "uniform"},
    "ctm": {"distance": "squared_l2"},
    "cmt": {"weighting": "uniform", "learned_weight": False},
}


@pytest.mark.parametrize("name", REFUSED)
def test_options_without_a_choice_are_read_and_no_others(name):
    recipe = cm.recipes.get(name, sigma_data=0.4)
    settings = recipe_to_json(recipe)
    assert not settings["options"].keys() & REFUSED[name].keys()
    assert recipe_from_json({"name": name, "options": settings["options"] | REFUSED[name]}) == recipe
    for option in REFUSED[name]:
        with pytest.raises(ValueError, match=f"has no option '{option}'"):
            recipe_from_json({"name": name, "options": settings["options"] | REFUSED[name] | {option: 0.123}})


def test_the_share_of_meanflow_that_was_counted_the_other_way_is_read():
    recipe = cm.recipes.get("meanflow", diagonal=0.375)
    settings = recipe_to_json(recipe)
    settings["options"]["different"] = 1.0 - settings["options"].pop("diagonal")
    assert recipe_from_json(settings) == recipe


def broken_off(recipe, folder, **options):
    """A run of three of five steps, as an earlier version left it."""
    config = make_config(FIRST, recipe=recipe, steps=5, save_every=1, network="mlp", options=options, compiled=False)
    with pytest.raises(KeyboardInterrupt):
        train(config, DATA, out=folder, progress=Notes(interrupt_after=3))
    record = json.loads((folder / "config.json").read_text())
    del record["plan"]["draws"]
    for written in (record["settings"]["options"], record["plan"]["recipe"]["options"]):
        if recipe == "meanflow" and "diagonal" in written:
            written["different"] = 1.0 - written.pop("diagonal")
    record["plan"]["recipe"]["options"] |= REFUSED.get(recipe, {})
    (folder / "config.json").write_text(json.dumps(record))
    return config


@pytest.mark.skipif(not TRAINABLE, reason="no backend that can train takes part")
@pytest.mark.parametrize(
    ("recipe", "options", "told"),
    [("meanflow", {"diagonal": 0.5}, 1), ("edm", {"label_dropout": 0.0}, 0), ("psd", {}, 0), ("ect", {}, 0)],
)
def test_a_run_whose_numbers_are_drawn_otherwise_goes_on_and_says_so_once(recipe, options, told, tmp_path):
    config, said = broken_off(recipe, tmp_path / "run", **options), Notes()
    resumed = train(config, DATA, out=tmp_path / "run", resume=True, progress=said)
    assert sum("draws its random numbers in another way" in note for note in said.notes) == told
    assert json.loads((tmp_path / "run" / "config.json").read_text())["plan"].get("draws") == (
        dict(resumed.recipe.draws) if told else None
    )
    if not told:
        assert same_weights(resumed, train(config, DATA))
