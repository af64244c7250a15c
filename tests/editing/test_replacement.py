"""Algorithm 4 against its moments: it is affine for Gaussian data, so that unit noises give them exactly."""

import numpy as np
import pytest

from cmcore import editing
from cmcore.editing import Basis, Known, edit, stroke
from cmcore.grids import karras_host
from cmcore.oracles import Gaussian

EPS = 0.002
TURN = np.array([[0.6, -0.8], [0.8, 0.6]])


def law(correlation, std=0.5):
    return Gaussian(0.0, covariance=std**2 * np.array([[1.0, correlation], [correlation, 1.0]]))


def function(oracle):
    return lambda x, t: oracle.consistency(x, t, EPS)


def first_known(y, lib=None):
    made = (np.array([[y, 0.0]]), np.array([[1.0, 0.0]]))
    return Known(*made if lib is None else (lib.asarray(a, "float64") for a in made))


def moments(f, known, times, rounds=1, transform=None):
    """Mean and standard deviation of the unknown one of two coordinates, to rounding."""
    count = 2 * len(times) * rounds
    noises = np.eye(count).reshape(len(times) * rounds, 2, count).transpose(0, 2, 1)
    zero = np.zeros((1, 2))

    def run(drawn):
        return edit(f, known, drawn[0], times, lambda i: drawn[i + 1], EPS, rounds=rounds)

    mean = run([zero] * len(noises))
    spread = run(list(noises)) - mean
    if transform is not None:
        mean, spread = transform.forward(mean), transform.forward(spread)
    return mean[0, 1], np.sqrt((spread[:, 1] ** 2).sum())


@pytest.mark.spares_tinygrad
def test_each_step_is_the_papers(lib):
    """Line by line, in plain arithmetic."""
    rng = np.random.default_rng(0)
    z, a, b = rng.normal(size=(3, 4, 2))
    seen = []

    def f(x, t):
        seen.append((lib.to_numpy(x), lib.to_numpy(t)))
        return 0.5 * x

    drawn = [lib.asarray(n, "float64") for n in (z, a, b)]
    trace = []
    out = edit(
        f, first_known(0.3, lib), drawn[0], (80.0, 2.0, 0.5), lambda i: drawn[i + 1], EPS, lambda i, x: trace.append(i)
    )
    x = np.array([0.3, 0.0]) + 80.0 * z
    for i, (t, fresh) in enumerate([(80.0, None), (2.0, a), (0.5, b)]):
        if fresh is not None:
            x = x + np.sqrt(t**2 - EPS**2) * fresh
        assert np.abs(seen[i][0] - x).max() < 1e-13
        assert (seen[i][1] == t).all()
        x = 0.5 * x
        x[:, 0] = 0.3
    assert np.abs(lib.to_numpy(out) - x).max() < 1e-13
    assert (lib.to_numpy(out)[:, 0] == 0.3).all()
    assert trace == [0, 1, 2]


def test_rounds_repeat_each_time():
    seen = []
    edit(
        lambda x, t: seen.append(t[0]) or x,
        first_known(0.0),
        np.ones((1, 2)),
        (2.0, 1.0),
        lambda i: np.ones((1, 2)),
        rounds=3,
    )
    assert seen == [2.0, 2.0, 2.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("times", [(80.0,), (80.0, 3.0, 0.4), tuple(karras_host(20, 0.05, 80.0)[::-1])], ids=len)
def test_what_is_independent_is_drawn_exactly_whatever_the_times(times):
    """In a basis in which the known coordinate says nothing of the other."""
    stds = np.array([0.3, 0.6])
    oracle = Gaussian(0.0, covariance=TURN @ np.diag(stds**2) @ TURN.T)
    basis = Basis(TURN)
    known = Known(np.array([[0.4, 0.1]]), np.array([[1.0, 0.0]]), basis)
    mean, std = moments(function(oracle), known, times, transform=basis)
    assert abs(mean) < 1e-12
    assert std == pytest.approx(np.hypot(0.6, EPS), rel=5e-5)


@pytest.mark.parametrize("correlation", [0.5, 0.8, 0.95])
def test_what_is_correlated_is_biased_and_less_so_with_more_evaluations(correlation):
    """The error that the docstring tells of: 10 % and more of the standard deviation at 20 times, falling as 1 / N."""
    y, sigma = 0.5, 0.5 * np.sqrt(1 - correlation**2)

    def error(rounds, low):
        times = tuple(karras_host(20, low, 1.0)[::-1])
        mean, std = moments(function(law(correlation)), first_known(y), times, rounds)
        return max(abs(mean - correlation * y) / sigma, abs(std / sigma - 1))

    # The best of these grids for each number of evaluations, to be fair to the algorithm.
    grids = (0.02, 0.03, 0.05, 0.08, 0.1, 0.15, 0.2)
    once, often = (min(error(rounds, low) for low in grids) for rounds in (1, 5))
    assert 0.1 < once < 0.3
    assert often < once / 2.5


def test_the_stationary_mean_of_one_time_is_three_quarters_of_a_square_off():
    """``r (1 - 3 t^2 / 4)`` of y to leading order, for unit variances and correlation r."""
    t = 0.05
    for r in (0.5, 0.9):
        b = Gaussian(0.0, covariance=[[1.0, r], [r, 1.0]]).flow(np.eye(2), t, 0.0)
        assert b[0, 1] / (1 - b[1, 1]) == pytest.approx(r * (1 - 0.75 * t**2), rel=3e-4)


def test_strokes_start_from_the_guide(lib):
    z, a = np.random.default_rng(1).normal(size=(2, 3, 2))
    drawn = [lib.asarray(n, "float64") for n in (z, a)]
    guide = lib.asarray([[0.3, -0.2]], "float64")

    def call(**more):
        return lib.to_numpy(stroke(lambda x, t: 0.5 * x, guide, drawn[0], (5.0, 2.0), lambda i: drawn[1], EPS, **more))

    first = 0.5 * (np.array([0.3, -0.2]) + 5.0 * z)
    assert np.abs(call() - 0.5 * (first + np.sqrt(4 - EPS**2) * a)).max() < 1e-13
    assert (call(known=first_known(0.7, lib))[:, 0] == 0.7).all()


def test_the_papers_times():
    assert np.abs(np.array(editing.stroke_times()) - (5.38, 2.24)).max() < 5e-3
    assert editing.edit_times() == tuple(karras_host(40)[:0:-1])
    low, high = editing.stroke_times(0.01, 20.0)[::-1]
    assert np.isin([low, high], karras_host(40, 0.01, 20.0)).all()
    assert editing.edit_times(1) == (80.0,)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda n: edit(n, "known", np.ones((1, 2)), (1.0,), n), "must be a cmcore.editing.Known"),
        (lambda n: edit(n, first_known(0.0), np.ones((1, 3)), (1.0,), n), "reference's shape"),
        (lambda n: edit(n, first_known(0.0), np.ones((1, 2), np.float32), (1.0,), n), "dtype"),
        (lambda n: edit(n, first_known(0.0), np.ones((1, 2)), (1.0, 2.0), n), "must decrease"),
        (lambda n: edit(n, first_known(0.0), np.ones((1, 2)), (0.001,), n), "greater than t_min"),
        (lambda n: edit(n, first_known(0.0), np.ones((1, 2)), (1.0,), n, rounds=0), "rounds"),
        (lambda n: stroke(n, np.ones((2, 2)), np.ones((3, 2)), (1.0,), n), "guide's shape"),
    ],
)
def test_what_cannot_be_edited_is_told(call, match):
    with pytest.raises((ValueError, TypeError), match=match):
        call(lambda *a: a[0])
