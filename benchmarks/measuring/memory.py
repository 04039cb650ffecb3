"""Peak memory of a block of work."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

import psutil

_EVERY_S = 0.02


class PeakMemory:
    """Largest memory of this process and those it started, looked at 50 times a second.

    Resident memory; what several of the processes share counts for each of them. A context manager.
    """

    def __init__(self) -> None:
        self.mb = 0.0
        """So far, in 10^6 bytes."""
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)

    def __enter__(self) -> Self:
        self._look()
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._end.wait(_EVERY_S):
            self._look()

    def _look(self) -> None:
        process, total = psutil.Process(), 0
        for each in (process, *process.children(recursive=True)):
            try:
                total += each.memory_info().rss
            except psutil.Error:  # it has ended meanwhile
                continue
        self.mb = max(self.mb, total / 1e6)
