"""The metrics against their known values (T19) and independent formulas."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist
from scipy.stats import wasserstein_distance
from sklearn.neighbors import NearestNeighbors

from cmcore import metrics


def normal(n: int, d: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def test_frechet_distance_has_the_known_bias():
    """T19: from N samples of a standard normal law against the law itself, d/N + d(d+1)/(4N)."""
    n, d = 1000, 16
    law = metrics.Statistics(np.zeros(d), np.eye(d))
    found = [metrics.frechet_distance_from_statistics(metrics.statistics(normal(n, d, i)), law) for i in range(40)]
    assert np.mean(found) == pytest.approx(d / n + d * (d + 1) / (4 * n), rel=0.03)


def test_frechet_distance_is_the_textbook_formula():
    x, y = normal(300, 5, 0) @ normal(5, 5, 1), normal(200, 5, 2) + 0.5
    (mx, cx), (my, cy) = metrics.statistics(x), metrics.statistics(y)
    expected = np.sum((mx - my) ** 2) + np.trace(cx + cy - 2.0 * sqrtm(cx @ cy).real)
    assert metrics.frechet_distance(x, y) == pytest.approx(expected, rel=1e-10)


def test_frechet_distance_bears_constant_pixels():
    """Singular covariances, as of digits with empty corners: an image set is at distance 0 from itself."""
    x = normal(50, 64, 3)
    x[:, ::3] = -1.0
    images = x.reshape(50, 1, 8, 8)
    assert metrics.frechet_distance(images, images) == pytest.approx(0.0, abs=1e-10)
    assert metrics.frechet_distance(images, images + 0.5) == pytest.approx(64 * 0.25, rel=1e-9)


def test_kid_is_zero_on_average_for_equal_laws():
    """T19: the estimate is unbiased, so its mean over repetitions is within three standard errors of 0."""
    found = np.array([metrics.kid(normal(60, 8, 2 * i), normal(50, 8, 2 * i + 1)) for i in range(300)])
    assert abs(found.mean()) < 3 * found.std() / np.sqrt(len(found))
    biased = np.mean([(x @ x.T / 8 + 1).diagonal().mean() for x in [normal(60, 8, 0)]]) ** 3 / 60
    assert biased > 10 * 3 * found.std() / np.sqrt(len(found))


def test_kid_is_the_definition():
    x, y = normal(1500, 3, 0), normal(7, 3, 1) + 1.0

    def kernel(a, b):
        return (a @ b.T / 3 + 1.0) ** 3

    def off(k):
        return (k.sum() - np.trace(k)) / (len(k) * (len(k) - 1))

    expected = off(kernel(x, x)) + off(kernel(y, y)) - 2 * kernel(x, y).mean()
    assert metrics.kid(x, y) == pytest.approx(expected, rel=1e-10)


def test_precision_and_recall_tell_lost_modes_from_bad_samples():
    real = normal(400, 2, 0)
    real[:200] += 20.0
    half = normal(400, 2, 1)
    spoiled = np.concatenate([normal(200, 2, 2), normal(200, 2, 3) + 20.0])
    spoiled[::2] += np.array([0.0, 100.0])
    lost = metrics.precision_recall(real, half)
    assert lost.precision > 0.9
    assert lost.recall == pytest.approx(0.5, abs=0.05)
    bad = metrics.precision_recall(real, spoiled)
    assert bad.precision == pytest.approx(0.5, abs=0.05)
    assert metrics.precision_recall(real, real) == (1.0, 1.0)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_precision_is_the_definition(k):
    real, generated = normal(60, 3, 0), normal(200, 3, 1) * 1.5
    radii = [np.sort(np.linalg.norm(real - r, axis=1))[k] for r in real]
    inside = [any(np.linalg.norm(g - r) <= radius for r, radius in zip(real, radii, strict=True)) for g in generated]
    assert metrics.precision_recall(real, generated, k).precision == np.mean(inside)


def test_sliced_wasserstein_of_gaussians():
    """T19: SW2^2 = (s1 - s2)^2 + |dm|^2 / d."""
    d, shift = 5, np.array([1.0, 0.0, -2.0, 0.5, 0.0])
    found = metrics.sliced_wasserstein(normal(20_000, d, 0), 2.0 * normal(30_000, d, 1) + shift, directions=1000)
    assert found**2 == pytest.approx(1.0 + shift @ shift / d, rel=0.03)


def test_wasserstein_along_a_line_is_exact_for_sets_of_different_sizes():
    """In one dimension all directions are one. Repeating samples changes no law; a shift by c is a distance c."""
    x, y = normal(12, 1, 0), normal(18, 1, 1)
    found = metrics.sliced_wasserstein(x, y)
    repeated = np.sort(np.repeat(x, 3)) - np.sort(np.repeat(y, 2))
    assert found == pytest.approx(np.sqrt(np.mean(repeated**2)), rel=1e-12)
    assert metrics.sliced_wasserstein(x, x + 0.7) == pytest.approx(wasserstein_distance(x[:, 0], x[:, 0] + 0.7))


def test_sliced_wasserstein_depends_on_the_seed_only():
    x, y = normal(20, 4, 0), normal(20, 4, 1)
    assert metrics.sliced_wasserstein(x, y, 8, seed=3) == metrics.sliced_wasserstein(x, y, 8, seed=3)
    assert metrics.sliced_wasserstein(x, y, 8, seed=3) != metrics.sliced_wasserstein(x, y, 8, seed=4)


def test_arrays_of_any_framework(lib):
    x, y = normal(20, 4, 0).reshape(20, 2, 2), normal(30, 4, 1).reshape(30, 2, 2)
    for metric in (metrics.frechet_distance, metrics.kid, metrics.precision_recall, metrics.sliced_wasserstein):
        assert metric(lib.asarray(x), lib.asarray(y)) == metric(x, y)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.frechet_distance(np.full((3, 2), np.nan), np.zeros((3, 2))), "x must be finite"),
        (lambda: metrics.frechet_distance(np.zeros((1, 2)), np.zeros((3, 2))), "at least two samples"),
        (lambda: metrics.frechet_distance(np.zeros((3, 2)), np.zeros((3, 4))), "mean"),
        (lambda: metrics.kid(np.zeros((3, 2)), np.zeros((3, 4))), "as many numbers"),
        (lambda: metrics.precision_recall(np.zeros((3, 2)), np.zeros((3, 2)), k=3), "k must be"),
        (lambda: metrics.sliced_wasserstein(np.zeros((3, 2)), np.zeros((3, 2)), directions=0), "directions"),
    ],
)
def test_bad_arguments_are_sentences(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_moments_of_batches_are_those_of_all_at_once():
    """Far from zero, where sums of squares lose their digits."""
    x = normal(1000, 5, 0) @ normal(5, 5, 1) + 1e6
    moments = metrics.Moments()
    for part in np.array_split(x, [1, 5, 600]):
        moments.add(part)
    mean, covariance = moments.statistics()
    np.testing.assert_allclose(mean, x.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(covariance, np.cov(x, rowvar=False), rtol=1e-6)
    with pytest.raises(ValueError, match="followed by some of 4"):
        moments.add(x[:, :4])
    with pytest.raises(ValueError, match="at least two samples, got 0"):
        metrics.Moments().statistics()


@pytest.mark.parametrize("k", [1, 5])
def test_density_and_coverage_are_the_definition(k):
    """Against scikit-learn's neighbours (Naeem et al., equations 3 and 4)."""
    real, generated = normal(150, 4, 0), 0.7 * normal(230, 4, 1) + 0.3
    radii = NearestNeighbors(n_neighbors=k + 1).fit(real).kneighbors(real)[0][:, k]
    inside = cdist(generated, real) <= radii
    found = metrics.density_coverage(real, generated, k)
    assert found.density == pytest.approx(inside.sum() / (k * len(generated)), rel=1e-12)
    assert found.coverage == pytest.approx(inside.any(axis=0).mean(), rel=1e-12)


