"""Splits the time of calls into their parts, by laps in the sessions themselves.

A session says where a part ends; nothing is timed, and nothing waited for, unless `timed_parts` is
open. What a session leaves out counts to the next part that it names, so that the parts of a call
are all of its time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum


class Part(Enum):
    """Parts of a call, in their order."""

    COPY_IN = "copy in"
    """Checks of the patches, and their way to where the engine computes."""
    ENGINE = "engine"
    LABELS = "labels"
    """Label maps of the CAMs."""
    COPY_OUT = "copy out"
    """The results' way back, and checks of them. Follows the labels where a GPU makes these."""


class PartTimes:
    """Milliseconds of each part since it was made."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.ms = dict.fromkeys(Part, 0.0)
        self._clock, self._since = clock, clock()
        self._lock = threading.Lock()

    def lap(self, part: Part) -> None:
        """What passed since the last lap was `part`.

        Of calls of the engine at the same time the last ends the part.
        """
        with self._lock:
            now = self._clock()
            self.ms[part] += (now - self._since) * 1e3
            self._since = now


_times: PartTimes | None = None  # of the process: a session may compute in threads of its own


@contextmanager
def timed_parts() -> Iterator[PartTimes]:
    """Time the parts of calls inside; of one session, and one call after the other.

    Sessions of GPUs wait between the parts then, and replay no CUDA graphs.
    """
    global _times
    before, _times = _times, PartTimes()
    try:
        yield _times
    finally:
        _times = before


def are_timed() -> bool:
    """Whether `timed_parts` is open."""
    return _times is not None


def lap(part: Part, wait: Callable[[], object] | None = None) -> None:
    """`part` ends here, where parts are timed; `wait` is called before, as for a GPU's stream."""
    if _times is not None:
        if wait is not None:
            wait()
        _times.lap(part)
