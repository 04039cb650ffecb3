"""How the ending of a slide moves it in the queue."""

from __future__ import annotations

import os
import platform
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from sshr_deploy.errors import MissingMppError, OutputError
from sshr_deploy.runtime.machine.clock import iso_utc, now_utc
from sshr_deploy.runtime.operation.ended import emit_ended, failure_of
from sshr_deploy.runtime.operation.events import Code, Events
from sshr_deploy.runtime.pipeline.result_folders import ResultFolders
from sshr_deploy.runtime.results.findings import InputResult
from sshr_deploy.runtime.watch.arrivals import AFRESH, changes_of
from sshr_deploy.runtime.watch.queue import Queue, QueuedSlide, State
from sshr_deploy.runtime.watch.scanning import Files, files_of

FIRST_PAUSE_S, LAST_PAUSE_S = 60.0, 3600.0
"""Before the second attempt, doubled before each further one."""
MOST_CRASHES = 10
"""Power cuts and restarts count too; a slide that ends the process does so each time."""


class Outcomes:
    """Moves slides that ended; the changes of their files meanwhile count more than the results."""

    def __init__(self, queue: Queue, out: Path, events: Events, attempts: int) -> None:
        """A slide is quarantined when it has failed `attempts` times."""
        self._queue, self._out, self._events, self._attempts = queue, out, events, attempts
        self._host = platform.node()
        self._put_off: Counter[Path] = Counter()  # how often in turn, for no fault of the slide

    def recover(self) -> None:
        """What ran when the process ended waits again."""
        for slide in self._queue.slides([State.RUNNING]):
            crashes = slide.crashes + 1
            if crashes < MOST_CRASHES:
                self._queue.move(slide.path, State.WAITING, crashes=crashes)
                continue
            reason = f"sshr-deploy ended {crashes} times while this slide ran"
            self._quarantine(slide, "crash", reason, crashes=crashes)

    def release(self) -> None:
        """What was begun and has not ended waits again, as if it had not begun."""
        for slide in self._queue.slides([State.RUNNING]):
            self._queue.move(slide.path, State.WAITING)

    def ended(self, slide: QueuedSlide, result: InputResult) -> None:
        """Move `slide`, as it was taken, by how it ended.

        Raises:
            OutputError: the queue cannot be written, or results that do not count not be removed.
        """
        path = slide.path
        now = _files(path)
        if isinstance(now, Files) and now.signature != slide.signature:
            if result.summary is not None:
                folders = ResultFolders(self._out)
                folders.fresh(slide.relative)
                folders.remove_empty(slide.relative)
            self._queue.move(path, State.SETTLING, **changes_of(now, time.time()), **AFRESH)
            self._events.emit(Code.SLIDE_CHANGED, path, state=State.RUNNING.value)
        elif result.summary is not None:
            self._done(slide, result, gone=now is None)
        elif isinstance(result.error, OutputError) or isinstance(now, OSError):
            self._later(slide, result)
        elif now is None:
            self._queue.drop(path)
            self._events.emit(Code.SLIDE_GONE, path, state=State.RUNNING.value)
        else:
            self._failed(slide, result)

    def _done(self, slide: QueuedSlide, result: InputResult, *, gone: bool) -> None:
        now_s = time.time()
        del self._put_off[slide.path]  # a Counter does not mind if it is not there
        changes = {"reason": "", "code": "", "attempts": 0, "crashes": 0}
        self._queue.end(slide.path, State.DONE, now_s, self._host, **changes)
        turnaround_s = round(now_s - slide.written_s, 1)
        emit_ended(self._events, result, self._out, turnaround_s=turnaround_s)
        if gone:
            self._events.emit(Code.SLIDE_GONE, slide.path, state=State.DONE.value)

    def _later(self, slide: QueuedSlide, result: InputResult) -> None:
        """Try it again without counting the attempt; not at once twice, or no other has a turn."""
        self._put_off[slide.path] += 1
        earlier = self._put_off[slide.path] - 1
        if earlier:
            self._fail(slide, result, slide.attempts, _pause_s(earlier))
            return
        self._queue.move(slide.path, State.WAITING)
        emit_ended(self._events, result, self._out, again_at_utc=now_utc())

    def _failed(self, slide: QueuedSlide, result: InputResult) -> None:
        attempts = slide.attempts + 1
        del self._put_off[slide.path]
        if attempts >= self._attempts or isinstance(result.error, MissingMppError):
            code = failure_of(result.error).value
            self._quarantine(slide, code, result.reason, attempts=attempts)
            return
        self._fail(slide, result, attempts, _pause_s(attempts))

    def _fail(self, slide: QueuedSlide, result: InputResult, attempts: int, pause_s: float) -> None:
        now_s = time.time()
        again_s = now_s + pause_s
        self._queue.end(
            slide.path,
            State.FAILED,
            now_s,
            self._host,
            attempts=attempts,
            reason=result.reason,
            code=failure_of(result.error).value,
            again_s=again_s,
        )
        emit_ended(
            self._events, result, self._out, attempts=attempts, again_at_utc=iso_utc(again_s)
        )

    def _quarantine(self, slide: QueuedSlide, code: str, reason: str, **counts: int) -> None:
        changes: dict[str, object] = {"reason": reason, "code": code, **counts}
        self._queue.end(slide.path, State.QUARANTINED, time.time(), self._host, **changes)
        self._events.emit(Code.SLIDE_QUARANTINED, slide.path, failure=code, reason=reason, **counts)


def _files(path: Path) -> Files | OSError | None:
    """State of a slide's files; None if it is gone from a folder that can be read."""
    try:
        return files_of(path)
    except OSError as error:
        with suppress(OSError):
            names = {entry.name for entry in os.scandir(path.parent)}
            if path.name not in names and names:
                return None
        return error


def _pause_s(times: int) -> float:
    """Before the next attempt, after so many."""
    return min(FIRST_PAUSE_S * 2.0 ** (times - 1), LAST_PAUSE_S)