def test_memorisation_tells_copies_from_new_samples():
    """Copies with a little noise are memorised; samples of the same distribution as often as the data's own are."""
    training, new = normal(600, 6, 0), normal(400, 6, 1)
    assert metrics.memorization(training[:300] + 1e-3 * normal(300, 6, 2), training) == 1.0
    own = NearestNeighbors(n_neighbors=2).fit(training)
    distance, which = own.kneighbors(new, n_neighbors=1)
    nearest_of_those = own.kneighbors(training[which[:, 0]])[0][:, 1]
    assert metrics.memorization(new, training) == pytest.approx(np.mean(distance[:, 0] < nearest_of_those), rel=1e-12)
    assert 0.2 < metrics.memorization(new, training) < 0.8


def test_kid_of_subsets_is_that_of_all_where_they_are_all():
    x, y = normal(80, 3, 0), normal(70, 3, 1) + 0.5
    found = metrics.kid_of_subsets(x[:70], y, subsets=3, size=1000)
    assert found.mean == pytest.approx(metrics.kid(x[:70], y), rel=1e-9)
    assert found.deviation < 1e-12
    spread = metrics.kid_of_subsets(x, y, subsets=200, size=20)
    assert spread.mean == pytest.approx(metrics.kid(x, y), abs=4 * spread.deviation / 200**0.5)
    assert metrics.kid_of_subsets(x, y, 5, 20, seed=1) != metrics.kid_of_subsets(x, y, 5, 20, seed=2)


def test_the_largest_difference_of_classes():
    assert metrics.class_deviation(np.array([0, 0, 1, 2]), np.array([0, 1, 2, 2]), 3) == 0.25
    assert metrics.class_deviation(np.array([1, 1]), np.array([0, 1]), 4) == 0.5


def test_blocks_change_no_figure(monkeypatch):
    """The same numbers whether everything is compared at once or in blocks of a few."""
    x, y = normal(90, 3, 0), normal(70, 3, 1)

    def figures():
        return (
            metrics.frechet_distance(x, y),
            metrics.kid(x, y),
            *metrics.precision_recall(x, y),
            *metrics.density_coverage(x, y),
            metrics.memorization(x, y),
            metrics.sliced_wasserstein(x, y, 8),
        )

    whole = figures()
    for module in (metrics.rows, metrics.kernel, metrics.neighbours):
        monkeypatch.setattr(module, "NUMBERS", 100)
    np.testing.assert_allclose(figures(), whole, rtol=1e-10)


def test_memory_does_not_grow_with_the_number_of_samples(tmp_path, monkeypatch):
    for module in (metrics.rows, metrics.kernel, metrics.neighbours):
        monkeypatch.setattr(module, "NUMBERS", 2**16)

    def peak(n):
        x = np.memmap(tmp_path / f"{n}", np.float32, "w+", shape=(n, 32))
        x[:] = np.random.default_rng(0).standard_normal((n, 32), np.float32)
        tracemalloc.start()
        metrics.frechet_distance(x, x[: n // 2])
        metrics.kid(x, x[: n // 2])
        metrics.precision_recall(x, x)
        metrics.memorization(x[: n // 2], x)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    small, large = peak(1024), peak(4096)
    assert large < small + 8 * 3072 * 10  # ten numbers a sample, of its 32
