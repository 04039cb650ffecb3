"""Percentiles of timings with intervals that assume no distribution.

The interval of the q-quantile is between two of the sorted samples: as many samples as lie below
the true quantile are binomial, so the l-th and u-th smallest hold it with probability
P(l <= Bin(n, q) < u) (H. A. David, H. N. Nagaraja, "Order Statistics", 2003, section 7.1). With too
few samples no pair reaches the confidence, and the percentile is not told. Samples count as
independent, which calls in a row are not wholly.
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
    count, q = len(samples), percent / 100
    if count < calls_for(percent):
        return None
    ordered = np.sort(np.asarray(samples, np.float64))
    below = _cumulative(count, q)  # [i]: at most i of the samples lie below the quantile
    tail = (1 - CONFIDENCE) / 2
    low = int(np.searchsorted(below, tail, side="right"))  # 0-based rank l - 1
    high = int(np.searchsorted(below, 1 - tail, side="left")) + 1
    low, high = max(low - 1, 0), min(high, count - 1)
    return Percentile(float(np.percentile(ordered, percent)), ordered[low], ordered[high])


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
