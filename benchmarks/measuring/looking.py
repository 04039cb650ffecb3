"""Looks at something again and again while something else runs."""

from __future__ import annotations

import threading
from typing import Self

from sshr_deploy.closing import Closing


class Looking(Closing):
    """Calls `look` every so many seconds in a thread of its own, as long as it is entered.

    Args:
        every_s: from one look to the next.
        name: of the thread.
    """

    def __init__(self, every_s: float, name: str) -> None:
        self._every_s, self._ended = every_s, threading.Event()
        self._thread = threading.Thread(target=self._go_on, name=name, daemon=True)

    def look(self) -> None:
        """Take note of how it is now."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def close(self) -> None:
        """End the thread."""
        self._ended.set()
        self._thread.join()

    def _go_on(self) -> None:
        while not self._ended.wait(self._every_s):
            self.look()
