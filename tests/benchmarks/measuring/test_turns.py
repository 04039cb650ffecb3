"""Turns, by a clock that only the timed calls move."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

import pytest

from sshr_deploy.benchmarks.measuring import turns
from sshr_deploy.benchmarks.measuring.turns import FEWEST, take_turns
from sshr_deploy.errors import SessionError


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0
        self.called: list[str] = []

    def perf_counter(self) -> float:
        return self.now_s

    def call(self, name: str, *durations_s: float) -> Callable[[], None]:
        """Takes these times one after the other, and the last one from then on."""
        left = list(durations_s)

        def run() -> None:
            self.called.append(name)
            self.now_s += left.pop(0) if len(left) > 1 else left[0]

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(turns, "time", clock)
    return clock


def test_names_alternate_and_a_turn_is_about_a_second(clock: Clock) -> None:
    calls = {"a": clock.call("a", 0.1), "b": clock.call("b", 0.25)}
    taken = list(take_turns(calls, seconds=3))
    assert [name for name, _ in taken] == ["a", "b"] * 3
    for name, samples in taken:
        assert len(samples) == pytest.approx({"a": 10, "b": 4}[name], abs=1)
        assert samples == pytest.approx([{"a": 100.0, "b": 250.0}[name]] * len(samples))
    assert [name for name, _ in groupby(clock.called)] == ["a", "b"] * 3


def test_calls_at_the_beginning_of_a_turn_do_not_count(clock: Clock) -> None:
    """The first three are slow, as those of threads that still wake up."""
    calls = {"a": clock.call("a", 0.9, 0.9, 0.9, 0.05)}
    samples = [ms for _, turn in take_turns(calls, seconds=1, settle_s=2.0) for ms in turn]
    assert samples == pytest.approx([50.0] * len(samples))
    assert len(clock.called) == len(samples) + 3


def test_one_call_does_not_count_even_without_settling(clock: Clock) -> None:
    calls = {"a": clock.call("a", 5.0, 0.5)}
    ((_, first), *_rest) = take_turns(calls, seconds=1, settle_s=0)
    assert first == pytest.approx([500.0] * len(first))


def test_a_slow_call_is_still_sampled_as_often_as_an_interval_needs(clock: Clock) -> None:
    calls = {"slow": clock.call("slow", 20.0), "fast": clock.call("fast", 0.01)}
    taken: dict[str, list[float]] = {"slow": [], "fast": []}
    for name, turn in take_turns(calls, seconds=0.5):
        assert len(turn) >= 3 or sum(taken[name]) >= 500.0
        taken[name] += turn
    assert len(taken["slow"]) == FEWEST
    assert len(taken["fast"]) == 50 + 1, "one more in the second turn of the slow"
    assert sum(taken["fast"]) >= 500.0


def test_who_has_had_its_seconds_gives_a_sample_a_turn_until_all_have(clock: Clock) -> None:
    calls = {"slow": clock.call("slow", 1.0), "fast": clock.call("fast", 0.125)}
    taken = list(take_turns(calls, seconds=4))
    assert [name for name, _ in taken] == ["slow", "fast"] * 4
    assert [len(turn) for name, turn in taken if name == "slow"] == [3, 3, 1, 1]
    assert [len(turn) for name, turn in taken if name == "fast"] == [8] * 4


def test_who_fails_has_no_more_turns_and_the_others_go_on(clock: Clock) -> None:
    left = [0.5] * 5

    def breaks() -> None:
        if not left:
            raise SessionError("engine lost")
        clock.now_s += left.pop()

    told: list[tuple[str, str]] = []
    calls = {"a": breaks, "b": clock.call("b", 0.5)}
    names = [
        name
        for name, _ in take_turns(
            calls, seconds=3, on_failure=lambda name, error: told.append((name, str(error)))
        )
    ]
    assert names == ["a", "b", "b"], "each turn is three samples of half a second"
    assert told == [("a", "engine lost")]


def test_what_was_taken_is_given_before_a_failure(clock: Clock) -> None:
    def broken() -> None:
        raise RuntimeError("engine lost")

    calls = {"a": clock.call("a", 0.5), "b": broken}
    given = []
    with pytest.raises(RuntimeError, match="engine lost"):
        for name, turn in take_turns(calls, seconds=1):
            given.append((name, len(turn)))
    assert given == [("a", 3)]
