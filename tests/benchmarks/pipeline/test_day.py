from __future__ import annotations

from dataclasses import replace

import pytest

from sshr_deploy.benchmarks.pipeline.day import Day, day_of
from tests.benchmarks.pipeline.test_stages import timed

ENGINE = {"network": 5.0, "keep": 0.5, "documents": 0.5}
OTHERS = {"read": 2.0, "plan": 1.0, "finish": 4.5, "cores": 5.0}


def test_a_day_counts_the_first_slide_and_those_that_follow() -> None:
    day = Day(slides=361, first_s=20.0, further_s=10.0, engine_s=ENGINE, others_s=OTHERS)
    assert day.hours == pytest.approx(3620 / 3600)
    assert day.target_s == 5.0
    assert day.must_be_faster == {"network": 5.0 / 4.0}
    assert day.next_limit == "cores"
    assert (
        "the network 5 s, 1.2 times as fast, with keeping its results at most 0.5 s and lists and "
        "documents at most 0.5 s on its thread as they are"
    ) in day.words()[1]


def test_what_does_not_fit_into_half_is_told_the_worst_first() -> None:
    day = Day(100, 8.0, 8.0, ENGINE, OTHERS)
    assert day.must_be_faster == pytest.approx({"network": 5 / 3, "cores": 1.25, "finish": 1.125})
    assert list(day.must_be_faster) == ["network", "cores", "finish"]
    assert day.next_limit == "read"
    assert "or as many times the cores" in day.words()[1]
    assert "labels and files at most 4.5 s, 1.1 times as fast" in day.words()[1]
    assert day.words()[2] == "then reading comes next: 2 s"


def test_a_network_is_not_blamed_for_what_else_its_thread_does() -> None:
    day = Day(100, 8.0, 8.0, {"network": 0.5, "keep": 1.0, "documents": 4.0}, {"read": 2.0})
    assert day.must_be_faster == {"engine": 5.5 / 4}
    words = day.words()[1]
    assert "the engine's thread (the network 0.5 s, keeping its results at most 1 s" in words
    assert "1.4 times as fast: more than any network can give" in words
    assert words.endswith("most of it is lists and documents")


def test_where_everything_waits_for_each_other_no_stage_is_blamed() -> None:
    words = Day(2, 30.0, 30.0, ENGINE, OTHERS).words()
    assert "they wait for each other" in words[-1]


def test_more_than_a_day_asks_for_machines() -> None:
    assert "2 such machines" in Day(10_000, 10.0, 10.0, ENGINE, OTHERS).words()[1]


def test_a_refused_day_tells_its_hours_alone() -> None:
    day = Day(361, 20.0, 10.0, ENGINE, OTHERS, refused="the machine was busy")
    told = day.as_json()
    assert told["hours"] == pytest.approx(3620 / 3600)
    assert told["refused"] == "the machine was busy"
    assert not {"must_be_faster", "target_s", "next_limit"} & set(told)
    assert day.words()[1:] == ["what would halve that is not told: the machine was busy"]


def test_network_and_reading_are_those_measured_alone() -> None:
    """The run's own clock counts how long its threads waited for a core."""
    waited_for_cores = {"infer": 30.0, "read": 120.0, "keep": 3.0, "plan": 6.0, "write": 1.5}
    alone = timed({}, {}, seconds=20.0)
    row = timed(waited_for_cores, {"plan": 3.0}, seconds=45.0)
    row = replace(row, cpu_s=6.0, paths=row.paths * 3)
    day = day_of(10, alone, row, cores=2, first_s=20.0, row_s=45.0, network_s=4.0, read_s=1.0)
    assert (day.first_s, day.further_s) == (20.0, 12.5)
    assert day.engine_s == {"network": 4.0, "keep": 1.0, "documents": 3.0}
    assert day.others_s == {"read": 1.0, "plan": 2.0, "finish": 0.5, "cores": 1.0}


def test_what_a_further_slide_takes_is_the_difference_of_two_runs() -> None:
    row = timed({"infer": 12.0}, {"write": 6.0}, seconds=18.0)
    row = replace(row, paths=row.paths * 3)
    # Its bounds are for the user to read: they do not lengthen what was measured.
    spent = {"cores": 2, "network_s": 9.0, "read_s": 9.0}
    day = day_of(10, timed({}, {}), row, first_s=10.0, row_s=18.0, **spent)  # type: ignore[arg-type]
    assert (day.first_s, day.further_s) == (10.0, 4.0)
    folder = day_of(10, row, row, first_s=18.0, row_s=18.0, **spent)  # type: ignore[arg-type]
    assert folder.further_s == 6.0
    assert folder.engine_s["network"] == folder.others_s["read"] == 3.0
    odd = day_of(10, timed({}, {}), row, first_s=19.0, row_s=18.0, **spent)  # type: ignore[arg-type]
    assert odd.further_s == 6.0
