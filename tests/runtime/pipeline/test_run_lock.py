"""One run at a time in a results folder, whatever became of the one before."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sshr_deploy.errors import OutputError, UsageError
from sshr_deploy.runtime.pipeline import run_lock as module
from sshr_deploy.runtime.pipeline.run_lock import LOCK_NAME, run_lock

HOLD = """
import sys
from pathlib import Path
from sshr_deploy.runtime.pipeline.run_lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def leave_lock(out: Path, *, host: str, pid: int, age_s: float = 0.0) -> Path:
    out.mkdir()
    lock = out / LOCK_NAME
    holder = {"host": host, "pid": pid, "started_utc": "2026-01-02T03:04:05+00:00", "token": "x"}
    lock.write_text(json.dumps(holder), "utf-8")
    os.utime(lock, (time.time() - age_s,) * 2)
    return lock


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)


def test_the_second_is_told_who_writes_and_a_killed_one_is_replaced(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        who = f"process {process.pid} on {platform.node()} (since 20"
        with pytest.raises(UsageError, match=re.escape(who)), run_lock(tmp_path):
            pass
        assert (tmp_path / LOCK_NAME).exists()
        process.kill()
    with run_lock(tmp_path):
        assert json.loads((tmp_path / LOCK_NAME).read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("host", [platform.node(), "another"])
def test_a_lock_without_signs_of_life_is_taken_over(tmp_path: Path, host: str) -> None:
    leave_lock(tmp_path / "out", host=host, pid=os.getpid(), age_s=3600)
    with run_lock(tmp_path / "out"):
        pass
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("host", [platform.node(), "another"])
def test_a_lock_with_signs_of_life_is_respected(tmp_path: Path, host: str) -> None:
    lock = leave_lock(tmp_path / "out", host=host, pid=os.getpid(), age_s=30)
    before = lock.read_bytes()
    for _ in range(2):
        with pytest.raises(UsageError, match=f"on {host} .*2026-01-02"), run_lock(tmp_path / "out"):
            pass
    assert list((tmp_path / "out").iterdir()) == [lock]
    assert lock.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff", b'{"host": "h"}'])
def test_a_lock_that_says_nothing_counts_by_its_age(tmp_path: Path, content: bytes) -> None:
    (tmp_path / LOCK_NAME).write_bytes(content)
    with pytest.raises(UsageError, match="another run writes into"), run_lock(tmp_path):
        pass
    os.utime(tmp_path / LOCK_NAME, (0, 0))
    with run_lock(tmp_path):
        pass


def test_of_two_that_take_over_at_once_one_is_told(tmp_path: Path) -> None:
    for attempt in range(20):
        out = tmp_path / str(attempt)
        leave_lock(out, host="another", pid=1, age_s=3600)
        start, end = threading.Barrier(2), threading.Barrier(2)
        outcomes: list[str] = []

        def take(
            out: Path = out,
            start: threading.Barrier = start,
            end: threading.Barrier = end,
            outcomes: list[str] = outcomes,
        ) -> None:
            start.wait(30)
            try:
                with run_lock(out):
                    outcomes.append("held")
                    end.wait(30)
            except UsageError:
                outcomes.append("told")
                end.wait(30)

        threads = [threading.Thread(target=take) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sorted(outcomes) == ["held", "told"]
        assert list(out.iterdir()) == []


def test_a_run_that_was_suspended_too_long_gives_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BEAT_S", 0.005)
    with run_lock(tmp_path) as lock:
        lock.check()
        os.utime(tmp_path / LOCK_NAME, (0, 0))
        wait_for(lambda: (tmp_path / LOCK_NAME).stat().st_mtime > 0)  # it shows life
        other = {"host": "h", "pid": 5, "started_utc": "2026-01-02T03:04:05+00:00", "token": "y"}
        (tmp_path / "other").write_text(json.dumps(other), "utf-8")
        (tmp_path / "other").replace(tmp_path / LOCK_NAME)
        with pytest.raises(OutputError, match="process 5 on h"):  # before any beat
            lock.check()
    assert json.loads((tmp_path / LOCK_NAME).read_text()) == other


def test_a_lock_that_was_lost_stays_lost_when_the_other_run_ends(tmp_path: Path) -> None:
    with run_lock(tmp_path) as lock:
        mine = (tmp_path / LOCK_NAME).read_bytes()
        (tmp_path / LOCK_NAME).write_bytes(mine.replace(b'"token":"', b'"token":"y'))
        assert lock.is_lost()
        (tmp_path / LOCK_NAME).unlink()
        with pytest.raises(OutputError, match=f"process {os.getpid()} on "):
            lock.check()


def test_a_folder_that_stays_empty_is_not_left(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for out in (tmp_path / "a" / "b", tmp_path / "mine"):
        with pytest.raises(ZeroDivisionError), run_lock(out):
            raise ZeroDivisionError
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]
    with run_lock(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "result").touch()
    assert (tmp_path / "a" / "b" / "result").exists()


def test_a_folder_that_takes_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be made a folder"), run_lock(tmp_path / "file"):
        pass
    (tmp_path / LOCK_NAME).mkdir()
    with pytest.raises(UsageError, match="cannot take results: "), run_lock(tmp_path):
        pass


def test_a_lock_from_the_future_is_stale(tmp_path: Path) -> None:
    """A clock that was set back since would else keep it for as long."""
    lock = leave_lock(tmp_path / "out", host="elsewhere", pid=1, age_s=-86400)
    with run_lock(tmp_path / "out"):
        assert json.loads(lock.read_text("utf-8"))["pid"] == os.getpid()


@pytest.mark.skipif(os.name == "nt", reason="pipes")
def test_a_pipe_in_the_locks_place_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / LOCK_NAME)
    with pytest.raises(UsageError, match="no regular file; move it away"), run_lock(tmp_path):
        pass
