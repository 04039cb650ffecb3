"""Peak memory of a block of work."""

from __future__ import annotations

import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

import psutil

_EVERY_S = 0.02


class PeakMemory:
    """Largest memory of a process and those it started, looked at up to 50 times a second.

    As the system shares it out (PSS), where it does: what several of the processes have in common
    counts once. Elsewhere resident memory. Looking costs the process some time, so it is not for
    runs that are timed. A context manager.

    Args:
        pid: of the process; None for this one.
    """

    def __init__(self, pid: int | None = None) -> None:
        self.mb = 0.0
        """So far, in 10^6 bytes."""
        self._pid, self._end = pid, threading.Event()
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
        total = 0
        with suppress(psutil.Error):  # the process has ended
            root = psutil.Process(self._pid)
            for each in (root, *root.children(recursive=True)):
                with suppress(psutil.Error):  # it has ended meanwhile
                    memory = each.memory_full_info()
                    total += getattr(memory, "pss", memory.rss)
        self.mb = max(self.mb, total / 1e6)
