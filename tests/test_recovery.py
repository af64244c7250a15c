"""Every recipe, trained in seconds on a law whose exact consistency function is known, reaches the right answer.

The runs are those of `benchmarks/recovery.py`, most of them half as long or less, on half the batch. On one backend, for the
losses are the same on all of them (`tests/cross_backend`). The bounds leave room for the spread of short runs, about 0.01 in
the smaller mode's share; what a broken formula does is far outside them: a teacher followed the wrong way or a tangent of the
wrong sign is off by the width of the law.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import recovery
from conftest import TRAINABLE

import cmcore as cm

SHORT = {"gaussian": recovery.Size(steps=1500, batch=256), "mixture": recovery.Size(steps=2000, batch=256)}
OTHER = {
    "cmt": {"batch": 64},
    "cd-continuous": {"batch": 512},
    "ct-continuous": {"steps": 2000, "batch": 2048},
    "meanflow": {"steps": 3000, "batch": 512},
    "imm": {"batch": 512},
    "lsd": {"batch": 512},
}
"""Smaller batches where each sample is a whole trajectory; longer runs or larger batches where targets vary most."""


@dataclass(frozen=True)
class Answer:
    """What a recipe makes of equally likely noise, and where the ODE takes it, each (POINTS,)."""

    found: np.ndarray
    exact: np.ndarray

    @property
    def error(self) -> float:
        return float(np.sqrt(np.mean((self.found - self.exact) ** 2)))

    @property
    def share(self) -> float:
        """The share of the mode above 0, of which the law has 0.2."""
        return float(np.mean(self.found > 0))


@pytest.fixture(scope="module")
def trained() -> Any:
    """A function from a recipe's name and a law's to the answer, on JAX where it takes part: it compiles soonest."""
    if not TRAINABLE:
        pytest.skip("Recovery is a matter of training, and no backend that can train takes part.")
    backend = cm.load("jax" if "jax" in TRAINABLE else TRAINABLE[0])

    def answer(name: str, law: str, **changed: Any) -> Answer:
        size = replace(SHORT[law], **OTHER.get(name, {}))
        recipe, net = recovery.train(backend, name, law, size, **changed)
        z, x = recovery.one_step(backend, recipe, net)
        return Answer(x[:, 0], recovery.exact(recipe, recovery.LAWS[law], z)[:, 0])

    return answer


@pytest.mark.parametrize("name", cm.recipes.names())
def test_the_smaller_mode_keeps_its_share(trained, name):
    answer = trained(name, "mixture")
    assert abs(answer.share - 0.2) < 0.04
    assert answer.error < 0.35


# With a derivative and without: the test above has all of them, and asks for more than this one does.
@pytest.mark.parametrize("name", ["cd", "scd"])
def test_the_gaussian_is_recovered(trained, name):
    assert trained(name, "gaussian").error < 0.15


@pytest.mark.parametrize("teacher", ["vp", "linear"])
def test_teachers_on_other_paths_are_distilled_as_well(trained, teacher):
    """A predictor of the noise on VP and one of the velocity on the straight path, to the bounds of the first test above."""
    answer = trained("cd", "mixture", **recovery.TEACHERS[teacher])
    assert answer.error < 0.35
    assert abs(answer.share - 0.2) < 0.04


@pytest.mark.parametrize(
    ("name", "robust"),
    [("ict", {"distance": "pseudo_huber"}), ("meanflow", {"power": 0.75}), ("imf", {"power": 0.75})],
    ids=["ict", "meanflow", "imf"],
)
def test_robust_forms_lose_the_smaller_mode(trained, name, robust):
    """Where the target is random, a robust distance leads to a median: the other side of the tests above."""
    assert trained(name, "mixture", **robust).share < 0.12
