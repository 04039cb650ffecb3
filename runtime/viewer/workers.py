"""Threads that read files, few at once, with a bounded queue before them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
import anyio.to_thread

T = TypeVar("T")


class TooBusyError(Exception):
    """The queue is full; the request may come again."""


class Workers:
    """At most `threads` calls at once, and at most `waiting` before them."""

    def __init__(self, threads: int, waiting: int) -> None:
        self._free = anyio.Semaphore(threads)
        self._most = threads + waiting
        self._held = 0

    async def run(self, work: Callable[[], T], is_gone: Callable[[], Awaitable[bool]]) -> T:
        """Result of `work` in a thread; not begun where whoever asked `is_gone` by then.

        Raises:
            TooBusyError: the queue is full, or nobody waits for the answer any more.
        """
        if self._held >= self._most:
            raise TooBusyError("busy, ask again")
        self._held += 1
        try:
            async with self._free:
                if await is_gone():
                    raise TooBusyError("nobody waits for it")
                return await anyio.to_thread.run_sync(work)
        finally:
            self._held -= 1
