"""The networks' settings: what their options add, and what stays as it is without them."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

from cmcore.networks import ResidualConv, ResidualMLP, check_weights, extend_weights, from_config, generic, to_config

PLAIN = [
    ResidualMLP((3,), width=8, blocks=1, classes=4, features=6),
    ResidualConv((1, 4, 4), width=4, multipliers=(1, 2), blocks=1, groups=2, features=6),
]
plain = pytest.mark.parametrize("architecture", PLAIN, ids=["mlp", "conv"])


@plain
def test_the_options_add_layers_and_change_no_other(architecture):
    full = replace(architecture, two_times=True, log_weight=True)
    before, after = architecture.init(3), full.init(3)
    width = architecture.width * (4 if isinstance(architecture, ResidualConv) else 1)
    assert {name: full.layout()[name] for name in after.keys() - before.keys()} == {
        "end_in.weight": (width, 6),
        "end_in.bias": (width,),
        "end_out.weight": (width, width),
        "end_out.bias": (width,),
        "log_weight.weight": (1, 12),
        "log_weight.bias": (1,),
    }
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert {name for name in after.keys() - before.keys() if after[name].any()} == {"end_in.weight"}
    assert replace(architecture, log_weight=True).layout()["log_weight.weight"] == (1, 6)


def test_without_options_initial_values_and_settings_are_those_of_old_runs():
    digest = hashlib.sha256()
    for name, value in sorted(PLAIN[0].init(5).items()):
        digest.update(name.encode() + value.tobytes())
    assert digest.hexdigest()[:16] == "0f9ab524a05d3f73"
    settings = (
        '{"kind": "mlp", "shape": [3], "width": 8, "blocks": 1, "classes": 4, "features": 6, "max_frequency": 16.0}'
    )
    assert json.dumps(to_config(PLAIN[0])) == settings
    assert from_config(json.loads(settings)) == PLAIN[0]


@plain
def test_settings_keep_the_options(architecture):
    full = replace(architecture, two_times=True, log_weight=True)
    assert from_config(json.loads(json.dumps(to_config(full)))) == full


@plain
def test_weights_grow_by_the_options_only(architecture):
    full, given = replace(architecture, two_times=True, log_weight=True), architecture.init(1)
    complete = extend_weights(given, full, seed=2)
    check_weights(full, complete)
    assert all(complete[name] is given[name] for name in given)
    assert np.array_equal(complete["end_in.weight"], full.init(2)["end_in.weight"])
    assert not np.array_equal(complete["end_in.weight"], full.init(1)["end_in.weight"])
    trained = complete | {"log_weight.bias": np.ones(1, np.float32)}
    assert extend_weights(trained, full)["log_weight.bias"] == 1
    assert extend_weights(given, architecture).keys() == given.keys()
    with pytest.raises(ValueError, match=r"lack 'head\.bias'"):
        extend_weights({name: w for name, w in given.items() if name != "head.bias"}, full)
    with pytest.raises(ValueError, match=r"no weight named 'end_in\.bias' and 5 more"):
        extend_weights(complete, architecture)


@plain
def test_a_generic_network_with_other_weights_leaves_the_one_given_alone(architecture):
    first, second = architecture.init(1), architecture.init(2)
    net = generic.build(architecture, first, np.asarray)
    other = generic.with_weights(net, second)
    assert type(other) is type(net)
    assert all(generic.weights_of(net)[name] is first[name] for name in first)
    assert all(generic.weights_of(other)[name] is second[name] for name in second)
    assert generic.weights_of(other).keys() == second.keys()
