"""Who may write into a results folder, and which inputs, whatever became of the runs before."""

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
from sshr_deploy.runtime.pipeline import run_lock as run_lock_module
from sshr_deploy.runtime.pipeline import signs_of_life
from sshr_deploy.runtime.pipeline.run_lock import SHARING_NAME, Claim, run_lock

HOLD = """
import sys
from pathlib import Path
from sshr_deploy.runtime.pipeline.run_lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


SAME = {"model": "m", "mode": "seamless"}


def leave_run(
    out: Path,
    *,
    host: str = "another",
    pid: int = 1,
    age_s: float = 0.0,
    terms: dict[str, str] | None = None,
) -> Path:
    """The sign of life of a run that is not ours to end."""
    (out / SHARING_NAME).mkdir(parents=True, exist_ok=True)
    run = out / SHARING_NAME / "run-x"
    run.write_text(holder(host, pid, terms), "utf-8")
    os.utime(run, (time.time() - age_s,) * 2)
    return run


def holder(host: str, pid: int, terms: dict[str, str] | None, token: str = "x") -> str:
    started = "2026-01-02T03:04:05+00:00"
    facts = {"host": host, "pid": pid, "started_utc": started, "token": token, "terms": terms}
    return json.dumps(facts)


def own_run(out: Path) -> Path:
    """The sign of life of the one run that is in the folder."""
    (run,) = (out / SHARING_NAME).glob("run-*")
    return run


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
        assert own_run(tmp_path).exists()
        process.kill()
    with run_lock(tmp_path):
        assert json.loads(own_run(tmp_path).read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("host", [platform.node(), "another"])
def test_a_lock_without_signs_of_life_is_taken_over(tmp_path: Path, host: str) -> None:
    leave_run(tmp_path / "out", host=host, pid=os.getpid(), age_s=3600)
    with run_lock(tmp_path / "out"):
        pass
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("host", [platform.node(), "another"])
def test_a_lock_with_signs_of_life_is_respected(tmp_path: Path, host: str) -> None:
    lock = leave_run(tmp_path / "out", host=host, pid=os.getpid(), age_s=30)
    before = lock.read_bytes()
    for _ in range(2):
        with pytest.raises(UsageError, match=f"on {host} .*2026-01-02"), run_lock(tmp_path / "out"):
            pass
    assert list((tmp_path / "out" / SHARING_NAME).iterdir()) == [lock]
    assert lock.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff", b'{"host": "h"}'])
def test_a_lock_that_says_nothing_counts_by_its_age(tmp_path: Path, content: bytes) -> None:
    run = leave_run(tmp_path)
    run.write_bytes(content)
    with pytest.raises(UsageError, match="another run writes into"), run_lock(tmp_path):
        pass
    os.utime(run, (0, 0))
    with run_lock(tmp_path):
        pass


def test_of_two_that_take_over_at_once_one_is_told(tmp_path: Path) -> None:
    for attempt in range(20):
        out = tmp_path / str(attempt)
        leave_run(out, age_s=3600)
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

        together(take, take)
        assert sorted(outcomes) == ["held", "told"]
        assert list(out.iterdir()) == []


def together(*work: Callable[[], None]) -> None:
    threads = [threading.Thread(target=each) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)


def test_a_run_that_was_suspended_too_long_gives_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signs_of_life, "BEAT_S", 0.005)
    with run_lock(tmp_path) as lock:
        lock.check()
        run = own_run(tmp_path)
        os.utime(run, (0, 0))
        wait_for(lambda: run.stat().st_mtime > 0)  # it shows life
        other = holder("h", 5, None, token="y")
        (tmp_path / SHARING_NAME / "run-y").write_text(other, "utf-8")
        run.unlink()
        with pytest.raises(OutputError, match="process 5 on h"):  # before any beat
            lock.check()
    assert own_run(tmp_path).read_text("utf-8") == other


def test_a_lock_that_was_lost_stays_lost_when_the_other_run_ends(tmp_path: Path) -> None:
    with run_lock(tmp_path) as lock:
        run = own_run(tmp_path)
        mine = run.read_bytes()
        other = tmp_path / SHARING_NAME / "run-y"
        other.write_bytes(mine.replace(b'"token":"', b'"token":"y'))
        run.unlink()
        assert lock.is_lost()
        other.unlink()
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
    (tmp_path / SHARING_NAME).touch()
    with pytest.raises(UsageError, match="cannot take results: "), run_lock(tmp_path):
        pass


def test_a_lock_from_the_future_is_stale(tmp_path: Path) -> None:
    """A clock that was set back since would else keep it for as long."""
    leave_run(tmp_path / "out", host="elsewhere", age_s=-86400)
    with run_lock(tmp_path / "out"):
        assert json.loads(own_run(tmp_path / "out").read_text("utf-8"))["pid"] == os.getpid()


@pytest.mark.skipif(os.name == "nt", reason="pipes")
@pytest.mark.parametrize("name", ["lock", "run-x"])
def test_a_pipe_in_the_locks_place_is_not_waited_for(tmp_path: Path, name: str) -> None:
    (tmp_path / SHARING_NAME).mkdir()
    os.mkfifo(tmp_path / SHARING_NAME / name)
    with pytest.raises(UsageError, match="no regular file; move it away"), run_lock(tmp_path):
        pass


@pytest.mark.parametrize(
    ("terms", "told"),
    [
        (None, "writes into"),
        ({**SAME, "mode": "reference"}, "with another `mode`: wait"),
        ({"model": "n", "mode": "other"}, "with another `mode` and another model: wait"),
    ],
)
def test_runs_that_do_something_else_are_told(
    tmp_path: Path, terms: dict[str, str] | None, told: str
) -> None:
    leave_run(tmp_path, terms=terms)
    with pytest.raises(UsageError, match=told), run_lock(tmp_path, {**SAME}):
        pass
    assert [path.name for path in (tmp_path / SHARING_NAME).iterdir()] == ["run-x"]


def test_runs_that_do_the_same_divide_the_inputs(tmp_path: Path) -> None:
    with run_lock(tmp_path, {**SAME}) as one:
        with run_lock(tmp_path, {**SAME}) as other:
            assert other.has_company
            assert one.claim(Path("a")) == one.claim(Path("a")) == Claim()
            held = other.claim(Path("a"))
            assert held.held_by is not None
            assert f"process {os.getpid()} on {platform.node()}" in held.held_by
            assert other.claim(Path("b")) == Claim()
            assert one.claim(Path("b")).held_by
            assert one.has_company, "met it"
            one.give_up(Path("a"))
            one.give_up(Path("never had"))
            assert other.claim(Path("a")) == Claim()
        assert one.claim(Path("a")) == Claim(), "what a run leaves is free"
    assert list(tmp_path.iterdir()) == []


def test_who_comes_later_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signs_of_life, "BEAT_S", 0.005)
    with run_lock(tmp_path, {**SAME}) as one, run_lock(tmp_path, {**SAME}):
        wait_for(lambda: one.has_company)
        assert one.has_company


def test_a_run_that_shares_with_nobody_makes_no_claims(tmp_path: Path) -> None:
    with run_lock(tmp_path) as lock:
        assert lock.claim(Path("a")) == Claim()
        assert not list((tmp_path / SHARING_NAME).glob("claim-*"))


@pytest.mark.parametrize("gone", ["stale", "ended", "left"])
def test_the_claim_of_a_run_that_is_gone_is_taken_over(tmp_path: Path, gone: str) -> None:
    with run_lock(tmp_path, {**SAME}) as lock:
        assert lock.claim(Path("a")) == Claim()
        (claim,) = (tmp_path / SHARING_NAME).glob("claim-*")
        lock.give_up(Path("a"))
        run = leave_run(tmp_path, host=platform.node(), pid=os.getpid(), terms=SAME)
        claim.write_text(holder(platform.node(), os.getpid(), SAME), "utf-8")
        assert lock.claim(Path("a")).held_by
        match gone:
            case "stale":
                os.utime(run, (0, 0))
            case "ended":
                pid = ended_pid()
                run.write_text(holder(platform.node(), pid, SAME), "utf-8")
                claim.write_text(holder(platform.node(), pid, SAME), "utf-8")
            case "left":
                run.unlink()
        found = lock.claim(Path("a"))
        assert found.held_by is None
        assert found.taken_from is not None
        assert f"on {platform.node()} (since 2026-01-02" in found.taken_from
        assert not run.exists(), "it learns that it was taken for dead"
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_was_taken_for_dead_leaves_the_claims_of_the_other(tmp_path: Path) -> None:
    with run_lock(tmp_path, {**SAME}) as other:
        with run_lock(tmp_path, {**SAME}) as lost:
            for name in ("a", "b"):
                lost.claim(Path(name))
            for run in (tmp_path / SHARING_NAME).glob("run-*"):
                if run.name != f"run-{other._holder.token}":
                    os.utime(run, (0, 0))
            assert all(other.claim(Path(name)).taken_from for name in ("a", "b"))
            claims = set((tmp_path / SHARING_NAME).glob("claim-*"))
            lost.give_up(Path("a"))
        assert len(claims) == 2
        assert set((tmp_path / SHARING_NAME).glob("claim-*")) == claims
    assert list(tmp_path.iterdir()) == []


def ended_pid() -> int:
    code = "import os; print(os.getpid())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_of_many_one_gets_an_input(tmp_path: Path) -> None:
    """Free, or that of a run which is gone; threads stand for runs."""
    for attempt in range(10):
        out = tmp_path / str(attempt)
        if attempt % 2:
            with run_lock(out, {**SAME}) as gone:
                gone.claim(Path("a"))
                (claim,) = (out / SHARING_NAME).glob("claim-*")
                text = claim.read_text("utf-8")
                (out / "keep").touch()
            (out / SHARING_NAME).mkdir()
            claim.write_text(text, "utf-8")
        start, end = threading.Barrier(4), threading.Barrier(4)
        claims: list[Claim] = []

        def take(
            out: Path = out,
            start: threading.Barrier = start,
            end: threading.Barrier = end,
            claims: list[Claim] = claims,
        ) -> None:
            with run_lock(out, {**SAME}) as lock:
                start.wait(30)
                claims.append(lock.claim(Path("a")))
                end.wait(30)

        together(take, take, take, take)
        assert [c.held_by is None for c in claims].count(True) == 1
        assert sum(c.taken_from is not None for c in claims) == attempt % 2
        assert not (out / SHARING_NAME).exists()


def test_a_lock_given_up_while_it_is_looked_at_is_not_taken_for_a_stale_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run_lock(tmp_path, {**SAME}) as lock:
        path = tmp_path / SHARING_NAME / "lock"
        path.write_text(holder(platform.node(), os.getpid(), None), "utf-8")
        read = signs_of_life.read

        def read_then_remove(found: Path) -> signs_of_life.Holder | None:
            answer = read(found)
            path.unlink()
            return answer

        monkeypatch.setattr(run_lock_module, "read", read_then_remove)
        monkeypatch.setattr(signs_of_life, "remove_stale", lambda *_: pytest.fail("cleared away"))
        with lock.alone():
            pass


def test_what_took_the_place_of_a_stale_file_is_never_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    path.write_text(holder("another", 1, None, "stale"), "utf-8")
    stale = signs_of_life.read(path)
    path.write_text(holder("another", 1, None, "next"), "utf-8")
    monkeypatch.setattr(Path, "replace", lambda *_: pytest.fail("moved away"))
    signs_of_life.remove_stale(path, stale)
    assert path.exists()


def test_claims_that_killed_runs_left_go_with_the_last_run(tmp_path: Path) -> None:
    (tmp_path / SHARING_NAME).mkdir()
    (tmp_path / SHARING_NAME / "claim-1").write_text(holder("another", 1, SAME), "utf-8")
    leave_run(tmp_path, age_s=3600, terms=SAME)
    with run_lock(tmp_path, {**SAME}):
        pass
    assert list(tmp_path.iterdir()) == []
