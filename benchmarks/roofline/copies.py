"""Copies by several threads, in memory and within the caches."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_CPUS = Path("/sys/devices/system/cpu")
_MEMORY_MIN_BYTES, _MEMORY_MAX_BYTES = 1 << 27, 1 << 30
_CALL_BYTES = 1 << 26
"""A call copies at least so much, so that waking its threads does not count."""


def last_level_bytes(cpus: Path = _CPUS) -> int | None:
    """Size of the largest caches of the usable cores, each counted once; None where unknown."""
    caches: dict[str, tuple[int, int]] = {}  # level and size by the cores that share one
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    for cpu in usable:
        for entry in (cpus / f"cpu{cpu}" / "cache").glob("index*"):
            try:
                level = int((entry / "level").read_text("ascii"))
                size = (entry / "size").read_text("ascii").strip()
                shared = (entry / "shared_cpu_list").read_text("ascii").strip()
                caches[f"{level} {shared}"] = level, int(size.removesuffix("K")) * 1024
            except (OSError, ValueError):  # no such file on this system, or in another form
                continue
    if not caches:
        return None
    last = max(level for level, _ in caches.values())
    return sum(size for level, size in caches.values() if level == last)


def memory_copy(pool: ThreadPoolExecutor, threads: int, cache: int | None) -> Copy:
    """A copy of far more than the caches hold."""
    return Copy(pool, threads, min(max(4 * (cache or 0), _MEMORY_MIN_BYTES), _MEMORY_MAX_BYTES))


def cached_copy(pool: ThreadPoolExecutor, threads: int, cache: int) -> Copy:
    """A copy within the caches, of which source and target take half."""
    return Copy(pool, threads, cache // 2)


class Copy:
    """Copies by `threads` threads of `pool`; sources and targets together are `held` bytes."""

    moved_bytes: int
    """Read and written by a call."""

    def __init__(self, pool: ThreadPoolExecutor, threads: int, held: int) -> None:
        each = max(held // (2 * threads), 1)
        self.buffers = [(np.ones(each, np.uint8), np.zeros(each, np.uint8)) for _ in range(threads)]
        self.repeats = max(1, _CALL_BYTES // (2 * each * threads))
        self.moved_bytes = 2 * each * threads * self.repeats
        self._pool = pool

    def __call__(self) -> None:
        """Copy once with all threads."""
        for done in [self._pool.submit(self._copy, *pair) for pair in self.buffers]:
            done.result()

    def _copy(self, source: NDArray[np.uint8], target: NDArray[np.uint8]) -> None:
        for _ in range(self.repeats):
            np.copyto(target, source)  # which lets other threads run meanwhile
