"""Who worked how long on a slide, and for whom the engine waited."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

from sshr_deploy.runtime.machine.clock import Stopwatch
from sshr_deploy.runtime.results.findings import Effort

Stage = Literal["plan", "read", "infer", "keep", "labels", "write"]
Cause = Literal["plan", "read", "write"]
"""Stages that the engine may have to wait for; "write" is all that finishes a slide."""


class Ledger:
    """Seconds by stage, from any thread; what a slide's ledger gets counts for the run's too."""

    def __init__(self, run: Ledger | None = None) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._busy: defaultdict[str, float] = defaultdict(float)
        self._times: Counter[str] = Counter()
        self._waited: defaultdict[str, float] = defaultdict(float)

    def add(self, stage: Stage, seconds: float) -> None:
        """Somebody worked so long at `stage`."""
        with self._lock:
            self._busy[stage] += seconds
            self._times[stage] += 1
        if self._run is not None:
            self._run.add(stage, seconds)

    def wait(self, cause: Cause, seconds: float) -> None:
        """The engine waited so long."""
        with self._lock:
            self._waited[cause] += seconds
        if self._run is not None:
            self._run.wait(cause, seconds)

    def merge(self, other: Effort) -> None:
        """Add the work of another process."""
        with self._lock:
            for into, seconds in (
                (self._busy, other.busy_s),
                (self._waited, other.engine_waited_s),
            ):
                for name, value in seconds.items():
                    into[name] += value

    @contextmanager
    def working(self, stage: Stage) -> Iterator[None]:
        """Add the block's time to `stage`."""
        watch = Stopwatch()
        try:
            yield
        finally:
            self.add(stage, watch.seconds())

    def busy_s(self, stage: Stage) -> float:
        """Seconds of work at a stage so far."""
        return self._busy.get(stage, 0.0)

    def mean_s(self, stage: Stage) -> float:
        """Seconds of each time that somebody worked at it."""
        with self._lock:
            return self._busy.get(stage, 0.0) / max(self._times[stage], 1)

    def waited_s(self, cause: Cause) -> float:
        """Seconds that the engine waited so far."""
        return self._waited.get(cause, 0.0)

    def effort(self) -> Effort:
        """All of it, for a document."""
        with self._lock:
            busy, waited = dict(self._busy), dict(self._waited)
        return Effort(
            busy_s=_rounded(busy), engine_waited_s=_rounded(waited), limited_by=_limit(busy, waited)
        )


def _limit(
    busy: Mapping[str, float], waited: Mapping[str, float]
) -> Literal["engine", "read", "write"]:
    """What the engine's thread spent most of its time on."""
    times: dict[Literal["engine", "read", "write"], float] = {
        "engine": busy.get("infer", 0.0) + busy.get("keep", 0.0),
        "read": waited.get("plan", 0.0) + waited.get("read", 0.0),
        "write": waited.get("write", 0.0),
    }
    return max(times, key=times.__getitem__)


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in seconds.items()}
