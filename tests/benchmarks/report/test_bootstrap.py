"""The interval of a ratio of medians, against SciPy's bootstrap and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sshr_deploy.benchmarks.report.bootstrap import ratio_interval

stats = pytest.importorskip("scipy.stats")

Values = NDArray[np.float64]


def test_independent_samples_have_scipys_interval() -> None:
    rng = np.random.default_rng(3)
    one, other = rng.gamma(50, size=80), 2 * rng.gamma(50, size=120)

    def ratio(first: Values, second: Values, axis: int) -> Values:
        return np.asarray(np.median(first, axis=axis) / np.median(second, axis=axis))

    expected = stats.bootstrap(
        (one, other), ratio, method="percentile", n_resamples=4000, rng=rng
    ).confidence_interval
    found = ratio_interval(one.tolist(), other.tolist())
    assert found == pytest.approx(tuple(expected), abs=0.15 * (expected.high - expected.low))


def test_the_same_samples_have_the_same_interval() -> None:
    samples = [10.0, 10.1, 10.4, 10.2, 9.9, 10.0, 10.3]
    assert ratio_interval(samples, samples[::-1]) == ratio_interval(samples, samples[::-1])


def test_samples_that_do_not_differ() -> None:
    assert ratio_interval([3.0] * 5, [2.0] * 9) == (1.5, 1.5)


def test_calls_in_a_row_that_resemble_each_other_widen_the_interval() -> None:
    """It holds the true ratio in most of the trials, which single draws do in four of five."""
    rng = np.random.default_rng(5)
    held, trials = 0, 40
    for _ in range(trials):
        one, other = (100 + series(rng, 0.5, 60) for _ in range(2))
        low, high = ratio_interval(one.tolist(), other.tolist())
        held += low <= 1 <= high
    assert held / trials >= 0.85


def series(rng: np.random.Generator, correlation: float, count: int) -> Values:
    values = rng.normal(size=count)
    for index in range(1, count):
        values[index] += correlation * values[index - 1]
    return values
