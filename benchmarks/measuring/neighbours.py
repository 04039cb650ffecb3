"""Whether other work ran beside a measurement."""

from __future__ import annotations

import psutil

from sshr_deploy.runtime.machine.threads import usable_cores

BUSY_SHARE = 0.1
"""Of the usable cores' time: from here on no ratio of a measurement is told."""
_SHORT_S = 1.0
"""Ticks of 10 ms say nothing of less."""


class Neighbours:
    """The work of others since it was made: all that the machine did, less this process.

    Processes that this one started and waited for count as its own.
    """

    def __init__(self) -> None:
        self._work = _Work.now()

    def share(self) -> float | None:
        """Of the usable cores' time so far; None where it is too short to tell."""
        now, cores = _Work.now(), usable_cores()
        wall_s = (now.machine_s - self._work.machine_s) / (psutil.cpu_count() or cores)
        if wall_s < _SHORT_S:
            return None
        others_s = now.busy_s - self._work.busy_s - (now.own_s - self._work.own_s)
        return float(min(max(others_s / (wall_s * cores), 0.0), 1.0))


def busy_text(share: float | None) -> str | None:
    """Why a measurement beside so much other work allows no ratio; None where it does."""
    if share is None or share <= BUSY_SHARE:
        return None
    return (
        f"other work took {share:.0%} of the cores' time (at most {BUSY_SHARE:.0%}), so the "
        "machine was busy"
    )


class _Work:
    """Seconds of all cores since the system began, and of this process with its children."""

    def __init__(self, machine_s: float, busy_s: float, own_s: float) -> None:
        self.machine_s, self.busy_s, self.own_s = machine_s, busy_s, own_s

    @classmethod
    def now(cls) -> _Work:
        times = psutil.cpu_times()
        # Time of guests is in `user` and `nice` already, that of other virtual machines is not.
        every = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        idle = times.idle + getattr(times, "iowait", 0.0)
        process = psutil.Process()
        own = process.cpu_times()
        used = own.user + own.system + own.children_user + own.children_system
        for child in process.children(recursive=True):
            try:
                spent = child.cpu_times()
            except psutil.Error:  # it has ended meanwhile
                continue
            used += spent.user + spent.system
        return cls(every, every - idle, used)
