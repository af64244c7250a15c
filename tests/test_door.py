"""What a signature says is checked before its formula is called, once, and nothing else about the function changes."""

from __future__ import annotations

import inspect
import pickle
from typing import Annotated, Any, Literal

import numpy as np
import pytest

import cmcore as cm
from cmcore import paths
from cmcore._annotations import Called, Condition, Converted, Counts, Function, OnHost, Rule, Together
from cmcore._door import checked
from cmcore.options import POSITIVE
from cmcore.types import Elements, OwnTime, Samples, Time, TimePair

X = np.ones((3, 2))


def moved(
    x: Samples,
    t: OwnTime,
    y: Annotated[Samples, Together("Both")] = X,
    h: Annotated[float, Called("The step"), POSITIVE] | None = None,
    word: Literal["one", "two", "three"] = "one",
) -> tuple[Any, ...]:
    return x, t, y, h, word


def compared(
    low: float,
    high: Annotated[float, Rule(lambda low, high: low < high, "low must be below high, got {low} and {high}.")],
) -> tuple[float, float]:
    return low, high


def told(call: Any) -> str:
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    return f"{caught.type.__name__}: {caught.value}"


def test_the_formula_has_its_times_as_arrays_and_all_else_as_it_was_given():
    f = checked(moved)
    for x, t, y, h, word in (f(X, 2.0), f(X, t=np.asarray(2.0)), f(t=np.full(3, 2.0), x=X), f(X, 2, X, None, "one")):
        assert x is X
        assert y is X
        assert (h, word) == (None, "one")
        np.testing.assert_array_equal(t, [2.0, 2.0, 2.0])


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda f: f(1.5, 2.0), "TypeError: Expected an array, got builtins.float."),
        (lambda f: f(np.ones(()), 2.0), "ValueError: x must be a batch, of shape (B, ...), got a single number."),
        (lambda f: f(X, -1.0), "ValueError: t must be a finite time of at least 0, got -1.0."),
        (lambda f: f(X, 1.0, X[:2]), "ValueError: Both must have the same shape, got (3, 2) and (2, 2)."),
        (lambda f: f(X, 1.0, h=0.0), "ValueError: The step must be positive, got 0.0."),
        (lambda f: f(X, 1.0, h="0"), "TypeError: The step must be a number, got '0'."),
        (lambda f: f(X, 1.0, word="four"), "ValueError: The word must be \"one\", \"two\" or \"three\", got 'four'."),
        # Python's own, of the formula by its name.
        (lambda f: f(X), "TypeError: moved() missing 1 required positional argument: 't'"),
        (lambda f: f(X, 1.0, x=X), "TypeError: moved() got multiple values for argument 'x'"),
        (lambda f: f(X, 1.0, X, None, "one", 6), "TypeError: moved() takes from 2 to 5 positional arguments but 6 were given"),
        (lambda f: f(X, 1.0, z=X), "TypeError: moved() got an unexpected keyword argument 'z'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told(call, sentence):
    assert told(lambda: call(checked(moved))) == sentence


def test_numbers_are_compared_and_arrays_are_not_looked_at():
    f = checked(compared)
    assert f(1.0, high=2.0) == (1.0, 2.0)
    assert told(lambda: f(2.0, 1.0)) == "ValueError: low must be below high, got 2.0 and 1.0."

    def of_any(low: Elements, high: Annotated[Elements, Rule(lambda low, high: low < high, "never")]) -> None: ...

    checked(of_any)(np.asarray(2.0), np.asarray(1.0))


def test_any_number_of_arguments_and_keywords_of_others_pass():
    def f(x: Samples, *more: Samples, **cond: Any) -> Any:
        return x, more, cond

    x, more, cond = checked(f)(X, X, X, label=1)
    assert x is X
    assert [m is X for m in more] == [True, True]
    assert cond == {"label": 1}
    assert "must have the same shape" in told(lambda: checked(f)(X, X[:1]))


def test_a_function_of_the_users_gives_what_is_like_its_input():
    def f(net: Annotated[Any, Function("The network", "The network")], x: Samples) -> Any:
        return net(x, 1, k=2)

    assert checked(f)(lambda x, t, k: x + t + k, X)[0, 0] == 4.0
    assert (
        told(lambda: checked(f)(None, X))
        == "TypeError: The network must be a function, got an object of type NoneType."
    )
    assert "The network returned shape (1, 2)" in told(lambda: checked(f)(lambda x, t, k: x[:1], X))


def test_what_is_on_the_host_and_what_is_converted():
    def f(
        data: Annotated[Any, OnHost(lambda data: data.ndim == 1, "data must be a row, got shape {data.shape}.")],
        kind: Annotated[
            Any, Condition(lambda kind: isinstance(kind, type), "kind must be a class, got {kind!r}.", TypeError)
        ],
        total: Annotated[Any, Converted(lambda data, total: total + len(data))],
        counts: Annotated[Any, Counts("A count")] = (),
        pair: TimePair | None = None,
    ) -> Any:
        return data, kind, total, counts, pair

    assert checked(f)((1, 2), int, 1, iter([3])) == ((1, 2), int, 3, [3], None)
    assert told(lambda: checked(f)([[1.0]], int, 1)) == "ValueError: data must be a row, got shape (1, 1)."
    assert told(lambda: checked(f)([1.0], 3, 1)) == "TypeError: kind must be a class, got 3."
    assert (
        told(lambda: checked(f)([1.0], int, 1, [-1]))
        == "ValueError: A count must be a whole number, 0 or more, got -1."
    )
    assert "pair must be a cmcore.types.TimePair(t, r, gap), got int" in told(lambda: checked(f)([1.0], int, 1, (), 3))
    assert "pair.gap" in told(lambda: checked(f)([1.0], int, 1, (), TimePair(X[:, 0], X[:, 0], np.arange(3))))


def test_a_function_that_says_nothing_is_left_alone():
    def f(x, y: bool = False, z: Any = None) -> None: ...

    assert checked(f) is f


def test_a_time_of_no_samples_is_a_mistake():
    def f(t: Time) -> None: ...

    with pytest.raises(TypeError, match="no parameter before it is a batch"):
        checked(f)


def test_checked_functions_are_still_theirs():
    assert inspect.signature(cm.sampling.onestep).parameters["t_max"].default == 80.0
    assert pickle.loads(pickle.dumps(cm.losses.denoising)) is cm.losses.denoising
    assert cm.distances.l1.__doc__.startswith("Return the mean absolute")
    assert "sigma_data" in inspect.signature(paths.Trigonometric).parameters


@pytest.mark.parametrize(
    "room", [cm.paths, cm.grids, cm.parametrization, cm.flow_maps, cm.tangents, cm.distances, cm.weightings, cm.losses, cm.sampling, cm.posterior, cm.noise_levels]
)  # fmt: skip
def test_every_module_of_formulas_is_checked(room):
    """Each public function that says something of a parameter is the one that checks."""
    for name, f in vars(room).items():
        if inspect.isfunction(f) and f.__module__ == room.__name__ and not name.startswith("_"):
            assert checked(inspect.unwrap(f)) is f or hasattr(f, "__wrapped__"), name
