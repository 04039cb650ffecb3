"""Slides through the engine one after the other, with everything else beside it.

Threads, and what each of them owns:

- The caller's, in which the engine was opened and alone is used: it takes what was read, hands it
  to `Session.stream`, keeps the results in the slide's store, tells the reporter, and gives out how
  each slide ended. All state of the flow and of its slides is its own.
- One that plans (`Feed`): opens the next slide and finds its tissue while the one before is
  computed.
- Some that read (`Readers`), by one handle of each slide (`SharedReader`).
- One that finishes: labels and files of a slide whose units are all kept, while the next one is
  computed. At most two slides wait for it; then the engine does too.

Work is handed to threads as futures, and errors come back with them, to be recorded with the slide
they are of: the others go on. What the engine raises comes up in the caller's thread, and is that
of the slides it was computing. Slides are given out in their order; one whose units cannot all be
computed is closed at once, with reader and store.

The stream of batches runs dry where nothing is read ahead and the next slide is not planned yet:
the engine would have nothing to do anyway, and what has ended meanwhile is given out.

Leaving the iteration, whatever the reason, ends all threads before it returns: what has not begun
is dropped, planning and finishing stop at their next step. Slides under way are left with what was
kept of them for the next run. A request to stop (`StopRequest`) does the same once what the engine
has in hand is kept.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Generic

from sshr_deploy.closing import Closing
from sshr_deploy.errors import SshrDeployError
from sshr_deploy.runtime.contract import MaskRule, Session
from sshr_deploy.runtime.machine.clock import Stopwatch, Turns
from sshr_deploy.runtime.pipeline.feed import Batch, Feed, I, Plan, S, Take, UnderWay
from sshr_deploy.runtime.pipeline.ledger import Ledger
from sshr_deploy.runtime.pipeline.readers import Readers
from sshr_deploy.runtime.pipeline.reporting import Reporter
from sshr_deploy.runtime.pipeline.slide import SlideWork
from sshr_deploy.runtime.pipeline.stopping import StopRequest
from sshr_deploy.runtime.pipeline.units import Output

_MAX_FINISHING = 2
"""Slides being finished or waiting for it: each holds a thumbnail, and its results on the disk."""


class Stopped(Exception):  # noqa: N818  (no error)
    """Raised in the threads of a flow that is left."""


class Flow(Closing, Generic[I, S]):
    """Takes inputs through plan, read, engine and finish; see the module. Iterate over it once.

    It ends when all inputs that have begun have ended and `take` gives no other.
    """

    def __init__(
        self,
        take: Take[I],
        plan: Plan[I, S],
        session: Session,
        rule: MaskRule | None,
        *,
        batch: int,
        readers: Readers,
        ledger: Ledger,
        reporter: Reporter,
        stop: StopRequest,
        may_leave: Callable[[], bool] = lambda: True,
    ) -> None:
        """Begin to plan the first input.

        Args:
            take: gives the inputs; called in the caller's thread.
            plan: called for each in its turn, with what it has to call often.
            session: the network.
            rule: of label maps, for tiles as published; None keeps CAMs.
            batch: units a call of the engine.
            readers: the reading threads, which stay the caller's.
            ledger: of the run.
            reporter: told of units as they are computed.
            stop: looked at between batches.
            may_leave: whether what was kept of slides under way may be left for the next run.
        """
        self._session, self._rule = session, rule
        self._readers, self._ledger, self._reporter = readers, ledger, reporter
        self._may_leave, self._turns = may_leave, Turns()
        self._request, self._stop = stop, threading.Event()
        self._finisher = ThreadPoolExecutor(1, thread_name_prefix="finish")
        self._fed: deque[UnderWay[I, S]] = deque()  # of each batch that the engine has
        self._broken = False  # the engine
        self._unsaid: Exception | None = None  # by it, where each of its slides has its own
        self._feed = Feed(take, plan, self._check_stop, self._planned, batch=batch, readers=readers)
        self._slides = self._feed.under_way

    def __iter__(self) -> Generator[tuple[I, SlideWork | S | Exception], None, None]:
        """Inputs in their order as they end, each with how: finished, failed, or not to be done.

        What is finished is closed when the next one is asked for.

        Raises:
            KeyboardInterrupt: a stop was requested.
            SessionError: the engine fails.
        """
        try:
            while self._slides:
                yield from self._computed()
                yield from self._given()
                self._request.check()
                at_hand = self._feed.has_units and not self._broken
                if not (at_hand or self._wait()):
                    break
            if self._unsaid is not None:
                raise self._unsaid
        finally:
            self.close()

    def close(self) -> None:
        """End all threads and leave all slides; see the module."""
        self._stop.set()
        self._feed.close()
        self._finisher.shutdown(wait=True, cancel_futures=True)
        may_leave = self._may_leave()
        while self._slides:
            self._slides.popleft().end(leave=may_leave)

    def _computed(self) -> Iterator[tuple[I, SlideWork | S | Exception]]:
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
            batch, output = result
            self._fed.popleft()
            self._keep(batch, output, seconds[0])
            yield from self._given()

    def _next_batch(self) -> tuple[Batch[I, S], Any] | None:
        if self._request.is_asked:
            return None
        with self._turns.spent(lambda _: None):  # is no time of the engine
            found = self._feed.next_batch()
        if found is not None:
            slide = found[0].slide
            assert slide.work is not None
            slide.work.limit.go_on()
            self._fed.append(slide)
        return found

    def _engine_failed(self, error: Exception) -> None:
        self._broken = isinstance(error, SshrDeployError)
        if not self._fed:
            raise error
        self._unsaid = error
        for slide in self._fed:
            if slide.ended is None:
                slide.end(leave=self._broken and self._may_leave())
                slide.ended, self._unsaid = error, None
        self._fed.clear()

    def _keep(self, batch: Batch[I, S], output: Output, engine_s: float) -> None:
        slide, units = batch
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
            self._finish(slide, work)

    def _planned(self, slide: UnderWay[I, S], work: SlideWork) -> None:
        self._reporter.input_started(work.path, slide.missing, work.unit_mm2)
        if slide.missing == 0:
            self._finish(slide, work)

    def _finish(self, slide: UnderWay[I, S], work: SlideWork) -> None:
        before = [(s, s.finishing) for s in self._slides if s.finishing is not None]
        if len(before) >= _MAX_FINISHING:
            first, finishing = before[-_MAX_FINISHING]
            first.wait(finishing, "write")
        work.limit.pause()
        slide.finishing = self._finisher.submit(work.finish, self._check_stop)

    def _given(self) -> Iterator[tuple[I, SlideWork | S | Exception]]:
        """The inputs that have ended, up to the first that has not."""
        while self._slides:
            slide = self._slides[0]
            if slide.ended is None:
                if slide.finishing is None or not slide.finishing.done():
                    return
                error = slide.finishing.exception()
                if isinstance(error, Stopped):
                    return
                if isinstance(error, Exception):
                    slide.fail(error)
            outcome = slide.ended if slide.ended is not None else slide.work
            assert outcome is not None
            if isinstance(outcome, Stopped):
                return
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
        if self._feed.next is not None and not self._broken:
            futures: list[Future[Any]] = [self._feed.next.planned]
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
        if self._stop.is_set() or self._request.is_asked:
            raise Stopped
