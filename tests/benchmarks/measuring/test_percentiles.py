"""Intervals of percentiles, against SciPy's binomial distribution and by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from sshr_deploy.benchmarks.measuring.percentiles import CONFIDENCE, calls_for, percentile

stats = pytest.importorskip("scipy.stats")

PERCENTS = (50, 90, 95, 99)


def ranks(count: int, percent: float) -> tuple[int, int]:
    """Of the ends of the interval, from 1."""
    found = percentile(range(1, count + 1), percent)
    assert found is not None
    return int(found.low), int(found.high)


def coverage(low: int, high: int, count: int, percent: float) -> float:
    """P(low <= Bin(count, q) < high)."""
    below = stats.binom(count, percent / 100)
    return float(below.cdf(high - 1) - below.cdf(low - 1))


@pytest.mark.parametrize("percent", PERCENTS)
def test_fewest_calls(percent: float) -> None:
    count = calls_for(percent)
    assert coverage(1, count, count, percent) >= CONFIDENCE
    assert coverage(1, count - 1, count - 1, percent) < CONFIDENCE
    assert percentile([1.0] * count, percent) is not None
    assert percentile([1.0] * (count - 1), percent) is None


@pytest.mark.parametrize("percent", PERCENTS)
@pytest.mark.parametrize("more", [0, 1, 7, 100, 477])
def test_no_closer_pair_of_ranks_reaches_the_confidence(percent: float, more: int) -> None:
    count = calls_for(percent) + more
    low, high = ranks(count, percent)
    assert coverage(low, high, count, percent) >= CONFIDENCE
    closer = np.arange(1, count + 1 - (high - low - 1))
    below = stats.binom(count, percent / 100)
    assert (below.cdf(closer + high - low - 2) - below.cdf(closer - 1)).max() < CONFIDENCE


def test_many_samples_need_no_big_numbers() -> None:
    low, high = ranks(20_000, 50)
    assert coverage(low, high, 20_000, 50) == pytest.approx(CONFIDENCE, abs=0.002)
    assert low < 10_000 < high


@pytest.mark.parametrize(("percent", "count"), [(50, 20), (95, 80), (99, 300), (99, 450)])
def test_the_interval_holds_the_true_value_as_often_as_it_says(percent: float, count: int) -> None:
    rng = np.random.default_rng(17)
    trials = 2000
    # Skewed, as timings are; the quantile of an exponential distribution is -log(1 - q).
    true = -np.log1p(-percent / 100)
    low, high = ranks(count, percent)
    samples = np.sort(rng.exponential(size=(trials, count)), axis=1)
    held = int(((samples[:, low - 1] <= true) & (true < samples[:, high - 1])).sum())
    expected = coverage(low, high, count, percent)
    assert held / trials == pytest.approx(expected, abs=4 * np.sqrt(0.05 * 0.95 / trials))
    one = percentile(samples[0].tolist(), percent)
    assert one is not None
    assert (one.low, one.high) == (samples[0, low - 1], samples[0, high - 1])


def test_the_order_of_the_samples_does_not_matter() -> None:
    samples = np.random.default_rng(0).gamma(3, size=70).tolist()
    assert percentile(samples, 95) == percentile(sorted(samples), 95)
    found = percentile(samples, 95)
    assert found is not None
    assert found.value == np.percentile(samples, 95)
    assert found.low <= found.value <= found.high
