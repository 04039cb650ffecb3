from __future__ import annotations

import threading

import pytest

from sshr_deploy.runtime.pipeline.ledger import Ledger


def test_what_slides_add_counts_for_the_run() -> None:
    run = Ledger()
    slides = [Ledger(run), Ledger(run)]

    def add(ledger: Ledger) -> None:
        for _ in range(1000):
            ledger.add("read", 0.25)
            ledger.wait("read", 0.5)

    threads = [threading.Thread(target=add, args=(ledger,)) for ledger in slides * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [ledger.busy_s("read") for ledger in (*slides, run)] == [500.0, 500.0, 1000.0]
    assert run.waited_s("read") == 2000.0
    assert run.mean_s("read") == 0.25
    assert run.mean_s("write") == run.busy_s("write") == run.waited_s("write") == 0.0


@pytest.mark.parametrize(
    ("infer", "keep", "plan", "read", "write", "limit"),
    [
        (5, 1, 2, 2, 3, "engine"),
        (1, 1, 2, 2, 3, "read"),
        (1, 1, 1, 1, 3, "write"),
        (0, 0, 0, 0, 0, "engine"),
    ],
)
def test_what_took_most_of_the_engines_time_is_the_limit(
    infer: float, keep: float, plan: float, read: float, write: float, limit: str
) -> None:
    ledger = Ledger()
    ledger.add("infer", infer)
    ledger.add("keep", keep)
    ledger.add("write", 99.0)
    ledger.wait("plan", plan)
    ledger.wait("read", read)
    ledger.wait("write", write)
    effort = ledger.effort()
    assert effort.limited_by == limit
    assert effort.engine_waited_s == {"plan": plan, "read": read, "write": write}
    assert effort.busy_s == {"infer": infer, "keep": keep, "write": 99.0}


def test_a_block_that_fails_counts_too() -> None:
    ledger = Ledger()
    with pytest.raises(ZeroDivisionError), ledger.working("labels"):
        raise ZeroDivisionError
    assert ledger.busy_s("labels") > 0
