"""Requests to stop, and slides that take too long: the batch in hand is kept, the rest is left."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sshr_deploy.bundle import Bundle
from sshr_deploy.cli.stopping import stop_on_sigterm
from sshr_deploy.errors import SlowSlideError, UsageError
from sshr_deploy.geometry import PATCH, Geometry
from sshr_deploy.runtime.pipeline import slide as slide_job
from sshr_deploy.runtime.pipeline import stopping
from sshr_deploy.runtime.pipeline.run import Run, RunResult
from sshr_deploy.runtime.pipeline.slide import SlideWork
from sshr_deploy.runtime.pipeline.stopping import StopRequest
from sshr_deploy.runtime.pipeline.unit_store import UnitStore
from sshr_deploy.runtime.pipeline.units import FieldUnits
from sshr_deploy.runtime.pipeline.work import prepare_run
from sshr_deploy.runtime.results.file_names import UNFINISHED_NAME
from sshr_deploy.runtime.settings import InferSettings
from tests.cli.command import signals_kept
from tests.runtime.pipeline.flow_parts import FIELDS, WAIT_S, Session, slides
from tests.runtime.running import Recorder, Runner, context_of, read_summary

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


def stopped_run(
    bundle: Bundle, session: Session, source: Path, out: Path, stop: StopRequest, **settings: Any
) -> RunResult:
    """Of a run that is asked to stop and does."""
    context = context_of(bundle, session, **settings)
    with prepare_run(source, out, context.settings) as work:
        run = Run(work, context, Recorder(), stop=stop)
        with pytest.raises(KeyboardInterrupt):
            for _ in run:
                pass
    assert run.outcome.document.interrupted
    return run.outcome


@pytest.mark.parametrize("geometry", [PATCH, FIELDS])
@pytest.mark.parametrize("ahead", [0, 2])
def test_all_that_the_engine_has_is_kept(
    bundle: Bundle, tmp_path: Path, geometry: Geometry, ahead: int
) -> None:
    source, out = slides(tmp_path / "in", 2), tmp_path / "out"
    session, stop, again = Session(geometry, ahead), StopRequest(), Session(geometry)
    session.before = lambda done: stop.ask() if done == 4 else None
    stopped_run(bundle, session, source, out, stop, batch=2)
    assert [path.name for path in (out / "0.tif").iterdir()] == [UNFINISHED_NAME]
    assert Runner(bundle, again)(source, out, batch=2).exit_code == 0
    total = sum(read_summary(out / f"{i}.tif")["tiles"]["computed"] for i in range(2))
    assert sum(session.batches) >= 6
    assert sum(again.batches) == total - sum(session.batches)


def test_files_are_not_written_to_the_end(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = slides(tmp_path / "in", 1), tmp_path / "out"
    bands, stop, again = FieldUnits.bands, StopRequest(), Session()

    def asked(units: FieldUnits, store: UnitStore, check_stop: Any) -> Any:
        stop.ask()
        return bands(units, store, check_stop)

    with monkeypatch.context() as patched:
        patched.setattr(FieldUnits, "bands", asked)
        stopped_run(bundle, Session(), source, out, stop)
    assert [path.name for path in (out / "0.tif").iterdir()] == [UNFINISHED_NAME]
    assert Runner(bundle, again)(source, out).exit_code == 0
    assert again.batches == []


def test_a_slide_that_is_finished_counts(bundle: Bundle, tmp_path: Path) -> None:
    source, out, stop = slides(tmp_path / "in", 3), tmp_path / "out", StopRequest()
    context = context_of(bundle, Session())
    with prepare_run(source, out, context.settings) as work:
        results = iter(Run(work, context, Recorder(), stop=stop))
        assert next(results).status == "done"
        stop.ask()
        with pytest.raises(KeyboardInterrupt):
            list(results)
    assert (out / "0.tif" / "summary.json").exists()
    assert not (out / "2.tif" / "summary.json").exists()


def test_images_that_are_done_count(bundle: Bundle, tmp_path: Path) -> None:
    source, session, stop = tmp_path / "in", Session(PATCH), StopRequest()
    source.mkdir()
    for index in range(4):
        noise = np.random.default_rng(index).integers(120, 200, (224, 224, 3), np.uint8)
        Image.fromarray(noise).save(source / f"{index}.png")
    session.before = lambda done: stop.ask() if done == 2 else None
    outcome = stopped_run(bundle, session, source, tmp_path / "out", stop, batch=1, any_stain=True)
    assert outcome.document.counts.done in (2, 3)
    left = 4 - outcome.document.counts.done
    again = Session(PATCH)
    Runner(bundle, again)(source, tmp_path / "out", any_stain=True)
    assert sum(again.batches) == left


def test_the_first_sigterm_asks_and_the_second_interrupts() -> None:
    stop = StopRequest()
    with signals_kept():
        stop_on_sigterm(stop)
        assert not stop.wait(0.0)
        signal.raise_signal(signal.SIGTERM)
        assert stop.wait(WAIT_S)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


def test_waiting_ends_with_the_request() -> None:
    stop = StopRequest()
    timer = threading.Timer(0.05, stop.ask)
    timer.start()
    assert stop.wait(WAIT_S)
    timer.join()


class Clock:
    """Time that passes only where a test says so, in minutes."""

    now = 0.0

    def __init__(self) -> None:
        self._started = Clock.now

    def seconds(self) -> float:
        return 60 * (Clock.now - self._started)


def test_a_slide_over_its_time_fails_and_another_run_goes_on(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second slide, planned meanwhile, is not blamed for the time of the first."""
    monkeypatch.setattr(stopping, "Stopwatch", Clock)
    monkeypatch.setattr(Clock, "now", 0.0)
    source, out, session = slides(tmp_path / "in", 2), tmp_path / "out", Session()
    begin, planned = slide_job.begin_slide, threading.Event()

    def plan(path: Path, *args: Any) -> SlideWork:
        work = begin(path, *args)
        if path.name == "1.tif":
            planned.set()
        return work

    def slow(done: int) -> None:
        assert planned.wait(WAIT_S)
        Clock.now += 2 if done < 4 else 0

    session.before = slow
    monkeypatch.setattr(slide_job, "begin_slide", plan)
    result = Runner(bundle, session)(source, out, batch=2, max_slide_minutes=3)
    assert [r.status for r in result.results] == ["failed", "done"]
    assert isinstance(result.results[0].error, SlowSlideError)
    assert "took longer than `max_slide_minutes` allows (3)" in result.results[0].reason
    assert [path.name for path in (out / "0.tif").iterdir()] == [UNFINISHED_NAME]

    again = Session()
    assert Runner(bundle, again)(source, out, batch=2).exit_code == 0
    assert sum(again.batches) == read_summary(out / "0.tif")["tiles"]["computed"] - 4
    assert not (out / "0.tif" / UNFINISHED_NAME).exists()


def test_planning_and_writing_take_time_too(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "Stopwatch", Clock)
    source, session, bands = slides(tmp_path / "in", 1), Session(), FieldUnits.bands

    def slow(units: FieldUnits, store: UnitStore, check_stop: Any) -> Any:
        Clock.now += 2
        return bands(units, store, check_stop)

    monkeypatch.setattr(FieldUnits, "bands", slow)
    result = Runner(bundle, session)(source, tmp_path / "out", max_slide_minutes=1)
    assert isinstance(result.results[0].error, SlowSlideError)
    result = Runner(bundle, again := Session())(source, tmp_path / "out", max_slide_minutes=3)
    assert [r.status for r in result.results] == ["done"]
    assert again.batches == []
    monkeypatch.setattr(Clock, "seconds", lambda _: 100.0)
    result = Runner(bundle, again)(source, tmp_path / "other", max_slide_minutes=1)
    assert isinstance(result.results[0].error, SlowSlideError)
    assert again.batches == []


@pytest.mark.parametrize("minutes", [0, -1, float("nan")])
def test_no_time_at_all_is_refused(minutes: float) -> None:
    with pytest.raises(UsageError, match="`max_slide_minutes`"):
        InferSettings(max_slide_minutes=minutes)
