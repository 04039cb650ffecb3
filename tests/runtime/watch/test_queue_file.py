"""A queue's file is whole or refused, whatever happened to it."""

from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sshr_deploy.errors import OutputError, UsageError
from sshr_deploy.runtime.watch import queue_file
from sshr_deploy.runtime.watch.order import Order
from sshr_deploy.runtime.watch.queue import Ending, Queue, QueuedSlide, State
from tests.runtime.watch.queues import HOST, new_queue, slide

CUTS = 50
Content = tuple[list[QueuedSlide], list[Ending]]


def content(queue: Queue) -> Content:
    return queue.slides(), queue.endings()


def worked(queue: Queue) -> list[Content]:
    """Do slides; the content after each transaction."""
    contents = [content(queue)]
    for number in range(40):
        queue.add(slide(f"{'long ' * 40}{number}.svs", reason="r" * 900))
        contents.append(content(queue))
        if number % 3 == 0:
            taken = queue.take(float(number), Order.OLDEST)
            contents.append(content(queue))
            assert taken is not None
            queue.end(taken.path, State.FAILED, float(number), HOST, reason="x" * 900, again_s=1e9)
            contents.append(content(queue))
    return contents


def reopened(path: Path) -> Content | None:
    """None where it is refused, in one line that says what to do."""
    try:
        with Queue(path) as queue:
            return content(queue)
    except UsageError as error:
        assert "move it away" in str(error) or "no queue of sshr-deploy" in str(error)
        return None


def cut(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)


def test_a_file_that_was_cut_is_refused(tmp_path: Path) -> None:
    whole, rng = tmp_path / "whole.sqlite", random.Random(15)
    with new_queue(whole) as queue:
        last = worked(queue)[-1]
    size = whole.stat().st_size
    pages = [16384 * n for n in range(1, size // 16384, 2)]  # a cut between pages is the worst
    refused = 0
    for length in (0, 1, *pages, *(rng.randrange(size) for _ in range(CUTS))):
        path = tmp_path / "cut.sqlite"
        shutil.copy(whole, path)
        cut(path, length)
        found = reopened(path)
        assert found in (None, last), length
        refused += found is None
    assert refused >= CUTS


@pytest.mark.parametrize("part", ["", "-wal"])
def test_files_of_a_killed_process_that_were_cut(tmp_path: Path, part: str) -> None:
    """The queue is as it was after one of the transactions, or refused."""
    live, rng = tmp_path / "live.sqlite", random.Random(16)
    with new_queue(live) as queue:
        contents = worked(queue)
        for name in ("killed.sqlite", "killed.sqlite-wal"):
            shutil.copy(tmp_path / name.replace("killed", "live"), tmp_path / name)
    size = (tmp_path / f"killed.sqlite{part}").stat().st_size
    assert size > 0
    found: list[Content | None] = []
    for length in (0, *(rng.randrange(size) for _ in range(CUTS))):
        for name in ("killed.sqlite", "killed.sqlite-wal"):
            shutil.copy(tmp_path / name, tmp_path / name.replace("killed", "cut"))
        cut(tmp_path / f"cut.sqlite{part}", length)
        found.append(reopened(tmp_path / "cut.sqlite"))
        for left in tmp_path.glob("cut.sqlite*"):
            left.unlink()
    assert all(each is None or each in contents for each in found)
    if part:
        assert None not in found  # what was not written to the end was not promised


def test_what_a_killed_process_left_is_all_there(tmp_path: Path) -> None:
    with new_queue(tmp_path / "live.sqlite") as queue:
        contents = worked(queue)
        for name in ("live.sqlite", "live.sqlite-wal"):
            shutil.copy(tmp_path / name, tmp_path / name.replace("live", "killed"))
    assert reopened(tmp_path / "killed.sqlite") == contents[-1]


def test_no_queue(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no queue at"):
        queue_file.connect(tmp_path / "queue.sqlite")


def test_another_programs_database(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE t (x)")
    with pytest.raises(UsageError, match="is no queue of sshr-deploy; give another `queue`"):
        queue_file.connect(path)


def test_no_database_at_all(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database " * 1000)
    with pytest.raises(UsageError, match="damaged"):
        queue_file.connect(tmp_path / "text")


def test_a_newer_schema(tmp_path: Path) -> None:
    path = tmp_path / "queue.sqlite"
    queue_file.make(path)
    with closing(sqlite3.connect(path)) as newer:
        newer.execute("PRAGMA user_version = 2")
    with pytest.raises(UsageError, match=r"newer sshr-deploy \(schema 2, this one knows 1\)"):
        queue_file.connect(path)


def test_a_new_queue_does_not_take_the_log_of_a_removed_one(tmp_path: Path) -> None:
    path = tmp_path / "queue.sqlite"
    with new_queue(path) as queue:
        queue.add(slide("a.svs"))
        wal = (tmp_path / "queue.sqlite-wal").read_bytes()
    path.unlink()
    (tmp_path / "queue.sqlite-wal").write_bytes(wal)
    with new_queue(path) as queue:
        assert queue.slides() == []


def test_no_place_for_a_queue(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        queue_file.make(tmp_path / "file" / "queue.sqlite")


def test_a_locked_queue_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_file, "_BUSY_S", 0.01)
    path = tmp_path / "queue.sqlite"
    refused = pytest.raises(OutputError, match=r"the queue .* cannot be used: database is locked")
    with new_queue(path) as queue, Queue(path) as other, queue.writing(), refused:
        other.add(slide("a.svs"))
