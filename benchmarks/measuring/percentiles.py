"""Percentiles of timings with intervals that assume no distribution.

The interval of the q-quantile is between two of the sorted samples: as many samples as lie below
the true quantile are binomial, so the l-th and u-th smallest hold it with probability
P(l <= Bin(n, q) < u) (H. A. David, H. N. Nagaraja, "Order Statistics", 2003, section 7.1). Of the
pairs that reach the confidence, the one fewest ranks apart is told; with too few samples no pair
does, and neither is the percentile. Samples count as independent, which calls in a row are not
wholly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Percentile:
    """A percentile, in the samples' unit, and between which values it lies with 95 %."""

    value: float
    low: float
    high: float


def calls_for(percent: float) -> int:
    """Samples from which an interval of that percentile exists: 6 for 50, 59 for 95, 299 for 99.

    The smallest n with 1 - q^n - (1 - q)^n >= 0.95.
    """
    q = percent / 100
    count = 1
    while 1 - q**count - (1 - q) ** count < CONFIDENCE:
        count += 1
    return count


def percentile(samples: Sequence[float], percent: float) -> Percentile | None:
    """The percentile and its interval; None where there are fewer than `calls_for` samples."""
    count = len(samples)
    if count < calls_for(percent):
        return None
    ordered = np.sort(np.asarray(samples, np.float64))
    low, high = _ranks(count, percent / 100)
    value = float(np.percentile(ordered, percent))
    return Percentile(value, float(ordered[low - 1]), float(ordered[high - 1]))


def _ranks(count: int, q: float) -> tuple[int, int]:
    """l and u, from 1: the closest pair that holds the quantile; of several, the surest."""
    below = _cumulative(count, q)
    low = np.arange(1, count)
    high = np.searchsorted(below, below[low - 1] + CONFIDENCE) + 1
    low, high = low[high <= count], high[high <= count]
    best = np.lexsort((below[low - 1] - below[high - 1], high - low))[0]
    return int(low[best]), int(high[best])


def _cumulative(count: int, q: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """P(Bin(count, q) <= i) for i from 0 to count."""
    logs = np.array(
        [
            math.lgamma(count + 1) - math.lgamma(i + 1) - math.lgamma(count - i + 1)
            + i * math.log(q) + (count - i) * math.log1p(-q)
            for i in range(count + 1)
        ]
    )  # fmt: skip
    cumulative: np.ndarray[tuple[int], np.dtype[np.float64]] = np.minimum(
        np.cumsum(np.exp(logs)), 1
    )
    return cumulative
