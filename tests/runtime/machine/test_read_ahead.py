from __future__ import annotations

import threading
from contextlib import closing

import pytest

from sshr_deploy.runtime.machine.read_ahead import batches, read_ahead, side_by_side

PATIENCE_S = 30.0


def test_order_is_kept_whoever_is_ready_first() -> None:
    second_done = threading.Event()

    def read(item: int) -> int:
        if item == 0:
            assert second_done.wait(PATIENCE_S)
        if item == 1:
            second_done.set()
        return item * item

    assert list(read_ahead(range(7), read, ahead=2)) == [0, 1, 4, 9, 16, 25, 36]


def test_no_more_is_read_than_asked_for() -> None:
    begun: list[int] = []
    with closing(read_ahead(range(100), begun.append, ahead=3)) as reading:
        for count in range(1, 6):
            next(reading)
            assert len(begun) <= count + 3
    assert len(begun) <= 8


def test_an_error_comes_in_its_turn() -> None:
    def read(item: int) -> int:
        if item == 2:
            raise OSError("damaged")
        return item

    reading = read_ahead(range(5), read, ahead=4)
    assert [next(reading), next(reading)] == [0, 1]
    with pytest.raises(OSError, match="damaged"):
        next(reading)


def test_closing_ends_the_threads() -> None:
    before = threading.active_count()
    with closing(read_ahead(range(50), str, ahead=10)) as reading:
        assert next(reading) == "0"
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("count", "expected"), [(0, []), (3, [[0, 1, 2]]), (5, [[0, 1, 2], [3, 4]])]
)
def test_batches(count: int, expected: list[list[int]]) -> None:
    assert list(batches(range(count), 3)) == expected


def test_a_full_batch_does_not_wait_for_the_next_item() -> None:
    items = iter([1, 2, 3])
    assert next(batches(items, 2)) == [1, 2]
    assert next(items) == 3


def test_work_side_by_side_keeps_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sshr_deploy.runtime.machine.read_ahead.usable_cores", lambda: 2)
    both = threading.Barrier(2)

    def work(item: int) -> int:
        both.wait(PATIENCE_S)
        return item * item

    assert side_by_side(range(6), work) == [0, 1, 4, 9, 16, 25]
    assert side_by_side([], work) == []
