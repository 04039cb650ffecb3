"""Work in a thread beside a block of code."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

_T = TypeVar("_T")

Check = Callable[[], None]


class Begin(Protocol):
    """What `beside` gives."""

    def __call__(self, work: Callable[[Check], _T], /) -> Future[_T]:
        """Begin a piece of work, after those begun before; gives what it will return."""


@contextmanager
def beside(check_stop: Check = lambda: None) -> Iterator[Begin]:
    """Give a function that begins a piece of work in a thread; the block ends after it has.

    Pieces follow one another. The work gets a check to call often, which raises what `check_stop`
    does, and ends the work where the block has failed. The block's error comes first, then the
    work's is raised.
    """
    failed = threading.Event()
    begun: list[Future[Any]] = []

    def check() -> None:
        if failed.is_set():
            raise CancelledError
        check_stop()

    with ThreadPoolExecutor(1, thread_name_prefix="beside") as pool:

        def begin(work: Callable[[Check], _T], /) -> Future[_T]:
            begun.append(pool.submit(work, check))
            return begun[-1]

        try:
            yield begin
        except BaseException:
            failed.set()
            raise
    for work in begun:
        work.result()
