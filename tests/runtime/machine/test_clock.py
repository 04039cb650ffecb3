from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from sshr_deploy.runtime.machine.clock import Stages, now_utc, stamp_utc


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which stands still until it is added to."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_the_inner_of_two_stages_has_its_time_alone(clock: list[float]) -> None:
    stages = Stages()
    with stages.stage("outer"):
        clock[0] += 1
        with stages.stage("inner"):
            clock[0] += 4
        clock[0] += 2
    clock[0] += 10
    assert stages.seconds() == {"inner": 4, "outer": 3, "total": 17}


def test_the_time_of_what_comes_one_by_one_is_that_of_its_coming(clock: list[float]) -> None:
    stages = Stages()

    def source() -> Iterator[int | None]:
        for item in (1, None, 3):
            clock[0] += 2
            yield item
        clock[0] += 1  # to find that there is no more

    def doubled() -> Iterator[str]:
        for item in stages.each("read", source()):
            clock[0] += 5
            yield str(item)

    got, spent = [], []
    for text in stages.each("infer", doubled()):
        clock[0] += 50
        got.append(text)
        spent.append(stages.spent_s("infer"))
    assert got == ["1", "None", "3"]
    assert spent == [5, 10, 15]
    assert stages.seconds() == {"read": 7, "infer": 15, "total": 172}


def test_an_error_ends_a_stage(clock: list[float]) -> None:
    stages = Stages()
    with pytest.raises(ValueError), stages.stage("broken"):
        clock[0] += 3
        raise ValueError
    assert stages.seconds() == {"broken": 3, "total": 3}


def test_times_of_day_are_utc_and_sort_as_text() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", now_utc())
    assert re.fullmatch(r"\d{8}T\d{6}\.\d{3}Z", stamp_utc())
