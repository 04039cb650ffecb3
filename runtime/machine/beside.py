"""Work in a thread beside a block of code."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager

Check = Callable[[], None]


@contextmanager
def beside(check_stop: Check = lambda: None) -> Iterator[Callable[[Callable[[Check], None]], None]]:
    """Give a function that begins a piece of work in a thread; the block ends after it has.

    The work gets a check to call often, which raises what `check_stop` does, and ends the work
    where the block has failed. The block's error comes first, then the work's is raised.
    """
    failed = threading.Event()
    begun: list[Future[None]] = []

    def check() -> None:
        if failed.is_set():
            raise CancelledError
        check_stop()

    with ThreadPoolExecutor(1, thread_name_prefix="beside") as pool:
        try:
            yield lambda work: begun.append(pool.submit(work, check))
        except BaseException:
            failed.set()
            raise
    for work in begun:
        work.result()
