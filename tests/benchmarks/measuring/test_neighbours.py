"""Other work is seen: by a real process beside this one, and by stand-ins for the system's sums."""

from __future__ import annotations

import os
import sys
import time
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from sshr_deploy.benchmarks.measuring import neighbours
from sshr_deploy.benchmarks.measuring.neighbours import BUSY_SHARE, Neighbours, busy_text


def test_a_busy_process_beside_this_one_is_seen(busy_processes: None) -> None:
    watched = Neighbours()
    time.sleep(1.2)
    share = watched.share()
    assert share is not None and BUSY_SHARE < share <= 1
    assert busy_text(share) == (
        f"other work took {share:.0%} of the cores' time (at most 10%), so the machine was busy"
    )


def test_nothing_is_told_of_a_moment() -> None:
    assert Neighbours().share() is None


def test_only_more_than_the_bound_is_busy() -> None:
    assert busy_text(None) is None
    assert busy_text(BUSY_SHARE) is None
    assert busy_text(BUSY_SHARE + 0.01) is not None


class System:
    """Stand-in for psutil: two cores of this process, and a third one that it may not use."""

    Error = psutil.Error

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cores = [self._times() for _ in range(3)]
        self.own = SimpleNamespace(user=5.0, system=1.0, children_user=0.0, children_system=0.0)
        self.living: list[Any] = []
        monkeypatch.setattr(neighbours, "psutil", self)
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)

    @staticmethod
    def _times(**changed: float) -> Any:
        names = (*("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"), "guest")
        kind = type(psutil.cpu_times()) if sys.platform == "linux" else None
        values = dict.fromkeys((*names, "guest_nice"), 100.0) | changed
        if kind is None:
            pytest.skip("times of Linux")
        return kind(**{name: values.get(name, 0.0) for name in kind._fields})

    def add(self, core: int, **seconds: float) -> None:
        old = self.cores[core]
        changes = {name: getattr(old, name) + more for name, more in seconds.items()}
        self.cores[core] = old._replace(**changes)

    def cpu_times(self, *, percpu: bool) -> list[Any]:
        assert percpu
        return self.cores

    def Process(self) -> Any:  # noqa: N802  psutil's name
        return SimpleNamespace(
            cpu_times=lambda: self.own, children=lambda recursive: self.living if recursive else []
        )


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> System:
    return System(monkeypatch)


def test_own_work_is_not_other_work(system: System) -> None:
    watched = Neighbours()
    system.add(0, user=10.0)
    system.add(1, idle=10.0)
    system.own.user += 9.0
    assert watched.share() == pytest.approx(0.05)  # 1 s of 20
    system.own.children_system += 1.0  # a child that has ended
    assert watched.share() == 0


def test_a_living_child_is_own_work(system: System) -> None:
    spent = SimpleNamespace(user=0.0, system=0.0, children_user=0.0, children_system=0.0)
    system.living = [SimpleNamespace(cpu_times=lambda: spent)]
    watched = Neighbours()
    system.add(0, user=10.0)
    system.add(1, idle=10.0)
    spent.user = 6.0
    spent.children_user = 4.0
    assert watched.share() == 0


def test_a_child_that_ends_meanwhile_is_no_error(system: System) -> None:
    def gone() -> Any:
        raise psutil.NoSuchProcess(1)

    watched = Neighbours()
    system.living = [SimpleNamespace(cpu_times=gone)]
    system.add(0, idle=10.0)
    system.add(1, idle=10.0)
    assert watched.share() == 0


def test_time_of_other_virtual_machines_counts_and_waiting_for_disks_does_not(
    system: System,
) -> None:
    watched = Neighbours()
    system.add(0, steal=4.0, idle=6.0)
    system.add(1, iowait=10.0)
    assert watched.share() == pytest.approx(0.2)


def test_time_of_guests_counts_once(system: System) -> None:
    watched = Neighbours()
    system.add(0, user=10.0, guest=10.0)
    system.add(1, idle=10.0)
    assert watched.share() == pytest.approx(0.5)


def test_cores_that_this_process_may_not_use_do_not_matter(system: System) -> None:
    watched = Neighbours()
    system.add(0, idle=10.0)
    system.add(1, idle=10.0)
    system.add(2, user=10.0)
    assert watched.share() == 0
