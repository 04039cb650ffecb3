"""Watches folders for slides and does them as they come, for months.

Threads: one looks through the folders, at the disk and for signs of life; the caller's does slides.
The queue, which is for both, is all that they share beside a few flags. Whatever ends the process,
the queue and the results tell the next one where to go on.
"""

from __future__ import annotations

import os
import platform
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from sshr_deploy.atomic import check_writable
from sshr_deploy.errors import OutputError
from sshr_deploy.runtime.machine.clock import Stopwatch
from sshr_deploy.runtime.operation.events import Code, Events
from sshr_deploy.runtime.pipeline.discovery import Input
from sshr_deploy.runtime.pipeline.processing import Workforce
from sshr_deploy.runtime.pipeline.stopping import StopRequest
from sshr_deploy.runtime.results.findings import InputResult
from sshr_deploy.runtime.watch.arrivals import Arrivals
from sshr_deploy.runtime.watch.order import Order
from sshr_deploy.runtime.watch.outcomes import Outcomes
from sshr_deploy.runtime.watch.queue import Queue, QueuedSlide, State, Watcher
from sshr_deploy.runtime.watch.table import SummaryTable
from sshr_deploy.runtime.watch.wake import Wake

_IDLE_S = 1.0  # between looks at the queue that nothing announced
_TABLE_EVERY_S = 60.0
_OUTPUT_PAUSE_S = 60.0  # after results could not be written


@dataclass(frozen=True)
class WatchSettings:
    """Settings of a watch that a user chooses."""

    settle_s: float = 60.0
    """Time for which a slide must not change before it is taken."""
    poll_s: float = 10.0
    """Between looks at the folders."""
    order: Order = Order.OLDEST
    attempts: int = 3
    """Failed ones, after which a slide is quarantined."""
    min_free_bytes: int = 5 << 30
    """Of the disk of the results, below which no slide is begun."""
    once: bool = False
    """End when nothing is left that can be done."""


