"""A watch with a workforce that is told how each slide ends."""

from __future__ import annotations

import os
import shutil
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sshr_deploy.errors import (
    InputError,
    MissingMppError,
    OutputError,
    SessionError,
    SshrDeployError,
)
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.operation.events import Code, Event, Events
from sshr_deploy.runtime.pipeline.discovery import Input
from sshr_deploy.runtime.pipeline.feed import Take
from sshr_deploy.runtime.pipeline.stopping import StopRequest
from sshr_deploy.runtime.results.findings import InputResult
from sshr_deploy.runtime.settings import InferSettings
from sshr_deploy.runtime.watch import outcomes, scanning, service
from sshr_deploy.runtime.watch.arrivals import Arrivals
from sshr_deploy.runtime.watch.queue import Queue, QueuedSlide, State
from sshr_deploy.runtime.watch.scanning import Files, watched_folders
from sshr_deploy.runtime.watch.service import Watch, WatchSettings
from sshr_deploy.runtime.watch.table import SummaryTable
from sshr_deploy.runtime.watch.wake import Wake
from tests.runtime.watch.queues import new_queue, states

pytestmark = pytest.mark.usefixtures("no_thread_is_left")

Ends = Callable[[Path], SshrDeployError | None]


class Workforce:
    """Ends each slide as `ends` says; what it raises of the engine or the disk comes up as well."""

    def __init__(self, ends: Ends) -> None:
        self._ends, self._late = ends, deque[InputResult]()
        self.taken: list[str] = []
        self.closed = False

    def process(self, take: Take[Input]) -> Generator[InputResult, None, None]:
        while (item := take()) is not None:
            self.taken.append(item.path.name)
            error = self._ends(item.path)
            if error is None:
                yield InputResult(item.path, "slide", "done", summary=SUMMARY)
                continue
            failed = InputResult(item.path, "slide", "failed", str(error), error=error)
            if isinstance(error, OutputError | SessionError):
                self._late.append(failed)
                raise error
            yield failed

    def ended(self) -> Iterator[InputResult]:
        while self._late:
            yield self._late.popleft()

    def effort(self) -> None:
        return None

    def close(self) -> None:
        self.closed = True


SUMMARY: Any = SimpleNamespace(folder="a", seconds={"total": 1.0}, tissue_area_mm2=None)


QUICK = {"settle_s": 0.0, "poll_s": 0.05, "once": True, "min_free_bytes": 0}


@dataclass
class Beside:
    """The folder of a scanner, a queue, and what was said."""

    folder: Path
    out: Path
    queue: Queue
    profile: Profile
    said: list[Event] = field(default_factory=list)
    stop: StopRequest = field(default_factory=StopRequest)

    def put(self, *names: str) -> None:
        for name in names:
            (self.folder / name).write_bytes(b"slide")

    def watch(
        self, ends: Ends, *, is_lost: bool = False, **changes: Any
    ) -> tuple[Watch, Workforce]:
        settings = WatchSettings(**{**QUICK, **changes})
        events, workforce = Events(self.said.append), Workforce(ends)
        folders = watched_folders([self.folder], self.out)
        watch = Watch(
            self.queue,
            Arrivals(self.queue, folders, self.out, events, InferSettings(), settle_s=0.0),
            workforce,
            Wake([], settings.poll_s),
            out=self.out,
            table=SummaryTable(self.out, self.profile),
            events=events,
            settings=settings,
            stop=self.stop,
            is_lost=lambda: is_lost,
        )
        return watch, workforce

    def run(self, ends: Ends = lambda _: None, **changes: Any) -> list[str]:
        watch, workforce = self.watch(ends, **changes)
        watch.run()
        assert workforce.closed
        return workforce.taken

    def slide(self, name: str = "a.svs") -> QueuedSlide:
        found = self.queue.slide(self.folder / name)
        assert found is not None
        return found

    def codes(self) -> list[str]:
        return [
            e.code.value for e in self.said if e.code not in (Code.SLIDE_FOUND, Code.SLIDE_READY)
        ]


