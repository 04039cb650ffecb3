from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sshr_deploy.errors import UsageError
from sshr_deploy.runtime.watch.order import Order
from sshr_deploy.runtime.watch.queue import ENDED, Queue, State, Watcher
from tests.runtime.watch.queues import HOST, new_queue, slide, states

ALLOWED = """
settling: settling waiting skipped
waiting: settling running skipped
running: settling waiting done failed quarantined
done: settling
failed: settling waiting running skipped
quarantined: settling waiting skipped
skipped: waiting
"""


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    with new_queue(tmp_path / "queue.sqlite") as queue:
        yield queue


@pytest.mark.parametrize(("state", "to"), list(itertools.product(State, State)))
def test_moves(queue: Queue, state: State, to: State) -> None:
    queue.add(slide("a.svs", state))
    lines = dict(line.split(": ") for line in ALLOWED.split("\n") if line)
    if to.value in lines[state.value].split():
        assert queue.move(slide("a.svs").path, to, reason="why").reason == "why"
    else:
        with pytest.raises(UsageError, match=rf"a\.svs is {state}; it cannot become {to}"):
            queue.move(slide("a.svs").path, to, reason="why")
        assert queue.slides() == [slide("a.svs", state)]


def test_a_slide_that_is_not_there(queue: Queue) -> None:
    with pytest.raises(UsageError, match="not in the queue"):
        queue.move(Path("/scans/none.svs"), State.WAITING)


@pytest.mark.parametrize(("order", "names"), [(Order.OLDEST, "bca"), (Order.NEWEST, "acb")])
def test_turns_follow_the_time_of_writing(queue: Queue, order: Order, names: str) -> None:
    for name, written_s in (("a", 3.0), ("b", 1.0), ("c", 2.0)):
        queue.add(slide(name, written_s=written_s))
    for name in names:
        taken = queue.take(10.0, order)
        assert taken is not None
        assert (str(taken.relative), taken.state, taken.started_s) == (name, State.RUNNING, 10.0)
    assert queue.take(10.0, order) is None


def test_only_what_waits_is_taken_and_what_failed_once_its_time_has_come(queue: Queue) -> None:
    for state in set(State) - {State.WAITING, State.RUNNING}:
        queue.add(slide(state.value, state, again_s=50.0 if state is State.FAILED else None))
    assert queue.take(49.0, Order.OLDEST) is None
    again = queue.take(50.0, Order.OLDEST)
    assert again is not None
    assert (again.relative, again.again_s) == (Path("failed"), None)


def test_lost_folders_are_left_alone(queue: Queue) -> None:
    queue.add(slide("a.svs"))
    assert queue.take(1.0, Order.OLDEST, [Path("/scans"), Path("/other")]) is None
    assert queue.take(1.0, Order.OLDEST, [Path("/other")]) is not None


def test_what_ended_the_process_comes_last_and_alone(queue: Queue) -> None:
    for name, crashes in (("a", 1), ("b", 0), ("c", 1)):
        queue.add(slide(name, crashes=crashes))
    first = queue.take(1.0, Order.OLDEST)
    assert first is not None
    assert first.relative == Path("b")
    assert queue.take(1.0, Order.OLDEST) is None  # b runs
    queue.end(first.path, State.DONE, 2.0, HOST)
    suspect = queue.take(2.0, Order.OLDEST)
    assert suspect is not None
    assert suspect.relative == Path("a")
    queue.add(slide("d"))
    assert queue.take(2.0, Order.OLDEST) is None  # not beside it
    queue.end(suspect.path, State.FAILED, 3.0, HOST, again_s=9.0)
    assert str(getattr(queue.take(3.0, Order.OLDEST), "relative", None)) == "d"


def test_endings_are_kept(queue: Queue) -> None:
    queue.add(slide("a.svs", State.RUNNING, started_s=200.0))
    path = slide("a.svs").path
    queue.end(path, State.FAILED, 300.0, HOST, attempts=1, reason="bad", code="input", again_s=1.0)
    assert queue.take(301.0, Order.OLDEST) is not None
    queue.end(path, State.DONE, 400.0, HOST, reason="", code="")
    queue.move(path, State.SETTLING, signature="two")
    queue.drop(path)
    found = [(e.state, e.code, e.reason, e.started_s, e.ended_s, e.host) for e in queue.endings()]
    assert found == [
        (State.FAILED, "input", "bad", 200.0, 300.0, HOST),
        (State.DONE, "", "", 301.0, 400.0, HOST),
    ]
    assert [e.ended_s for e in queue.endings(350.0)] == [400.0]
    assert set(ENDED) == {State.DONE, State.FAILED, State.QUARANTINED}


def test_a_transaction_is_kept_whole_or_not_at_all(queue: Queue) -> None:
    queue.add(slide("a.svs"))
    with pytest.raises(ZeroDivisionError), queue.writing():
        queue.move(slide("a.svs").path, State.RUNNING)
        queue.add(slide("b.svs"))
        _ = 1 / 0
    assert states(queue) == {"a.svs": "waiting"}


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
def test_names_that_are_not_utf_8(queue: Queue) -> None:
    name = os.fsdecode(b"caf\xe9.svs")
    queue.add(slide(name))
    taken = queue.take(1.0, Order.OLDEST)
    assert taken is not None
    assert os.fsencode(taken.relative) == b"caf\xe9.svs"
    ended = queue.end(taken.path, State.FAILED, 2.0, HOST, reason=f"{taken.path} is bad")
    assert ended.reason == f"{taken.path} is bad"
    assert queue.endings()[0].path == taken.path


def test_long_texts_stay_within_a_page(queue: Queue) -> None:
    queue.add(slide("a.svs", State.RUNNING))
    ended = queue.end(slide("a.svs").path, State.FAILED, 1.0, HOST, reason="é" * 5000)
    assert ended.reason == "é" * 1000


def test_who_watches(queue: Queue) -> None:
    assert queue.watcher() is None
    for beat_s in (5.0, 6.0):
        queue.beat(Watcher(HOST, 7, 1.0, beat_s))
    assert queue.watcher() == Watcher(HOST, 7, 1.0, 6.0)


def test_counts(queue: Queue) -> None:
    for name in ("a", "b"):
        queue.add(slide(name))
    assert queue.counts() == {s: 2 if s is State.WAITING else 0 for s in State}


def test_threads_and_processes_take_each_slide_once(queue: Queue) -> None:
    for number in range(40):
        queue.add(slide(f"{number}.svs"))
    taken: list[Path] = []

    def take(queue: Queue) -> None:
        while (found := queue.take(1.0, Order.OLDEST)) is not None:
            taken.append(found.path)

    with Queue(queue.path) as other:  # as another process has it
        threads = [threading.Thread(target=take, args=(q,)) for q in (queue, queue, other, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(taken) == len(set(taken)) == 40
