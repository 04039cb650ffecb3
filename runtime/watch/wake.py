"""Wakes a loop: after a while, when it is told to, or when the system says that files changed."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sshr_deploy.closing import Closing
from sshr_deploy.runtime.machine.clock import Stopwatch

if TYPE_CHECKING:
    from watchdog.observers.api import BaseObserver

_SOONEST_S = 1.0
_REST = 5  # times as long as a turn of the loop took


class Wake(Closing):
    """An alarm; the system's word makes it ring early, and where it has none, time does.

    On most network shares the system says nothing of what other machines write.
    """

    def __init__(self, folders: Sequence[Path], every_s: float) -> None:
        """Listen for changes in `folders`, if there are any and `watchdog` is installed."""
        self._every_s = every_s
        self._rings, self._now = threading.Event(), threading.Event()
        self._turn = Stopwatch()
        self._observer = _observe(folders, self._rings)

    @property
    def listens(self) -> bool:
        """Whether the system tells of changes."""
        return self._observer is not None

    def ring(self) -> None:
        """Wake it at once."""
        self._now.set()
        self._rings.set()

    def wait(self) -> None:
        """Until it rings, but not so soon that the loop does nothing else."""
        rest_s = min(max(_SOONEST_S, _REST * self._turn.seconds()), self._every_s)
        if not self._now.wait(rest_s):
            self._rings.wait(max(0.0, self._every_s - rest_s))
        self._rings.clear()
        self._now.clear()
        self._turn = Stopwatch()

    def close(self) -> None:
        """Stop listening."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()
            self._observer = None


def _observe(folders: Sequence[Path], rings: threading.Event) -> BaseObserver | None:
    if not folders:
        return None
    try:
        from watchdog.events import FileSystemEvent, FileSystemEventHandler
        from watchdog.observers import Observer
    except ImportError:
        return None

    class Handler(FileSystemEventHandler):
        def on_any_event(self, event: FileSystemEvent) -> None:
            if event.event_type not in ("opened", "closed_no_write"):  # reading slides does these
                rings.set()

    observer = Observer()
    try:
        for folder in folders:
            observer.schedule(Handler(), str(folder), recursive=True)
        observer.start()
    except (OSError, RuntimeError):  # no such folder now, or no more watches: time does it
        return None
    return observer
