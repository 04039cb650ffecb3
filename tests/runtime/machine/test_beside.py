from __future__ import annotations

import threading

import pytest

from sshr_deploy.errors import OutputError
from sshr_deploy.runtime.machine.beside import Check, beside

PATIENCE_S = 30.0


def test_the_work_is_done_beside_the_block_and_before_its_end() -> None:
    both, done = threading.Barrier(2), threading.Event()

    def work(check: Check) -> None:
        check()
        both.wait(PATIENCE_S)
        done.set()

    with beside() as begin:
        begin(work)
        both.wait(PATIENCE_S)
    assert done.is_set()


def test_pieces_of_work_follow_one_another_and_give_what_they_return() -> None:
    with beside() as begin:
        first = begin(lambda check: threading.get_ident())
        second = begin(lambda check: (first.done(), threading.get_ident()))
    assert second.result() == (True, first.result()) and first.result() != threading.get_ident()


def test_an_error_of_the_work_is_raised_after_the_block() -> None:
    ended = False

    def work(check: Check) -> None:
        raise OutputError("disk full")

    with pytest.raises(OutputError, match="disk full"), beside() as begin:
        begin(work)
        ended = True
    assert ended


def test_an_error_of_the_block_ends_the_work() -> None:
    begun = threading.Event()

    def work(check: Check) -> None:
        begun.set()
        while True:
            check()

    before = threading.active_count()
    with pytest.raises(OutputError, match="disk full"), beside() as begin:
        begin(work)
        assert begun.wait(PATIENCE_S)
        raise OutputError("disk full")
    assert threading.active_count() == before


def test_a_stop_ends_the_work() -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), beside(stop) as begin:
        begin(lambda check: check())
