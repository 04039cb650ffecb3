"""Whether other work ran beside a measurement."""

from __future__ import annotations

import os
from contextlib import suppress

import psutil

BUSY_SHARE = 0.1
"""Of the time of the cores that this process may run on: above it no ratio of a measurement is
told."""
_MOST_OF_CEILING = 1.2
"""Convolutions reach more than a plain matrix product, but not by more (`benchmarks/notes.md`)."""
_SHORT_S = 1.0
"""Ticks of 10 ms say nothing of less."""


class Neighbours:
    """The work of others since it was made: all that the cores did, less this process.

    Processes that this one started and waited for count as its own.
    """

    def __init__(self) -> None:
        self._work = _Work.now()

    def share(self) -> float | None:
        """Of these cores' time so far; None where it is too short to tell."""
        now, before = _Work.now(), self._work
        cores_s = now.cores_s - before.cores_s
        if cores_s < _SHORT_S * now.cores:
            return None
        others_s = now.busy_s - before.busy_s - (now.own_s - before.own_s)
        return float(min(max(others_s / cores_s, 0.0), 1.0))


def busy_text(share: float | None) -> str | None:
    """Why a measurement beside so much other work allows no ratio; None where it does."""
    if share is None or share <= BUSY_SHARE:
        return None
    return (
        f"other work took {share:.0%} of the cores' time (at most {BUSY_SHARE:.0%}), so the "
        "machine was busy"
    )


def spoiled_ceiling(share: float) -> str | None:
    """Why that share of a ceiling cannot be; None where it can."""
    if share <= _MOST_OF_CEILING:
        return None
    return f"{share:.0%} cannot be: other work ran while the ceiling was measured"


class _Work:
    """Seconds since the system began of the cores, and of this process with its children."""

    def __init__(self, cores: int, cores_s: float, busy_s: float, own_s: float) -> None:
        self.cores, self.cores_s, self.busy_s, self.own_s = cores, cores_s, busy_s, own_s

    @classmethod
    def now(cls) -> _Work:
        cores = psutil.cpu_times(percpu=True)
        if hasattr(os, "sched_getaffinity"):
            usable = os.sched_getaffinity(0)
            cores = [times for core, times in enumerate(cores) if core in usable] or cores
        every = busy = 0.0
        for times in cores:
            # Time of guests is in `user` and `nice` already; that which other virtual machines
            # took ("steal") is in neither, and counts as busy.
            whole = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
            every += whole
            busy += whole - times.idle - getattr(times, "iowait", 0.0)
        return cls(len(cores), every, busy, _own_s(psutil.Process()))


def _own_s(process: psutil.Process) -> float:
    used = _spent_s(process)
    for child in process.children(recursive=True):
        with suppress(psutil.Error):  # it has ended meanwhile
            used += _spent_s(child)
    return used


def _spent_s(process: psutil.Process) -> float:
    """Of a process and of those that it waited for."""
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)
