"""How a running service fares, for whoever asks over the network."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from sshr_deploy.runtime.contract import SessionInfo
from sshr_deploy.runtime.machine.clock import Stopwatch, now_utc
from sshr_deploy.runtime.operation.events import Code, Event

SILENT_S = 180.0
"""A service that has given no sign of life for so long does not work."""

QueueCounts = Callable[[], Mapping[str, int]]
"""Slides by state; called by threads of the server."""


@dataclass(frozen=True)
class HealthReport:
    """How a service fares now."""

    works: bool
    """It gave a sign of life lately."""
    problems: tuple[str, ...]
    """One line each; a service with problems may work."""
    started_utc: str
    silent_s: float
    """Since the last sign of life."""
    running: int
    """Slides under way."""
    queue: Mapping[str, int]
    """Slides by state."""
    disk_free_bytes: int | None
    """Where results go; None where it cannot be told."""
    engine: str | None
    """With precision and device; None until it is open."""


class Health:
    """State of a service; told by it and by its events, asked by other threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._started_utc, self._silence = now_utc(), Stopwatch()
        self._queue: QueueCounts = dict
        self._out: Path | None = None
        self._engine: str | None = None
        self._running: set[Path] = set()
        self._problems: dict[tuple[str, Path | None], str] = {}

    def alive(self) -> None:
        """Give a sign of life; a service does so at least every minute, whatever it waits for."""
        self._silence = Stopwatch()

    def serves(self, out: Path, queue: QueueCounts | None = None) -> None:
        """Tell where results go, and how many slides there are by state."""
        self._out, self._queue = out, queue or self._queue

    def runs_on(self, engine: SessionInfo) -> None:
        """Tell what runs the network."""
        self._engine = f"{engine.engine} {engine.precision} on {engine.device}"

    def __call__(self, event: Event) -> None:
        """Learn from an event; a listener of `Events`."""
        code, slide = event.code, event.slide
        reason = str(event.facts.get("reason") or "")
        with self._lock:
            if code is Code.SLIDE_STARTED and slide is not None:
                self._running.add(slide)
            elif code in _SLIDE_ENDS and slide is not None:
                self._running.discard(slide)
            elif code is Code.DISK_LOW:
                self._problems["disk", None] = f"disk low: {reason}"
            elif code is Code.DISK_OK:
                self._problems.pop(("disk", None), None)
            elif code is Code.FOLDER_LOST:
                self._problems["folder", slide] = f"folder lost: {reason or slide}"
            elif code is Code.FOLDER_BACK:
                self._problems.pop(("folder", slide), None)

    def report(self) -> HealthReport:
        """State at this moment."""
        silent_s = self._silence.seconds()
        with self._lock:
            problems, running = list(self._problems.values()), len(self._running)
        if silent_s > SILENT_S:
            problems.insert(0, f"no sign of life for {silent_s:.0f} s")
        return HealthReport(
            works=silent_s <= SILENT_S,
            problems=tuple(problems),
            started_utc=self._started_utc,
            silent_s=round(silent_s, 1),
            running=running,
            queue=dict(self._queue()),
            disk_free_bytes=_free_bytes(self._out),
            engine=self._engine,
        )


_SLIDE_ENDS = (
    Code.SLIDE_DONE,
    Code.SLIDE_FAILED,
    Code.SLIDE_QUARANTINED,
    Code.SLIDE_CHANGED,
    Code.SLIDE_GONE,
)


def _free_bytes(out: Path | None) -> int | None:
    if out is None:
        return None
    try:
        return shutil.disk_usage(out).free
    except OSError:
        return None