class Watch:
    """A watch over folders; `run` it once."""

    def __init__(
        self,
        queue: Queue,
        arrivals: Arrivals,
        workforce: Workforce,
        wake: Wake,
        *,
        out: Path,
        table: SummaryTable,
        events: Events,
        settings: WatchSettings,
        stop: StopRequest,
        is_lost: Callable[[], bool],
        on_beat: Callable[[], None] = lambda: None,
    ) -> None:
        """Results go below `out`.

        Args:
            queue: for this process alone to take from.
            arrivals: fills it.
            workforce: does the slides; it is closed at the end.
            wake: of the thread that looks through the folders.
            out: folder of the results.
            table: of the results.
            events: told of all that happens.
            settings: of the watch.
            stop: may end it; nothing of what is done is lost.
            is_lost: whether another process writes the results now.
            on_beat: called at each look through the folders.
        """
        self._queue, self._arrivals, self._workforce, self._wake = queue, arrivals, workforce, wake
        self._out, self._table, self._events, self._settings = out, table, events, settings
        self._stop, self._is_lost, self._on_beat = stop, is_lost, on_beat
        self._outcomes = Outcomes(queue, out, events, settings.attempts)
        self._running: dict[Path, QueuedSlide] = {}
        self._me = Watcher(platform.node(), os.getpid(), time.time(), 0.0)
        self._ending, self._news, self._polled = (threading.Event() for _ in range(3))
        self._is_cut_short = False  # slides run by the queue alone
        self._low = ""  # why no slide is begun
        self._low_until = 0.0  # monotonic; not before that is it looked at again
        self._broken: BaseException | None = None  # of the other thread
        self._table_age, self._table_is_old = Stopwatch(), True
        self.failures = 0
        """Attempts that failed."""

    def counts(self) -> Mapping[str, int]:
        """Slides by state; for any thread."""
        return {state.value: count for state, count in self._queue.counts().items()}

    def run(self) -> None:
        """Watch until it is stopped, or with `once` until nothing is left to do.

        Raises:
            KeyboardInterrupt: it was stopped while slides were under way, which are left resumable.
            OutputError: another process writes the results now; or with `once`, too little is free.
            SessionError: the engine fails.
        """
        self._outcomes.recover()
        poller = threading.Thread(target=self._poll, name="watch")
        poller.start()
        try:
            while not (self._stop.is_asked or (self._settings.once and self._is_idle())):
                self._work()
                if self._broken is not None:
                    raise self._broken
                self._write_table()
                self._news.wait(_IDLE_S)
                self._news.clear()
        finally:
            self._ending.set()
            self._wake.ring()
            poller.join()
            self._end()

    def _work(self) -> None:
        """Do slides until there is none at the moment."""
        try:
            if self._is_cut_short:
                self._give_back()
            with closing(self._workforce.process(self._take)) as results:
                for result in results:
                    self._ended(result)
                    if self._table_age.seconds() > _TABLE_EVERY_S:
                        self._write_table()
        except OutputError as error:
            self._is_cut_short = True
            self._pause(str(error), _OUTPUT_PAUSE_S)
            with suppress(OutputError):  # the queue may be on the same disk: the next time, then
                self._give_back()
            if self._is_lost():
                raise

    def _give_back(self) -> None:
        """Put down how slides ended, and let the others that had begun wait again."""
        try:
            for result in self._workforce.ended():
                self._ended(result)
        finally:
            self._outcomes.release()
        self._running.clear()
        self._is_cut_short = False

    def _take(self) -> Input | None:
        if self._stop.is_asked or self._low or self._broken is not None:
            return None
        slide = self._queue.take(time.time(), self._settings.order, self._arrivals.lost)
        if slide is None:
            return None
        self._running[slide.path] = slide
        self._events.emit(Code.SLIDE_STARTED, slide.path, attempts=slide.attempts)
        return Input(slide.path, "slide", slide.relative)

    def _ended(self, result: InputResult) -> None:
        self._outcomes.ended(self._running.pop(result.path), result)
        self.failures += result.status == "failed"
        self._table_is_old = True
        self._look_at_disk()

    def _end(self) -> None:
        self._workforce.close()
        self._give_back()
        self._write_table()
        self._queue.beat(self._me)

    def _is_idle(self) -> bool:
        """Whether nothing can be done soon; slides that lack a part are not waited for.

        Raises:
            OutputError: something can be done but for the disk, on which too little is free.
        """
        if not self._polled.is_set():
            return False
        slides, lost = self._queue.slides(_UNDONE), self._arrivals.lost
        if not any(_is_due(slide) for slide in slides if slide.folder not in lost):
            return True
        if time.monotonic() >= self._low_until:
            self._look_at_disk()
            if why := self._low:
                raise OutputError(f"{why}; slides wait: free space, and start it again")
        return False

    def _write_table(self) -> None:
        if not self._table_is_old:
            return
        try:
            self._table.write(self._queue.slides([State.FAILED, State.QUARANTINED]))
        except OutputError as error:
            self._pause(str(error), _OUTPUT_PAUSE_S)
            return
        self._table_is_old, self._table_age = False, Stopwatch()

    def _poll(self) -> None:
        """The loop of the other thread."""
        try:
            while not self._ending.is_set():
                try:
                    self._arrivals.poll()
                    self._look_at_disk()
                    self._queue.beat(replace(self._me, beat_s=time.time()))
                    self._polled.set()
                except OutputError as error:  # of the queue
                    self._pause(str(error), _OUTPUT_PAUSE_S)
                self._on_beat()
                self._news.set()
                self._wake.wait()
        except BaseException as error:
            self._broken = error
            self._news.set()

    def _look_at_disk(self) -> None:
        if time.monotonic() < self._low_until:
            return
        try:
            check_writable(self._out / "summary.csv") if self._low else None
            free = shutil.disk_usage(self._out).free
        except (OSError, OutputError) as error:
            self._pause(str(error))
            return
        if free < self._settings.min_free_bytes:
            self._pause(
                f"{free / 2**30:.1f} GiB are free at {self._out}, "
                f"less than {self._settings.min_free_bytes / 2**30:g}",
                free_bytes=free,
            )
        elif self._low:
            self._low = ""
            self._events.emit(Code.DISK_OK, free_bytes=free)

    def _pause(self, reason: str, seconds: float = 0.0, free_bytes: int | None = None) -> None:
        """Begin no slide; said once."""
        self._low_until = time.monotonic() + seconds
        if not self._low:
            self._low = reason
            self._events.emit(Code.DISK_LOW, reason=reason, free_bytes=free_bytes)


_UNDONE = (State.SETTLING, State.WAITING, State.FAILED, State.RUNNING)


def _is_due(slide: QueuedSlide) -> bool:
    """Whether something is to be done with an undone slide now, or soon."""
    if slide.state is State.SETTLING:
        return not slide.reason
    return slide.state is not State.FAILED or (slide.again_s or 0.0) <= time.time()
