"""Reading in threads ahead of whoever computes, and batches of what was read."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_READERS = 2
"""Threads: one reads while another decodes; more would take cores from the network."""

_K = TypeVar("_K")
_V = TypeVar("_V")


def read_ahead(
    items: Iterable[_K], read: Callable[[_K], _V], *, ahead: int, threads: int = _READERS
) -> Generator[_V, None, None]:
    """Results of `read` for each item, in order; its errors are raised in their turn.

    `read` runs in `threads`, up to `ahead` items before they are asked for. Close the generator
    (`contextlib.closing`) where it may not be read to its end: that ends the threads.
    """
    pending: deque[Future[_V]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="read") as pool:
        try:
            for item in items:
                pending.append(pool.submit(read, item))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def batches(items: Iterable[_V], size: int) -> Iterator[list[_V]]:
    """Lists of `size` items, in order; the last may be shorter. None is empty."""
    batch: list[_V] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
