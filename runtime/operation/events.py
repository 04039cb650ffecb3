"""Events of a run or a watched folder, told to whoever listens: a log, metrics, a hook."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from sshr_deploy.runtime.machine.clock import now_utc

Fact = str | int | float | bool | None


class Code(StrEnum):
    """Codes of events; stable, so that a monitor may rely on them."""

    STARTED = "started"
    """The run or the watching began."""
    STOPPED = "stopped"
    """It ended; `reason` says why if it was not asked to."""
    SLIDE_FOUND = "slide_found"
    """A file appeared that may still be written."""
    SLIDE_READY = "slide_ready"
    """It has not changed for long enough, and waits for its turn."""
    SLIDE_CHANGED = "slide_changed"
    """It was replaced or written on, after it was ready; what was computed of it does not count."""
    SLIDE_GONE = "slide_gone"
    """It was removed before it was done."""
    SLIDE_STARTED = "slide_started"
    SLIDE_DONE = "slide_done"
    SLIDE_FAILED = "slide_failed"
    """For good in a run; in a watched folder it may be tried again, see `again_at_utc`."""
    SLIDE_QUARANTINED = "slide_quarantined"
    """It failed too often."""
    FOLDER_LOST = "folder_lost"
    """A watched folder cannot be read."""
    FOLDER_BACK = "folder_back"
    DISK_LOW = "disk_low"
    """No slide is begun until there is space."""
    DISK_OK = "disk_ok"
    TAKEN_OVER = "taken_over"
    """A slide of another run, which gave no sign of life."""
    WORKER_LOST = "worker_lost"
    """One of several workers ended unasked; its slide goes to another."""
    HOOK_FAILED = "hook_failed"
    """The operator's command or address was not told of a slide that ended."""


@dataclass(frozen=True)
class Event:
    """Something that happened."""

    code: Code
    slide: Path | None = None
    facts: Mapping[str, Fact] = field(default_factory=dict)
    """More about it, by names that end in their unit."""
    time_utc: str = field(default_factory=now_utc)
    """ISO 8601."""


Listener = Callable[[Event], None]


class Events:
    """Tells listeners of events, in the thread of whoever emits them."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = listeners

    def emit(self, code: Code, slide: Path | None = None, **facts: Fact) -> None:
        """Tell all listeners, which do not raise."""
        event = Event(code, slide, facts)
        for listener in self._listeners:
            listener(event)

    def beside(self, *listeners: Listener) -> Events:
        """Events that are told to these listeners as well."""
        return Events(*self._listeners, *listeners)
