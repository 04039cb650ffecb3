"""Counts what a piece of work asks for, and compares its processor time with a plain version's."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple
from unittest.mock import patch

import cv2

_TURNS = 7


class Finding(NamedTuple):
    """A figure that may not be above its limit, nor nil: then nothing was counted."""

    name: str
    value: float
    limit: float
    unit: str

    @property
    def held(self) -> bool:
        """Whether the gate lets it pass; NaN and 0 do not."""
        return 0 < self.value <= self.limit


@dataclass
class Tally:
    """How often a function was called, and how much it gave."""

    calls: int = 0
    amount: float = 0.0


@contextmanager
def tallied(
    owner: object, name: str, amount_of: Callable[[Any], float] = lambda _: 0.0
) -> Iterator[Tally]:
    """Count the calls of function `name` of a module, class or object inside the block.

    `amount_of` says how much a call's result counts.
    """
    tally, function = Tally(), getattr(owner, name)

    def counted(*arguments: Any, **named: Any) -> Any:
        result = function(*arguments, **named)
        tally.calls += 1
        tally.amount += amount_of(result)
        return result

    with patch.object(owner, name, counted):
        yield tally


def peak_bytes(call: Callable[[], object]) -> int:
    """Most memory of Python and NumPy at a time that a call needs, beyond what was there before."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        call()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def cpu_ratio(
    ours: Callable[[], object], plain: Callable[[], object], turns: int = _TURNS
) -> float:
    """Processor time of `ours` over that of `plain`: the least of several turns of each.

    What other processes take does not count, but for the caches and the core that they share with
    this one; the two take turns, so that this falls on both. OpenCV gets one thread, which does not
    spin.
    """
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        least = [float("inf"), float("inf")]
        for _ in range(turns):
            for index, call in enumerate((ours, plain)):
                began = time.process_time()
                call()
                least[index] = min(least[index], time.process_time() - began)
    finally:
        cv2.setNumThreads(threads)
    return least[0] / least[1]
