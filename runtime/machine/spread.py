"""Middle and spread of repeated timings, and whether they allow a ratio."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sshr_deploy.figures import in_digits

BUSY_SPREAD = 0.15
"""Distance of the quartiles over the median above which a machine counts as busy.

In this project's recorded runs of 5 to 477 calls it was 0.01 to 0.10 on a quiet machine, and 0.27
to 0.83 beside other work (`benchmarks/results`, 2 cores).
"""
_FEWEST = 5
"""Calls that quartiles need: with fewer they are hardly more than the two ends."""
_CALLS_FOR = {95: 20, 99: 100}
"""Calls from which a percentile is told: below, no call lies beyond it."""


@dataclass(frozen=True)
class Spread:
    """Timings of one thing, in milliseconds."""

    calls: int
    median_ms: float
    p25_ms: float
    p75_ms: float
    min_ms: float
    max_ms: float
    p95_ms: float | None
    """None below 20 calls."""
    p99_ms: float | None
    """None below 100 calls."""

    @property
    def relative(self) -> float:
        """Distance of the quartiles over the median."""
        return (self.p75_ms - self.p25_ms) / self.median_ms if self.median_ms else 0.0

    def figures(self) -> dict[str, float]:
        """For a report; percentiles that so few calls cannot have are left out."""
        named = {
            "median_ms": self.median_ms,
            "p25_ms": self.p25_ms,
            "p75_ms": self.p75_ms,
            "min_ms": self.min_ms,
            "max_ms": self.max_ms,
            "p95_ms": self.p95_ms,
            "p99_ms": self.p99_ms,
        }
        return {name: value for name, value in named.items() if value is not None}

    def below(self, other: Spread) -> bool:
        """Whether its upper quartile is under the other's lower one, so that it is the faster.

        The order holds on a busy machine too, where the two took turns.
        """
        return self.p75_ms < other.p25_ms

    def busy(self) -> str | None:
        """Why these calls give no speed to be told; None where they do."""
        if self.relative > BUSY_SPREAD:
            return (
                f"its middle half spreads over {self.relative:.0%} of the median (at most "
                f"{BUSY_SPREAD:.0%}), so the machine was busy"
            )
        return None


@dataclass(frozen=True)
class Ratio:
    """How many times as long one thing takes as another."""

    value: float | None
    """None where it cannot be told."""
    refused: str | None = None
    """Why not, in one line."""

    def fields(self, name: str) -> dict[str, Any]:
        """For a report, under `name`: the value, or None and beside it the reason."""
        reason = {} if self.refused is None else {f"{name}_not_reported": self.refused}
        return {name: self.value, **reason}


def spread_of(samples_ms: Sequence[float]) -> Spread:
    """Figures of at least one sample.

    Raises:
        ValueError: there is none.
    """
    if not len(samples_ms):
        raise ValueError("no samples")
    p25, median, p75 = (float(p) for p in np.percentile(samples_ms, (25, 50, 75)))
    high = {
        percent: float(np.percentile(samples_ms, percent)) if len(samples_ms) >= calls else None
        for percent, calls in _CALLS_FOR.items()
    }
    low, top = float(min(samples_ms)), float(max(samples_ms))
    return Spread(len(samples_ms), median, p25, p75, low, top, high[95], high[99])


def unsteady(name: str, samples: Sequence[float]) -> str | None:
    """Why samples of that name allow no ratio: too few, or too wide for a quiet machine."""
    spread = spread_of(samples)
    if spread.calls < _FEWEST:
        return f"{name} has {spread.calls} timed calls; at least {_FEWEST} count"
    if (busy := spread.busy()) is not None:
        return f"{name}: {busy}; measure again when it is quiet"
    return None


def ratio_of(
    one: tuple[str, Sequence[float]], other: tuple[str, Sequence[float]], unit: str = "ms"
) -> Ratio:
    """Median of `one` over that of `other`, each a name and its samples, taken in turns.

    Refused where a side has fewer than 5 samples or spreads too far for a quiet machine, and where
    the quartiles of the two overlap.
    """
    for side in (one, other):
        if (refused := unsteady(*side)) is not None:
            return Ratio(None, refused)
    first, second = (spread_of(samples) for _, samples in (one, other))
    if not (first.below(second) or second.below(first)):
        both = f"{quartiles_text(first, unit)} and {quartiles_text(second, unit)}"
        return Ratio(None, f"{one[0]} and {other[0]} overlap: {both}")
    return Ratio(first.median_ms / second.median_ms)


def refusals(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Reasons beside refused ratios of a report's rows, each once, in their order."""
    reasons = (row[key] for row in rows for key in row if key.endswith("_not_reported"))
    return list(dict.fromkeys(reasons))


def ratio_text(value: float | None) -> str:
    """A ratio of a report, for a table."""
    return "not reported" if value is None else f"{value:.2f}"


def quartiles_text(spread: Spread, unit: str = "ms") -> str:
    """The quartiles, "10.1 to 10.3 ms", or without a unit where that is empty."""
    return f"{in_digits(spread.p25_ms)} to {in_digits(spread.p75_ms)} {unit}".rstrip()
