"""What the engine is fed with: slides planned one ahead, their units read some ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.closing import Closing
from sshr_deploy.errors import InputError, OutputError, SlowSlideError
from sshr_deploy.runtime.machine.clock import Stopwatch
from sshr_deploy.runtime.pipeline.ledger import Cause
from sshr_deploy.runtime.pipeline.readers import Readers
from sshr_deploy.runtime.pipeline.slide import SlideWork
from sshr_deploy.runtime.pipeline.unit_store import Unit

I = TypeVar("I")  # noqa: E741  (an input)
S = TypeVar("S")
CheckStop = Callable[[], None]
Take = Callable[[], I | None]
"""Gives the next input, or None where there is none at the moment; it is asked again then."""
Plan = Callable[[I, CheckStop], SlideWork | S]
"""Plans an input, in a thread of its own, or says how it ended already."""


class UnderWay(Generic[I, S]):
    """An input on its way."""

    def __init__(self, item: I, planned: Future[SlideWork | S]) -> None:
        self.item, self.planned = item, planned
        self.work: SlideWork | None = None
        """Once it is planned."""
        self.unread: Iterator[Unit] = iter(())
        self.missing = 0
        """Units that are not kept yet."""
        self.finishing: Future[None] | None = None
        self.ended: S | Exception | None = None
        """The error, or what the planning said."""

    def fail(self, error: Exception) -> None:
        """Close it, with what was kept of it; that is left where another try may get further.

        So it is where the slide was only slow, the disk is full, or the slide's share is gone.
        """
        self.ended = error
        if self.work is None:
            return
        if isinstance(error, (SlowSlideError, OutputError)) or (
            isinstance(error, InputError) and not _is_there(self.work.path)
        ):
            self.work.leave()
        else:
            self.work.close()

    def wait(self, future: Future[Any], cause: Cause) -> None:
        """Let the engine wait; what the future raises is for those who ask for its result."""
        if not future.done():
            watch = Stopwatch()
            wait([future])
            if self.work is not None:
                self.work.ledger.wait(cause, watch.seconds())

    def end(self, *, leave: bool) -> None:
        """Close it; with `leave` what was kept stays for the next run, if it has not failed."""
        if self.work is None and self.planned.done() and not self.planned.cancelled():
            planned = None if self.planned.exception() else self.planned.result()
            self.work = planned if isinstance(planned, SlideWork) else None
        if self.work is None or self.ended is not None:
            return
        if leave:
            self.work.leave()
        else:
            self.work.close()


def _is_there(path: Path) -> bool:
    """Whether anything of a file can be read."""
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError:
        return False
    return True


class Batch(NamedTuple, Generic[I, S]):
    """Units of one slide, of one size."""

    slide: UnderWay[I, S]
    units: list[Unit]


class _Reading(NamedTuple, Generic[I, S]):
    slide: UnderWay[I, S]
    unit: Unit
    pixels: Future[NDArray[np.uint8]]

    @property
    def kind(self) -> tuple[UnderWay[I, S], Unit]:
        """Units of the same may share a batch: slide and size."""
        return self.slide, self.unit[2:]


class Feed(Closing, Generic[I, S]):
    """Batches of units of inputs in their order; `flow` says in which thread."""

    def __init__(
        self,
        take: Take[I],
        plan: Plan[I, S],
        check_stop: CheckStop,
        on_planned: Callable[[UnderWay[I, S], SlideWork], None],
        *,
        batch: int,
        readers: Readers,
    ) -> None:
        """Begin to plan the first input.

        Args:
            take: gives the inputs.
            plan: called for each in its turn.
            check_stop: given to it.
            on_planned: told of each slide, before its units are read.
            batch: most units of a batch.
            readers: the reading threads, which stay the caller's.
        """
        self.under_way: deque[UnderWay[I, S]] = deque()
        """Inputs that have begun; the flow takes them away."""
        self.next: UnderWay[I, S] | None = None
        """The one that is being planned."""
        self._take, self._plan, self._check_stop = take, plan, check_stop
        self._on_planned, self._batch, self._readers = on_planned, batch, readers
        self._planner = ThreadPoolExecutor(1, thread_name_prefix="plan")
        self._current: UnderWay[I, S] | None = None  # whose units are being read
        self._readings: deque[_Reading[I, S]] = deque()
        self._plan_next()

    @property
    def has_units(self) -> bool:
        """Whether units are being read or are read."""
        return bool(self._readings)

    def next_batch(self) -> tuple[Batch[I, S], NDArray[np.uint8]] | None:
        """Units that are read and their pixels [B, height, width, 3]; None if none is at hand."""
        if self.next is None:  # there may be an input by now
            self._plan_next()
        while True:
            self._read_ahead()
            if not self._readings:
                return None
            kind = slide, _ = self._readings[0].kind
            units: list[Unit] = []
            pixels: list[NDArray[np.uint8]] = []
            while len(units) < self._batch and self._readings and self._readings[0].kind == kind:
                reading = self._readings.popleft()
                if slide.ended is not None:
                    reading.pixels.cancel()
                    continue
                slide.wait(reading.pixels, "read")
                try:
                    pixels.append(reading.pixels.result())
                    units.append(reading.unit)
                except Exception as error:
                    slide.fail(error)
            if slide.ended is not None:
                continue
            try:
                stacked = pixels[0][None] if len(pixels) == 1 else np.stack(pixels)
            except MemoryError as error:
                slide.fail(error)
                continue
            return Batch(slide, units), stacked

    def close(self) -> None:
        """End the planning thread and all reading."""
        running = [r.pixels for r in self._readings if not r.pixels.cancel()]
        self._planner.shutdown(wait=True, cancel_futures=True)
        wait(running)
        self._readings.clear()

    def _read_ahead(self) -> None:
        """Ask for units until enough are under way, of the next slide too if it is planned."""
        window = 2 * self._batch + self._readers.count
        while len(self._readings) < window:
            slide = self._current
            if slide is None:
                if not self._take_planned():
                    return
                continue
            unit = None if slide.ended is not None else next(slide.unread, None)
            if unit is None or slide.work is None:
                self._current = None
                continue
            pixels = self._readers.submit(slide.work.read, unit)
            self._readings.append(_Reading(slide, unit, pixels))

    def _take_planned(self) -> bool:
        """Go on to the next slide if it is planned, and let the one after it be planned."""
        slide = self.next
        if slide is None or not slide.planned.done():
            return False
        self._plan_next()
        try:
            planned = slide.planned.result()
        except Exception as error:
            slide.ended = error
            return True
        if not isinstance(planned, SlideWork):
            slide.ended = planned
            return True
        slide.work = planned
        slide.unread, slide.missing = iter(planned.todo), len(planned.todo)
        self._on_planned(slide, planned)
        self._current = slide
        return True

    def _plan_next(self) -> None:
        item = self._take()
        if item is None:
            self.next = None
            return
        self.next = UnderWay(item, self._planner.submit(self._plan, item, self._check_stop))
        self.under_way.append(self.next)
