from __future__ import annotations

from dataclasses import replace

import pytest

from sshr_deploy.benchmarks.pipeline.day import Day, day_of
from tests.benchmarks.pipeline.test_stages import timed

BOUNDS = {"engine": 6.0, "read": 2.0, "plan": 1.0, "finish": 4.5, "cores": 5.0}


def test_a_day_counts_the_first_slide_and_those_that_follow() -> None:
    day = Day(slides=361, first_s=20.0, further_s=10.0, bounds_s=BOUNDS)
    assert day.hours == pytest.approx(3620 / 3600)
    assert day.target_s == 5.0
    assert day.must_be_faster == {"engine": 1.2}
    assert day.next_limit == "cores"
    assert "the engine (6 s) 1.2 times as fast" in day.words()[1]


def test_what_does_not_fit_into_half_is_told_the_worst_first() -> None:
    day = Day(100, 8.0, 8.0, BOUNDS)
    assert list(day.must_be_faster) == ["engine", "cores", "finish"]
    assert day.next_limit == "read"
    assert "or as many times the cores" in day.words()[1]
    assert "then reading comes next, with 2 s" in day.words()[2]


def test_where_everything_waits_for_each_other_no_stage_is_blamed() -> None:
    words = Day(2, 30.0, 30.0, BOUNDS).words()
    assert "they wait for each other" in words[-1]


def test_more_than_a_day_asks_for_machines() -> None:
    assert "2 such machines" in Day(10_000, 10.0, 10.0, BOUNDS).words()[1]


def test_what_a_further_slide_takes_is_the_difference_of_two_runs() -> None:
    busy = {"infer": 4.0}
    alone = timed(busy, {"write": 6.0})
    row = timed({"infer": 12.0}, {"write": 6.0}, seconds=18.0)
    row = replace(row, cpu_s=6.0, paths=row.paths * 3)
    day = day_of(10, alone, row, cores=2, first_s=10.0, row_s=18.0)
    assert (day.first_s, day.further_s) == (10.0, 4.0)
    assert day.bounds_s == {"engine": 4.0, "read": 0.0, "plan": 0.0, "finish": 0.0, "cores": 1.0}
    assert day_of(10, row, row, cores=2, first_s=18.0, row_s=18.0).further_s == 6.0
