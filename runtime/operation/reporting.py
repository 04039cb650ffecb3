"""Events of a run, by way of its reporter."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sshr_deploy.errors import first_line, one_line
from sshr_deploy.runtime.contract import SessionInfo
from sshr_deploy.runtime.operation.ended import emit_ended
from sshr_deploy.runtime.operation.events import Code, Events
from sshr_deploy.runtime.operation.health import Health
from sshr_deploy.runtime.pipeline.reporting import Reporter
from sshr_deploy.runtime.results.findings import InputResult
from sshr_deploy.version import __version__


@contextmanager
def started(events: Events, health: Health, engine: SessionInfo) -> Iterator[None]:
    """Emit `STARTED` before the block and `STOPPED` after it, with a reason where it raises."""
    health.runs_on(engine)
    events.emit(
        Code.STARTED,
        version=__version__,
        engine=engine.engine,
        precision=engine.precision,
        device=engine.device,
        host=platform.node(),
        pid=os.getpid(),
    )
    reason: str | None = None
    try:
        yield
    except KeyboardInterrupt:
        reason = "interrupted"
        raise
    except BaseException as error:
        reason = one_line(first_line(error))
        raise
    finally:
        events.emit(Code.STOPPED, reason=reason)


class TakeoverReporter:
    """A reporter that emits `TAKEN_OVER`, and tells another reporter all."""

    def __init__(self, reporter: Reporter, events: Events) -> None:
        self._reporter, self._events = reporter, events

    def run_started(self, inputs: int) -> None:
        """See `Reporter`."""
        self._reporter.run_started(inputs)

    def input_started(self, path: Path, tiles: int, tile_mm2: float | None = None) -> None:
        """See `Reporter`."""
        self._reporter.input_started(path, tiles, tile_mm2)

    def taken_over(self, path: Path, holder: str) -> None:
        """See `Reporter`."""
        self._events.emit(Code.TAKEN_OVER, path, reason=f"{holder} gave no sign of life")
        self._reporter.taken_over(path, holder)

    def tiles_done(self, path: Path, tiles: int) -> None:
        """See `Reporter`."""
        self._reporter.tiles_done(path, tiles)

    def input_finished(self, result: InputResult) -> None:
        """See `Reporter`."""
        self._reporter.input_finished(result)


class EventReporter(TakeoverReporter):
    """One that emits beginnings and endings too, and gives signs of life."""

    def __init__(self, reporter: Reporter, events: Events, health: Health, out: Path) -> None:
        """Results go below `out`."""
        super().__init__(reporter, events)
        self._health, self._out = health, out

    def input_started(self, path: Path, tiles: int, tile_mm2: float | None = None) -> None:
        """See `Reporter`."""
        self._health.alive()
        mm2 = None if tile_mm2 is None else tiles * tile_mm2
        self._events.emit(Code.SLIDE_STARTED, path, tiles=tiles, compute_mm2=mm2)
        super().input_started(path, tiles, tile_mm2)

    def tiles_done(self, path: Path, tiles: int) -> None:
        """See `Reporter`."""
        self._health.alive()
        super().tiles_done(path, tiles)

    def input_finished(self, result: InputResult) -> None:
        """See `Reporter`."""
        self._health.alive()
        emit_ended(self._events, result, self._out)
        super().input_finished(result)
