"""Peak memory of a block of work."""

from __future__ import annotations

from contextlib import suppress
from typing import Self

import psutil

from sshr_deploy.benchmarks.measuring.looking import Looking

_EVERY_S = 0.02


class PeakMemory(Looking):
    """Largest memory of a process and those it started, looked at up to 50 times a second.

    As the system shares it out (PSS), where it does: what several of the processes have in common
    counts once. Elsewhere resident memory. Looking costs the process some time, so it is not for
    runs that are timed. A context manager.

    Args:
        pid: of the process; None for this one.
    """

    def __init__(self, pid: int | None = None) -> None:
        super().__init__(_EVERY_S, "memory")
        self.mb = 0.0
        """So far, in 10^6 bytes."""
        self._pid = pid

    def __enter__(self) -> Self:
        self.look()
        return super().__enter__()

    def close(self) -> None:
        """End the thread, after a last look."""
        super().close()
        self.look()

    def look(self) -> None:
        """Take note of the memory of now."""
        total = 0
        with suppress(psutil.Error):  # the process has ended
            root = psutil.Process(self._pid)
            for each in (root, *root.children(recursive=True)):
                with suppress(psutil.Error):  # it has ended meanwhile
                    memory = each.memory_full_info()
                    total += getattr(memory, "pss", memory.rss)
        self.mb = max(self.mb, total / 1e6)
