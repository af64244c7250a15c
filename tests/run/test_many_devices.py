"""Several devices give the numbers of one; one process writes; whoever is lost ends the run by a sentence."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import TRAINABLE
from toy import make_data

from cmcore.errors import Error
from cmcore.run.augment import augmented, flipped
from cmcore.run.config import Config
from cmcore.run.launch import one_voice, rank, signed
from cmcore.run.train import resolved
from cmcore.workers import ALONE, Workers

MANY = Path(__file__).parents[2] / "benchmarks" / "many_devices.py"


def of(count, **settings):
    return [Workers(rank, count, count, **settings) for rank in range(count)]


@pytest.mark.parametrize("parts", [1, 3])
def test_the_workers_rows_make_up_each_part_of_a_batch(parts):
    rows = [worker.rows(24, parts).reshape(parts, -1) for worker in of(4)]
    assert {own.shape for own in rows} == {(parts, 24 // parts // 4)}
    # Part after part, worker after worker: nobody's order changes.
    np.testing.assert_array_equal(np.concatenate(rows, axis=1).reshape(-1), np.arange(24))
    np.testing.assert_array_equal(ALONE.rows(24, parts), np.arange(24))


def test_what_is_drawn_for_a_sample_depends_on_its_place_in_the_whole_batch():
    data = make_data(classes=3)
    x, labels = data.batch(1, 5, 12)
    turned, (bent, told) = flipped(x, 1, 5), augmented(x, 1, 5, 0.7)
    for worker in of(3):
        rows = worker.rows(12, 2)
        own, own_labels = data.batch(1, 5, 12, rows)
        np.testing.assert_array_equal(own, x[rows])
        np.testing.assert_array_equal(own_labels, labels[rows])
        np.testing.assert_array_equal(flipped(own, 1, 5, rows), turned[rows])
        own_bent, own_told = augmented(own, 1, 5, 0.7, rows)
        np.testing.assert_array_equal(own_bent, bent[rows])
        np.testing.assert_array_equal(own_told, told[rows])


def test_a_batch_that_cannot_be_divided_is_told_by_a_sentence():
    for worker in of(4):
        worker.check(24, 3)
        with pytest.raises(
            Error, match=r"A batch of 20 cannot be divided over 4 devices in 3 parts: .* 12, such as 24\."
        ):
            worker.check(20, 3)


def test_one_process_of_several_speaks(monkeypatch, capsys):
    with one_voice():
        print("heard")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "2")
    with one_voice():
        print("not heard")
        print("nor this", file=sys.stderr)
    assert capsys.readouterr() == ("heard\n", "")
    assert rank() == 2
    assert signed("It failed.") == "worker 2: It failed."
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert rank() == 0
    assert signed("It failed.") == "It failed."


@pytest.mark.skipif("torch" not in TRAINABLE, reason="torch takes no part")
def test_dropout_knows_which_samples_of_the_whole_batch_it_has():
    import torch
    from cmcore_torch.layers import Dropout

    from cmcore import networks

    key, h = torch.tensor(12345, dtype=torch.int32), torch.ones(24, 5)
    whole = Dropout(networks.Dropout(0.5))(h, key)
    twice = Dropout(networks.Dropout(0.5))(torch.cat([h, h]), key)
    for worker in of(3):
        drop, rows = Dropout(networks.Dropout(0.5)), worker.rows(24)
        drop.share = (int(rows[0]), len(rows), 24)
        assert torch.equal(drop(h[rows], key), whole[rows])
        # Several evaluations at once: each has the worker's samples.
        both = drop(torch.cat([h[rows], h[rows]]), key)
        assert torch.equal(both, torch.cat([twice[:24][rows], twice[24:][rows]]))


@pytest.mark.parametrize("name", TRAINABLE)
def test_devices_that_are_not_there_are_told_by_a_sentence(name, monkeypatch):
    if name == "tinygrad":  # a CPU is as many devices as are asked for, so that one has to be missing
        monkeypatch.setattr("cmcore_tinygrad.devices._opens", lambda device: device in ("CPU", "CPU:1"))
    for settings, said in (
        ({"devices": 512, "batch": 512}, "torchrun" if name == "torch" else "--devices 512 asks"),
        ({"shard": True}, "torchrun" if name == "torch" else "leave out --shard"),
    ):
        with pytest.raises(Error, match=said):
            resolved(Config(backend=name, device="cpu", **settings))
    assert resolved(Config(backend=name, device="cpu", devices=1))[0].devices == 1


# A target network of its own; derivatives along the path, in two parts. With one killed at last: the run goes on with one and with four.
@pytest.mark.parametrize(
    ("name", "recipes", "options"),
    [
        ("torch", ["ct", "meanflow"], ["--ways", "whole", "shard", "--kill"]),
        ("jax", ["meanflow"], ["--ways", "shard"]),
        ("tinygrad", ["ect"], ["--ways", "whole"]),
    ],
)
def test_two_devices_give_the_losses_and_weights_of_one(name, recipes, options):
    if name not in TRAINABLE:
        pytest.skip(f"{name} takes no part")
    command = [
        sys.executable,
        MANY,
        "--backend",
        name,
        "--steps",
        "6",
        "--devices",
        "2",
        "--recipes",
        *recipes,
        *options,
    ]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    ways = sum(way in options for way in ("whole", "shard"))
    assert sum(
        line.startswith(tuple(f"| {recipe} |" for recipe in recipes)) for line in done.stdout.splitlines()
    ) == ways * len(recipes)
    if "--kill" in options:
        assert "workers was lost. The state after step" in done.stderr
        assert done.stdout.count("gone on with") == 2