@pytest.fixture
def beside(tmp_path: Path, profile: Profile, monkeypatch: pytest.MonkeyPatch) -> Iterator[Beside]:
    monkeypatch.setattr(service, "_IDLE_S", 0.01)
    monkeypatch.setattr(service, "_OUTPUT_PAUSE_S", 0.0)
    for name in ("scans", "out"):
        (tmp_path / name).mkdir()
    with new_queue(tmp_path / "queue.sqlite") as queue:
        yield Beside(tmp_path / "scans", tmp_path / "out", queue, profile)


def test_slides_are_done_once(beside: Beside) -> None:
    beside.put("a.svs", "b.svs")
    assert sorted(beside.run()) == ["a.svs", "b.svs"]
    assert states(beside.queue) == {"a.svs": "done", "b.svs": "done"}
    assert beside.run() == []
    done = [e for e in beside.said if e.code is Code.SLIDE_DONE]
    assert all(0 <= float(str(e.facts["turnaround_s"])) < 60 for e in done)
    watcher = beside.queue.watcher()
    assert watcher is not None
    assert (watcher.pid, watcher.beat_s) == (os.getpid(), 0.0)


def test_a_slide_that_fails_is_tried_later_and_then_no_more(
    beside: Beside, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside.put("a.svs")

    def damaged(path: Path) -> SshrDeployError:
        return InputError(f"{path} is damaged")

    pauses = []
    for _ in range(2):
        assert beside.run(damaged) == ["a.svs"]
        slide = beside.slide()
        pauses.append(round((slide.again_s or 0) - (slide.ended_s or 0)))
        assert beside.run(damaged) == []  # not yet
        assert "a.svs is damaged" in (beside.out / "summary.csv").read_text()
        with beside.queue.writing():
            beside.queue.move(slide.path, State.WAITING)
    assert pauses == [60, 120]
    beside.run(damaged)
    slide = beside.slide()
    assert (slide.state, slide.attempts, slide.code) == (State.QUARANTINED, 3, "input")
    assert beside.codes()[-1] == "slide_quarantined"
    (beside.folder / "a.svs").write_bytes(b"a whole slide")
    assert beside.run() == ["a.svs"]
    assert beside.slide().state is State.DONE


def test_without_a_pixel_size_it_is_not_tried_again(beside: Beside) -> None:
    beside.put("a.svs")
    beside.run(lambda path: MissingMppError(f"{path} states no pixel size"))
    assert (beside.slide().state, beside.slide().code) == (State.QUARANTINED, "no_mpp")


@pytest.mark.parametrize("error", [None, InputError("cannot be read")])
def test_a_slide_that_is_replaced_while_it_runs(
    beside: Beside, error: SshrDeployError | None
) -> None:
    beside.put("a.svs")
    tries = [0]

    def replaced_at_first(path: Path) -> SshrDeployError | None:
        tries[0] += 1
        if tries[0] > 1:
            return None
        result = beside.out / "a.svs" / "overlay.png"
        result.parent.mkdir()
        result.touch()
        path.write_bytes(b"another slide")
        return error

    assert beside.run(replaced_at_first) == ["a.svs", "a.svs"]
    assert beside.slide().state is State.DONE
    assert "slide_changed" in beside.codes()
    if error is None:  # results of something that is not there do not stay
        assert not (beside.out / "a.svs").exists()


def test_a_slide_that_vanishes_while_it_runs(beside: Beside) -> None:
    beside.put("a.svs", "b.svs")

    def vanish(path: Path) -> SshrDeployError | None:
        path.unlink()
        (beside.folder / "text.txt").touch()
        return InputError(f"{path} cannot be read") if path.name == "a.svs" else None

    beside.run(vanish)
    assert states(beside.queue) == {"b.svs": "done"}
    assert beside.codes().count("slide_gone") == 2


def test_a_folder_that_is_lost_while_a_slide_runs_is_no_failure_of_it(beside: Beside) -> None:
    beside.put("a.svs")
    away = beside.folder.with_name("away")
    lost, back = threading.Event(), threading.Timer(0.3, away.rename, [beside.folder])

    def lose(path: Path) -> SshrDeployError | None:
        if lost.is_set():
            beside.stop.ask()
            return None
        beside.folder.rename(away)
        lost.set()
        back.start()
        return InputError(f"{path} cannot be read")

    assert beside.run(lose, once=False)[-1] == "a.svs"
    back.join()
    assert (beside.slide().state, beside.slide().attempts) == (State.DONE, 0)


def test_results_that_cannot_be_written_do_not_end_it(beside: Beside) -> None:
    beside.put("a.svs")
    errors = [OutputError("cannot write: no space left"), None]
    assert beside.run(lambda _: errors.pop(0)) == ["a.svs", "a.svs"]
    assert (beside.slide().state, beside.slide().attempts) == (State.DONE, 0)
    codes = beside.codes()
    assert codes.index("disk_low") < codes.index("disk_ok") < codes.index("slide_done")


@pytest.mark.parametrize(("error", "code"), [(OutputError, "output"), (InputError, "input")])
def test_a_slide_that_is_put_off_does_not_hold_up_others(
    beside: Beside, monkeypatch: pytest.MonkeyPatch, error: type[SshrDeployError], code: str
) -> None:
    beside.put("a.svs", "b.svs")
    errors = [error("a file is in the way"), error("a file is in the way")]

    def files_of(path: Path) -> Files:
        if path.name == "a.svs" and error is InputError:
            raise PermissionError
        return scanning.files_of(path)

    monkeypatch.setattr(outcomes, "files_of", files_of)
    order = beside.run(lambda path: errors.pop() if path.name == "a.svs" else None)
    assert order == ["a.svs", "a.svs", "b.svs"]
    slide = beside.slide()
    assert (slide.state, slide.attempts, slide.code) == (State.FAILED, 0, code)
    assert round((slide.again_s or 0) - (slide.ended_s or 0)) == 60


def test_a_queue_that_cannot_be_written_for_a_while_does_not_end_it(
    beside: Beside, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside.put("a.svs", "b.svs")
    watch, workforce = beside.watch(lambda _: None)
    full = [OutputError("the queue cannot be used: disk is full")] * 4
    move = Queue.move

    def move_with_luck(queue: Queue, path: Path, to: State, **changes: Any) -> QueuedSlide:
        if full and workforce.taken:
            raise full.pop()
        return move(queue, path, to, **changes)

    monkeypatch.setattr(Queue, "move", move_with_luck)
    watch.run()
    assert workforce.taken == ["a.svs", "a.svs", "b.svs"]
    assert states(beside.queue) == {"a.svs": "done", "b.svs": "done"}
    assert beside.slide().crashes == 0


def test_another_process_with_the_results_ends_it(beside: Beside) -> None:
    beside.put("a.svs")
    watch, _ = beside.watch(lambda _: OutputError("another run writes here"), is_lost=True)
    with pytest.raises(OutputError, match="another run"):
        watch.run()
    assert beside.slide().state is State.WAITING


def test_a_failing_engine_ends_it_and_the_attempt_counts(beside: Beside) -> None:
    beside.put("a.svs")
    watch, workforce = beside.watch(lambda _: SessionError("the GPU is gone"))
    with pytest.raises(SessionError):
        watch.run()
    assert workforce.closed
    slide = beside.slide()
    assert (slide.state, slide.attempts, slide.code) == (State.FAILED, 1, "engine")


def test_little_space_on_the_disk(beside: Beside, monkeypatch: pytest.MonkeyPatch) -> None:
    beside.put("a.svs")
    free = [1 << 30]

    def disk_usage(_: Path) -> SimpleNamespace:
        return SimpleNamespace(free=free[0])

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)

    def last_one(_: Path) -> None:
        beside.stop.ask()

    watch, workforce = beside.watch(last_one, once=False, min_free_bytes=2 << 30)
    thread = threading.Thread(target=watch.run)
    thread.start()
    wait_for(lambda: states(beside.queue) == {"a.svs": "waiting"} and bool(beside.said))
    wait_for(lambda: "disk_low" in beside.codes())
    assert workforce.taken == []
    free[0] = 3 << 30
    thread.join()
    assert workforce.taken == ["a.svs"]
    low = next(e for e in beside.said if e.code is Code.DISK_LOW)
    assert low.facts["free_bytes"] == 1 << 30
    assert str(low.facts["reason"]).startswith("1.0 GiB are free at ")


def test_once_does_not_wait_for_the_disk(beside: Beside) -> None:
    beside.put("a.svs")
    watch, workforce = beside.watch(lambda _: None, min_free_bytes=1 << 60)
    with pytest.raises(OutputError, match=r"GiB are free at .*; slides wait"):
        watch.run()
    assert workforce.taken == []
    (beside.folder / "a.svs").unlink()
    beside.queue.drop(beside.folder / "a.svs")
    assert beside.run(min_free_bytes=1 << 60) == []  # nothing needs it


def test_once_does_not_wait_for_a_folder_that_is_lost(beside: Beside) -> None:
    beside.put("a.svs")
    watch, workforce = beside.watch(lambda _: None)
    for _ in range(2):
        watch._arrivals.poll()
    beside.folder.rename(beside.folder.with_name("away"))
    watch._arrivals.poll()
    watch.run()
    assert (workforce.taken, beside.slide().state) == ([], State.WAITING)
    assert beside.codes() == ["folder_lost"]


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("never")


def test_it_ends_when_it_is_asked_to(beside: Beside) -> None:
    beside.put("a.svs", "b.svs")

    def last_one(_: Path) -> None:
        beside.stop.ask()

    assert len(beside.run(last_one, once=False)) == 1
    assert sorted(states(beside.queue).values()) == ["done", "waiting"]


def test_ctrl_c_leaves_slides_for_the_next_time(beside: Beside) -> None:
    beside.put("a.svs")

    def interrupt(_: Path) -> None:
        raise KeyboardInterrupt

    watch, _ = beside.watch(interrupt)
    with pytest.raises(KeyboardInterrupt):
        watch.run()
    assert (beside.slide().state, beside.slide().crashes) == (State.WAITING, 0)
    assert beside.run() == ["a.svs"]


def test_what_ran_when_the_process_was_killed_is_done_by_the_next(beside: Beside) -> None:
    beside.put("a.svs", "b.svs")
    watch, _ = beside.watch(lambda _: None)
    watch._arrivals.poll()
    watch._arrivals.poll()
    for crashes in range(outcomes.MOST_CRASHES - 1):
        beside.queue.move(beside.folder / "a.svs", State.RUNNING)
        watch._outcomes.recover()
        assert (beside.slide().state, beside.slide().crashes) == (State.WAITING, crashes + 1)
    assert beside.run() == ["b.svs", "a.svs"]
    assert beside.slide().crashes == 0


def test_a_slide_that_ends_the_process_each_time(beside: Beside) -> None:
    beside.put("a.svs")
    watch, _ = beside.watch(lambda _: None)
    watch._arrivals.poll()
    watch._arrivals.poll()
    for _ in range(outcomes.MOST_CRASHES):
        beside.queue.move(beside.folder / "a.svs", State.RUNNING)
        watch._outcomes.recover()
    assert (beside.slide().state, beside.slide().code) == (State.QUARANTINED, "crash")
    assert beside.run() == []


def test_a_defect_of_the_looking_thread_comes_up(
    beside: Beside, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(_: Arrivals) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Arrivals, "poll", defect)
    with pytest.raises(ZeroDivisionError):
        beside.run()
