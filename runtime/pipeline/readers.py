"""Reading threads of a run, and how many there are."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.closing import Closing
from sshr_deploy.figures import in_digits
from sshr_deploy.runtime.machine.threads import usable_cores

_FEWEST = 2
"""One reads while another decodes."""
_SPARE = 1.25
"""Threads for each that the mean asks for: some units take longer than others."""
_MEASURED_BATCHES = 3
_MEASURED_UNITS = 8

_T = TypeVar("_T")


class Readers(Closing):
    """A pool of reading threads: a fixed number, or one chosen by the first units of a run.

    It begins with two threads. Once a few units were read and computed it has as many as keep up
    with the engine, and at most one a core.
    """

    def __init__(self, wish: int | None = None) -> None:
        self.count = wish or _FEWEST
        self.chosen_by = "`readers`" if wish else "too little was read to measure"
        self._chosen = wish is not None
        self._batches = self._units = 0
        self._engine_s = 0.0
        self._pools = [self._pool()]

    def submit(
        self, read: Callable[[_T], NDArray[np.uint8]], unit: _T
    ) -> Future[NDArray[np.uint8]]:
        """Read a unit in one of the threads."""
        return self._pools[-1].submit(read, unit)

    def computed(self, units: int, seconds: float, read_s: float) -> None:
        """A batch of `units` took the engine's thread `seconds`; reading a unit takes `read_s`."""
        if self._chosen:
            return
        self._batches += 1
        if self._batches == 1:
            return  # engines take long for their first
        self._units += units
        self._engine_s += seconds
        if self._batches > _MEASURED_BATCHES and self._units >= _MEASURED_UNITS:
            self._choose(read_s, self._engine_s / self._units)

    def close(self) -> None:
        """End the threads; what they have not begun is not read."""
        for pool in self._pools:
            pool.shutdown(wait=True, cancel_futures=True)

    def _choose(self, read_s: float, engine_s: float) -> None:
        cores = usable_cores()
        wanted = math.ceil(_SPARE * read_s / max(engine_s, 1e-9))
        count = min(max(_FEWEST, wanted), max(_FEWEST, cores))
        self._chosen = True
        read_ms, engine_ms = in_digits(read_s * 1e3), in_digits(engine_s * 1e3)
        self.chosen_by = (
            f"{read_ms} ms to read and {engine_ms} ms to compute a unit, "
            f"{cores} core{'s' * (cores > 1)}"
        )
        if count != self.count:
            self.count = count
            self._pools[-1].shutdown(wait=False)  # it does what it was given
            self._pools.append(self._pool())

    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.count, thread_name_prefix="read")
