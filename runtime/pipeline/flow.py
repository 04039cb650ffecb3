"""Slides through the engine one after the other, with everything else beside it.

Threads, and what each of them owns:

- The caller's, in which the engine was opened and alone is used: it takes what was read, hands it
  to `Session.stream`, keeps the results in the slide's store, tells the reporter, and gives out how
  each slide ended. All state of the flow and of its slides is its own.
- One that plans: opens the next slide and finds its tissue while the one before is computed.
- Some that read (`Readers`): each borrows a handle of the slide for a unit.
- One that finishes: labels and files of a slide whose units are all kept, while the next one is
  computed. At most two slides wait for it; then the engine does too.

Work is handed to threads as futures, and errors come back with them, to be recorded with the slide
they are of: the others go on. What the engine raises comes up in the caller's thread, and is that
of the slides it was computing. Slides are given out in their order; one whose units cannot all be
computed is closed at once, with handles and store.

The stream of batches runs dry where nothing is read ahead and the next slide is not planned yet:
the engine would have nothing to do anyway, and what has ended meanwhile is given out.

Leaving the iteration, whatever the reason, ends all threads before it returns: what has not begun
is dropped, planning and finishing stop at their next step. Slides under way are left with what was
kept of them for the next run.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.closing import Closing
from sshr_deploy.errors import SshrDeployError
from sshr_deploy.runtime.contract import MaskRule, Session
from sshr_deploy.runtime.machine.clock import Stopwatch, Turns
from sshr_deploy.runtime.pipeline.ledger import Cause, Ledger
from sshr_deploy.runtime.pipeline.readers import Readers
from sshr_deploy.runtime.pipeline.reporting import Reporter
from sshr_deploy.runtime.pipeline.slide import SlideWork
from sshr_deploy.runtime.pipeline.unit_store import Unit
from sshr_deploy.runtime.pipeline.units import Output

_MAX_FINISHING = 2
"""Slides being finished or waiting for it: each holds a thumbnail, and its results on the disk."""

_I = TypeVar("_I")
_S = TypeVar("_S")
CheckStop = Callable[[], None]
Plan = Callable[[_I, CheckStop], SlideWork | _S]
"""Plans an input, in a thread of its own, or says how it ended already."""


class Stopped(Exception):  # noqa: N818  (no error)
    """Raised in the threads of a flow that is left."""


class _Slide(Generic[_I, _S]):
    """An input on its way."""

    def __init__(self, item: _I, planned: Future[SlideWork | _S]) -> None:
        self.item, self.planned = item, planned
        self.work: SlideWork | None = None
        self.unread: Iterator[Unit] = iter(())
        self.missing = 0  # units that are not kept yet
        self.finishing: Future[None] | None = None
        self.ended: _S | Exception | None = None

    def fail(self, error: Exception) -> None:
        self.ended = error
        if self.work is not None:
            self.work.close()

    def wait(self, future: Future[Any], cause: Cause) -> None:
        """Let the engine wait; what the future raises is for those who ask for its result."""
        if not future.done():
            watch = Stopwatch()
            wait([future])
            if self.work is not None:
                self.work.ledger.wait(cause, watch.seconds())


class Flow(Closing, Generic[_I, _S]):
    """Takes inputs through plan, read, engine and finish; see the module. Iterate over it once."""

    def __init__(
        self,
        items: Iterable[_I],
        plan: Plan[_I, _S],
        session: Session,
        rule: MaskRule | None,
        *,
        batch: int,
        readers: Readers,
        ledger: Ledger,
        reporter: Reporter,
    ) -> None:
        """Begin nothing yet.

        Args:
            items: the inputs.
            plan: called for each in its turn, with what it has to call often.
            session: the network.
            rule: of label maps, for tiles as published; None keeps CAMs.
            batch: units a call of the engine.
            readers: the reading threads, which stay the caller's.
            ledger: of the run.
            reporter: told of units as they are computed.
        """
        self._items, self._plan = iter(items), plan
        self._session, self._rule, self._batch = session, rule, batch
        self._readers, self._ledger, self._reporter = readers, ledger, reporter
        self._turns = Turns()
        self._stop = threading.Event()
        self._planner = ThreadPoolExecutor(1, thread_name_prefix="plan")
        self._finisher = ThreadPoolExecutor(1, thread_name_prefix="finish")
        self._slides: deque[_Slide[_I, _S]] = deque()  # begun and not given out
        self._next: _Slide[_I, _S] | None = None  # being planned
        self._current: _Slide[_I, _S] | None = None  # whose units are being read
        self._read: deque[tuple[_Slide[_I, _S], Unit, Future[NDArray[np.uint8]]]] = deque()
        self._fed: deque[_Slide[_I, _S]] = deque()  # of each batch that the engine has
        self._broken = False  # the engine

    def __iter__(self) -> Generator[tuple[_I, SlideWork | _S | Exception], None, None]:
        """Inputs in their order as they end, each with how: finished, failed, or not to be done.

        What is finished is closed when the next one is asked for.
        """
        try:
            self._plan_next()
            while self._slides:
                yield from self._computed()
                yield from self._given()
                if not ((self._read and not self._broken) or self._wait()):
                    return
        finally:
            self.close()

    def close(self) -> None:
        """End all threads and leave all slides; see the module."""
        self._stop.set()
        running = [reading for _, _, reading in self._read if not reading.cancel()]
        self._planner.shutdown(wait=True, cancel_futures=True)
        self._finisher.shutdown(wait=True, cancel_futures=True)
        wait(running)
        self._read.clear()
        while self._slides:
            slide = self._slides.popleft()
            if slide.work is None and slide.planned.done() and not slide.planned.cancelled():
                planned = None if slide.planned.exception() else slide.planned.result()
                slide.work = planned if isinstance(planned, SlideWork) else None
            if slide.work is not None and slide.ended is None:
                slide.work.leave()

    def _computed(self) -> Iterator[tuple[_I, SlideWork | _S | Exception]]:
        """Compute until nothing is at hand; gives out what ends meanwhile."""
        if self._broken:
            return
        results = self._session.stream(iter(self._next_batch, None), self._rule)
        while True:
            seconds: list[float] = []
            try:
                with self._turns.spent(seconds.append):
                    result = next(results, None)
            except Exception as error:
                return self._engine_failed(error)
            if result is None:
                return
            (slide, units), output = result
            self._fed.popleft()
            self._keep(slide, units, output, seconds[0])
            yield from self._given()

    def _engine_failed(self, error: Exception) -> None:
        self._broken = isinstance(error, SshrDeployError)
        if not self._fed:
            raise error
        for slide in self._fed:
            if self._broken and slide.ended is None and slide.work is not None:
                slide.work.leave()
            slide.fail(error)
        self._fed.clear()

    def _keep(
        self, slide: _Slide[_I, _S], units: Sequence[Unit], output: Output, engine_s: float
    ) -> None:
        work, watch = slide.work, Stopwatch()
        assert work is not None
        work.ledger.add("infer", engine_s)
        if slide.ended is not None:
            return  # it failed meanwhile
        try:
            with work.ledger.working("keep"):
                work.keep(units, output)
        except Exception as error:
            slide.fail(error)
            return
        self._readers.computed(len(units), engine_s + watch.seconds(), self._ledger.mean_s("read"))
        slide.missing -= len(units)
        self._reporter.tiles_done(work.path, len(units))
        if slide.missing == 0:
            self._finish(slide)

    def _next_batch(
        self,
    ) -> tuple[tuple[_Slide[_I, _S], list[Unit]], NDArray[np.uint8]] | None:
        """Units of one slide that are read; None where nothing is at hand."""
        while True:
            self._read_ahead()
            if not self._read:
                return None
            slide = self._read[0][0]
            units: list[Unit] = []
            pixels: list[NDArray[np.uint8]] = []
            while self._read and self._read[0][0] is slide and len(units) < self._batch:
                _, unit, reading = self._read.popleft()
                if slide.ended is not None:
                    reading.cancel()
                    continue
                with self._turns.spent(lambda _: None):  # is no time of the engine
                    slide.wait(reading, "read")
                try:
                    pixels.append(reading.result())
                    units.append(unit)
                except Exception as error:
                    slide.fail(error)
            if slide.ended is None:
                self._fed.append(slide)
                return (slide, units), pixels[0][None] if len(pixels) == 1 else np.stack(pixels)

    def _read_ahead(self) -> None:
        """Ask for units until enough are under way, of the next slide too if it is planned."""
        window = 2 * self._batch + self._readers.count
        while len(self._read) < window:
            slide = self._current
            if slide is None:
                if not self._take_planned():
                    return
                continue
            unit = None if slide.ended is not None else next(slide.unread, None)
            if unit is None or slide.work is None:
                self._current = None
                continue
            self._read.append((slide, unit, self._readers.submit(slide.work.read, unit)))

    def _take_planned(self) -> bool:
        """Go on to the next slide if it is planned, and let the one after it be planned."""
        slide = self._next
        if slide is None or not slide.planned.done():
            return False
        self._plan_next()
        try:
            planned = slide.planned.result()
        except Exception as error:
            slide.ended = error
            return True
        if isinstance(planned, SlideWork):
            slide.work = planned
            self._begin(slide, planned)
        else:
            slide.ended = planned
        return True

    def _begin(self, slide: _Slide[_I, _S], work: SlideWork) -> None:
        slide.unread, slide.missing = iter(work.todo), len(work.todo)
        units = len(work.units.places)
        self._reporter.input_started(work.path, units, work.unit_mm2)
        if slide.missing < units:  # an interrupted run has done the others
            self._reporter.tiles_done(work.path, units - slide.missing)
        if slide.missing:
            self._current = slide
        else:
            self._finish(slide)

    def _plan_next(self) -> None:
        self._next = None
        for item in self._items:
            self._next = _Slide(item, self._planner.submit(self._plan, item, self._check_stop))
            self._slides.append(self._next)
            return

    def _finish(self, slide: _Slide[_I, _S]) -> None:
        before = [(s, s.finishing) for s in self._slides if s.finishing is not None]
        if len(before) >= _MAX_FINISHING:
            first, finishing = before[-_MAX_FINISHING]
            with self._turns.spent(lambda _: None):  # it may be within the stream
                first.wait(finishing, "write")
        assert slide.work is not None
        slide.finishing = self._finisher.submit(slide.work.finish, self._check_stop)

    def _given(self) -> Iterator[tuple[_I, SlideWork | _S | Exception]]:
        """The inputs that have ended, up to the first that has not."""
        while self._slides:
            slide = self._slides[0]
            if slide.ended is None:
                if slide.finishing is None or not slide.finishing.done():
                    return
                error = slide.finishing.exception()
                if isinstance(error, Exception):
                    slide.fail(error)
            outcome = slide.ended if slide.ended is not None else slide.work
            assert outcome is not None
            self._slides.popleft()
            try:
                yield slide.item, outcome
            finally:
                if slide.work is not None:
                    slide.work.close()

    def _wait(self) -> bool:
        """Wait until a slide is planned or the first is finished; False if neither will be."""
        first = self._slides[0] if self._slides else None
        if first is None or first.ended is not None:
            return True
        if self._next is not None and not self._broken:
            futures: list[Future[Any]] = [self._next.planned]
            if first.finishing is not None:
                futures.append(first.finishing)
            watch = Stopwatch()
            wait(futures, return_when=FIRST_COMPLETED)
            self._ledger.wait("plan", watch.seconds())
        elif first.finishing is not None:
            first.wait(first.finishing, "write")
        else:
            return False
        return True

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise Stopped
