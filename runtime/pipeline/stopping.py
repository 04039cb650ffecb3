"""Ends of work before it is done: of all of it on request, of a slide by its time."""

from __future__ import annotations

import time
from pathlib import Path

from sshr_deploy.errors import SlowSlideError
from sshr_deploy.runtime.machine.clock import Stopwatch

_LOOK_S = 0.1


class StopRequest:
    """A wish that a run or a watch ends soon, so that nothing is lost.

    May be asked for by any thread and by a signal handler, which is why it holds no lock.
    """

    def __init__(self) -> None:
        self._asked = False

    def ask(self) -> None:
        """The batch in hand is kept; planning and the writing of files stop at their next step."""
        self._asked = True

    @property
    def is_asked(self) -> bool:
        """Whether anybody has."""
        return self._asked

    def check(self) -> None:
        """Raise KeyboardInterrupt if it was asked for: all ends as on Ctrl-C, only later."""
        if self._asked:
            raise KeyboardInterrupt

    def wait(self, seconds: float) -> bool:
        """Sleep until it is asked for, at most so long; whether it was."""
        watch = Stopwatch()
        while not self._asked and (left := seconds - watch.seconds()) > 0:
            time.sleep(min(left, _LOOK_S))  # goes on after a signal, so not all at once
        return self._asked


class TimeLimit:
    """Of a slide's own time; what it waits for the slides before it does not count."""

    def __init__(self, path: Path, minutes: float | None) -> None:
        """Begin to count for the slide at `path`; None is no limit."""
        self._path, self._minutes = path, minutes
        self._earlier_s = 0.0
        self._watch: Stopwatch | None = Stopwatch()

    def pause(self) -> None:
        """It is another slide's turn."""
        self._earlier_s, self._watch = self._spent_s(), None

    def go_on(self) -> None:
        """It is this one's, perhaps still."""
        self._watch = self._watch or Stopwatch()

    def check(self) -> None:
        """Fail the slide if its time is over.

        Raises:
            SlowSlideError: it is.
        """
        if self._minutes is not None and self._spent_s() > 60 * self._minutes:
            raise SlowSlideError(
                f"{self._path} took longer than `max_slide_minutes` allows ({self._minutes:g}); "
                "what was computed is kept: run it again to go on from there, or allow more"
            )

    def _spent_s(self) -> float:
        return self._earlier_s + (0.0 if self._watch is None else self._watch.seconds())
