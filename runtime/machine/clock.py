"""The time of day, for records, and how long work takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

_T = TypeVar("_T")


def now_utc() -> str:
    """The time as ISO 8601, in UTC, to the second."""
    return iso_utc(time.time())


def iso_utc(time_s: float) -> str:
    """A time in seconds since 1970 as ISO 8601, in UTC, to the second."""
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="seconds")


def stamp_utc() -> str:
    """The time for names of files that sort by it: "20260131T235959.123Z", in UTC."""
    now = datetime.now(UTC)
    return f"{now:%Y%m%dT%H%M%S}.{now.microsecond // 1000:03d}Z"


class Stopwatch:
    """Runs from the moment it is made."""

    def __init__(self) -> None:
        self._started = time.perf_counter()

    def seconds(self) -> float:
        """Since then."""
        return time.perf_counter() - self._started


class Turns:
    """Times blocks of one thread; a block within a block counts as the inner one alone."""

    def __init__(self) -> None:
        self._inner = 0.0  # seconds of finished blocks

    @contextmanager
    def spent(self, add: Callable[[float], None]) -> Iterator[None]:
        """Tell `add` the seconds that the block took."""
        watch, inner_before = Stopwatch(), self._inner
        try:
            yield
        finally:
            elapsed = watch.seconds()
            own = elapsed - (self._inner - inner_before)
            self._inner = inner_before + elapsed
            add(own)


class Stages:
    """Seconds by stage, of one thread; a stage within a stage counts as the inner one alone."""

    def __init__(self) -> None:
        self._watch, self._turns = Stopwatch(), Turns()
        self._seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the block's time to stage `name`."""
        with self._turns.spent(partial(self._add, name)):
            yield

    def each(self, name: str, items: Iterable[_T]) -> Iterator[_T]:
        """The items; the time that each takes to come is added to stage `name`."""
        iterator = iter(items)
        while True:
            with self.stage(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def _add(self, name: str, seconds: float) -> None:
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def spent_s(self, name: str) -> float:
        """Seconds in stage `name` so far."""
        return self._seconds.get(name, 0.0)

    def seconds(self) -> dict[str, float]:
        """Seconds by stage, in the order of first use, and "total" since the beginning."""
        total = self._watch.seconds()
        return {k: round(v, 4) for k, v in {**self._seconds, "total": total}.items()}
