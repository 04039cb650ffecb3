"""How a watch fared, day by day."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo

from sshr_deploy.runtime.watch.queue import Ending, State


@dataclass(frozen=True)
class Day:
    """Slides that ended on a day."""

    day: str
    """ISO 8601, by the clock of whoever asks."""
    done: int
    failed: int
    """Attempts, those that led to quarantine too."""
    quarantined: int
    turnaround_p50_s: float | None
    """From the last change of a slide's file to its results; None where none was done."""
    turnaround_p95_s: float | None
    turnaround_max_s: float | None


@dataclass(frozen=True)
class FailureCount:
    """Attempts that failed in one way."""

    code: str
    attempts: int
    slides: int
    last_reason: str


def days(endings: Iterable[Ending], zone: tzinfo | None = None) -> list[Day]:
    """By day in `zone`, the local one by default; the newest last."""
    by_day: dict[str, list[Ending]] = {}
    for ending in endings:
        day = datetime.fromtimestamp(ending.ended_s, zone).date().isoformat()
        by_day.setdefault(day, []).append(ending)
    return [_day(day, by_day[day]) for day in sorted(by_day)]


def failures(endings: Iterable[Ending]) -> list[FailureCount]:
    """By code, the most frequent first."""
    by_code: dict[str, list[Ending]] = {}
    for ending in endings:
        if ending.state is not State.DONE:
            by_code.setdefault(ending.code, []).append(ending)
    counts = [
        FailureCount(code, len(all_), len({e.path for e in all_}), all_[-1].reason)
        for code, all_ in by_code.items()
    ]
    return sorted(counts, key=lambda count: (-count.attempts, count.code))


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least `share` of all do not exceed (nearest rank)."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def _day(day: str, endings: Sequence[Ending]) -> Day:
    took_s = [e.ended_s - e.written_s for e in endings if e.state is State.DONE]
    return Day(
        day=day,
        done=len(took_s),
        failed=len(endings) - len(took_s),
        quarantined=sum(e.state is State.QUARANTINED for e in endings),
        turnaround_p50_s=percentile(took_s, 0.5),
        turnaround_p95_s=percentile(took_s, 0.95),
        turnaround_max_s=max(took_s, default=None),
    )
