"""Threads of the flow: nothing waits without need, one slide's failure is its own, all end."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sshr_deploy.bundle import Bundle
from sshr_deploy.errors import InputError, OutputError, SessionError
from sshr_deploy.geometry import PATCH, Geometry
from sshr_deploy.runtime.contract import MaskRule
from sshr_deploy.runtime.pipeline import endings, slide_files
from sshr_deploy.runtime.pipeline.feed import Feed
from sshr_deploy.runtime.pipeline.result_folders import write_summary
from sshr_deploy.runtime.pipeline.slide import SlideWork
from sshr_deploy.runtime.pipeline.unit_store import UnitStore
from sshr_deploy.runtime.results.file_names import (
    REPORT_NAME,
    SLIDE_RESULTS,
    SUMMARY_NAME,
    UNFINISHED_NAME,
)
from sshr_deploy.runtime.sessions.base import Finish
from sshr_deploy.runtime.writers.overlay import write_overlay
from tests.runtime.colour_images import Pixels
from tests.runtime.pipeline.flow_parts import FIELDS, SEVERAL, WAIT_S, Session, mask_of, slides
from tests.runtime.running import Recorder, Runner, read_summary
from tests.runtime.small_slides import small_slide

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


@pytest.mark.parametrize("geometry", [PATCH, FIELDS, SEVERAL])
def test_results_do_not_depend_on_how_units_are_grouped(
    bundle: Bundle, tmp_path: Path, geometry: Geometry
) -> None:
    source = slides(tmp_path / "in", 3)
    recorders = []
    ways: list[dict[str, Any]] = [{"batch": 1, "readers": 1}, {"batch": 7, "readers": 3}]
    for number, settings in enumerate(ways):
        recorders.append(Recorder())
        session = Session(geometry, ahead=2 * number)
        result = Runner(bundle, session)(
            source, tmp_path / str(number), reporter=recorders[-1], **settings
        )
        assert [r.status for r in result.results] == ["done"] * 3
        effort = result.document.effort
        assert effort is not None
        assert (effort.readers, effort.readers_chosen_by) == (settings["readers"], "`readers`")
        assert {"plan", "read", "infer", "keep", "labels", "write"} == set(effort.busy_s)
    for name in ("0.tif", "1.tif", "2.tif"):
        one, other = (tmp_path / str(number) / name for number in range(2))
        assert np.array_equal(mask_of(tmp_path / "0", name), mask_of(tmp_path / "1", name))
        assert (one / "regions.geojson").read_bytes() == (other / "regions.geojson").read_bytes()
        assert {path.name for path in one.iterdir()} == {*SLIDE_RESULTS, REPORT_NAME, SUMMARY_NAME}
        assert len(np.unique(mask_of(tmp_path / "0", name))) > 2
    assert recorders[0].tiles == recorders[0].announced == recorders[1].tiles > 3


def test_the_next_slide_is_read_while_one_is_computed(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, session = slides(tmp_path / "in", 2), Session()
    planned, second = threading.Event(), threading.Event()
    read, plan_next = SlideWork.read, Feed._plan_next

    def noted(work: SlideWork, unit: Any) -> Any:
        if work.path.name == "1.tif":
            second.set()
        return read(work, unit)

    def noted_plan(feed: Feed[Any, Any]) -> None:
        plan_next(feed)
        if feed.next is not None and feed.next.item.path.name == "1.tif":
            feed.next.planned.add_done_callback(lambda _: planned.set())

    def wait_for_the_second(done: int) -> None:
        if done < units - 1:
            assert planned.wait(WAIT_S)
        else:
            assert second.wait(WAIT_S), "the engine was drained between slides"

    monkeypatch.setattr(Feed, "_plan_next", noted_plan)
    monkeypatch.setattr(SlideWork, "read", noted)
    Runner(bundle, Session())(source / "0.tif", tmp_path / "first")
    units = read_summary(tmp_path / "first" / "0.tif")["tiles"]["computed"]
    second.clear()
    session.before = wait_for_the_second
    assert Runner(bundle, session)(source, tmp_path / "out", batch=1).exit_code == 0


def test_a_slide_is_finished_while_the_next_is_computed(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, session = slides(tmp_path / "in", 2), Session()
    finishing, computed = threading.Event(), threading.Event()
    finish = SlideWork.finish

    def beside(work: SlideWork, check_stop: Callable[[], None]) -> None:
        finishing.set()
        if work.path.name == "0.tif":
            assert computed.wait(WAIT_S), "the engine waits for the files of the slide before"
        finish(work, check_stop)

    def note(_: int) -> None:
        if finishing.is_set():
            computed.set()

    monkeypatch.setattr(SlideWork, "finish", beside)
    session.before = note
    result = Runner(bundle, session)(source, tmp_path / "out", batch=1)
    assert [r.status for r in result.results] == ["done"] * 2


def test_an_engine_that_fails_stops_the_run_and_keeps_what_is_done(
    bundle: Bundle, tmp_path: Path
) -> None:
    source, out, session = slides(tmp_path / "in", 3), tmp_path / "out", Session(ahead=1)
    Runner(bundle, Session())(source / "0.tif", tmp_path / "first")
    units = read_summary(tmp_path / "first" / "0.tif")["tiles"]["computed"]

    def fail(done: int) -> None:
        if done == units + 3:
            raise SessionError("out of memory")

    session.before = fail
    with pytest.raises(SessionError, match="out of memory"):
        Runner(bundle, session)(source, out, batch=1)
    document = json.loads((out / "run.json").read_text())
    assert document["counts"] == {"done": 1, "skipped": 0, "failed": 1}
    assert document["stopped_by"] == "out of memory"
    assert [Path(entry["path"]).name for entry in document["inputs"]] == ["0.tif", "1.tif"]
    assert not (out / "2.tif").exists()
    again = Session()
    result = Runner(bundle, again)(source, out, batch=1)
    assert [r.status for r in result.results] == ["skipped", "done", "done"]
    computed = (read_summary(out / f"{n}.tif")["tiles"]["computed"] for n in (1, 2))
    assert sum(again.batches) < sum(computed), "some of the second slide was kept"


def test_a_defect_of_an_engine_is_that_of_its_slide(bundle: Bundle, tmp_path: Path) -> None:
    source, out, session = slides(tmp_path / "in", 3), tmp_path / "out", Session()

    def fail(done: int) -> None:
        if done == 2:
            session.before = lambda _: None
            raise ZeroDivisionError("oops")

    session.before = fail
    result = Runner(bundle, session)(source, out, batch=1)
    assert [r.status for r in result.results] == ["failed", "done", "done"]
    assert "defect of sshr-deploy (ZeroDivisionError)" in result.results[0].reason
    assert [path.name for path in (out / "0.tif").iterdir()] == ["error.txt"]


@pytest.mark.parametrize("geometry", [PATCH, FIELDS])
def test_a_slide_that_is_damaged_in_the_middle_fails_alone(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, geometry: Geometry
) -> None:
    source, out = slides(tmp_path / "in", 3), tmp_path / "out"
    read = SlideWork.read

    def damaged(work: SlideWork, unit: Any) -> Any:
        if work.path.name == "1.tif" and unit == work.todo[2]:
            raise InputError(f"{work.path} cannot be read at level 0")
        return read(work, unit)

    monkeypatch.setattr(SlideWork, "read", damaged)
    result = Runner(bundle, Session(geometry))(source, out, batch=2)
    assert [r.status for r in result.results] == ["done", "failed", "done"]
    assert result.results[1].reason == f"{source / '1.tif'} cannot be read at level 0"
    assert not (out / "1.tif").exists()


def test_a_slide_that_cannot_be_planned_fails_alone(bundle: Bundle, tmp_path: Path) -> None:
    source = slides(tmp_path / "in", 3)
    small_slide(source / "1.tif", np.full((300, 300, 3), (40, 200, 40), np.uint8))
    result = Runner(bundle, Session())(source, tmp_path / "out")
    assert [r.status for r in result.results] == ["done", "failed", "done"]
    assert "`any_stain`" in result.results[1].reason


@pytest.mark.parametrize(
    ("error", "step"),
    [
        (InputError, "keep"),
        (InputError, "write"),
        (OutputError, "keep"),
        (OutputError, "write"),
        (OutputError, "summary"),
    ],
)
def test_what_cannot_be_kept_or_written_is_told(
    bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: type[Exception],
    step: str,
) -> None:
    """A full disk stops the run; what was computed, of the slide in hand too, is left."""
    source, out = slides(tmp_path / "in", 3), tmp_path / "out"
    put, overlay, summary = UnitStore.put, write_overlay, write_summary

    def full(store: UnitStore, records: Any) -> None:
        if step == "keep" and store._folder.name == "1.tif" and len(store) == 2:
            raise error("no space")
        put(store, records)

    def no_overlay(path: Path, *args: Any, **options: Any) -> None:
        if step == "write" and path.parent.name == "1.tif":
            raise error("no space")
        overlay(path, *args, **options)

    def no_summary(folder: Path, *args: Any) -> None:
        if step == "summary" and folder.name == "1.tif":
            raise error("no space")
        summary(folder, *args)

    with monkeypatch.context() as patched:
        patched.setattr(UnitStore, "put", full)
        patched.setattr(slide_files, "write_overlay", no_overlay)
        patched.setattr(endings, "write_summary", no_summary)
        result = Runner(bundle, Session())(source, out, batch=1)
    stops = error is OutputError
    statuses = ["done", "failed"] if stops else ["done", "failed", "done"]
    assert [r.status for r in result.results] == statuses
    assert result.results[1].reason == "no space"
    assert (str(result.stopped_by) == "no space") is stops
    left = {path.name for path in (out / "2.tif").iterdir()} if (out / "2.tif").exists() else set()
    assert left <= ({UNFINISHED_NAME} if stops else {p.name for p in (out / "0.tif").iterdir()})
    if not stops:
        assert not (out / "1.tif").exists()
        return
    assert [path.name for path in (out / "1.tif").iterdir()] == [UNFINISHED_NAME]
    again = Session()
    assert Runner(bundle, again)(source / "1.tif", out, batch=1).exit_code == 0
    units = read_summary(out / "1.tif")["tiles"]["computed"]
    assert sum(again.batches) == (units - 2 if step == "keep" else 0)


def test_what_was_computed_is_left_where_the_slides_share_goes(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = slides(tmp_path / "in", 1), tmp_path / "out"
    read, again = SlideWork.read, Session()
    slide, away = source / "0.tif", tmp_path / "away"

    def gone(work: SlideWork, unit: Any) -> Any:
        if unit == work.todo[3]:
            source.rename(away)
            raise InputError(f"{work.path} cannot be read at level 0")
        return read(work, unit)

    with monkeypatch.context() as patched:
        patched.setattr(SlideWork, "read", gone)
        result = Runner(bundle, Session())(slide, out, batch=1, readers=1)
    assert [r.status for r in result.results] == ["failed"]
    assert [path.name for path in (out / "0.tif").iterdir()] == [UNFINISHED_NAME]
    away.rename(source)
    assert Runner(bundle, again)(slide, out, batch=1).exit_code == 0
    assert sum(again.batches) == read_summary(out / "0.tif")["tiles"]["computed"] - 3


def test_too_few_units_leave_the_number_of_readers_as_it_is(bundle: Bundle, tmp_path: Path) -> None:
    result = Runner(bundle, Session())(small_slide(tmp_path / "a.tif"), tmp_path / "out", batch=64)
    assert result.document.effort is not None
    assert result.document.effort.readers == 2
    assert "too little" in result.document.effort.readers_chosen_by


def test_calls_at_the_same_time_are_not_counted_twice(bundle: Bundle, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:

        class Streams(Session):
            def _start(self, patches: Pixels, rule: MaskRule | None) -> Finish:
                began.append(len(patches))
                call = pool.submit(time.sleep, 0.05)
                cams = self._compute(patches)
                return lambda: (call.result() or cams, None)

        began = list[int]()
        started = time.perf_counter()
        session = Streams(ahead=2)
        result = Runner(bundle, session)(slides(tmp_path / "in", 1), tmp_path / "out", batch=1)
        spent_s = time.perf_counter() - started
    effort = result.document.effort
    assert effort is not None
    assert len(began) > 2
    waited_s = sum(effort.engine_waited_s.values())
    assert 0 < effort.busy_s["infer"] + effort.busy_s["keep"] + waited_s <= spent_s
