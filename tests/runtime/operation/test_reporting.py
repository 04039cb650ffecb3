from __future__ import annotations

import os
from pathlib import Path

import pytest

from sshr_deploy.errors import (
    InputError,
    MissingMppError,
    OutputError,
    SessionError,
    SlowSlideError,
    SshrDeployError,
)
from sshr_deploy.runtime.contract import SessionInfo
from sshr_deploy.runtime.operation.ended import failure_of
from sshr_deploy.runtime.operation.events import Code, Event, Events
from sshr_deploy.runtime.operation.health import Health
from sshr_deploy.runtime.operation.reporting import EventReporter, TakeoverReporter, started
from sshr_deploy.runtime.results.findings import InputResult
from tests.runtime.running import Recorder, Runner

INFO = SessionInfo("onnx-cpu", "fp32", "a CPU", "onnxruntime 1.32.0")


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (MissingMppError("x"), "no_mpp"),
        (SlowSlideError("x"), "slow_slide"),
        (InputError("x"), "input"),
        (None, "input"),
        (OutputError("x"), "output"),
        (SessionError("x"), "engine"),
        (SshrDeployError("x"), "defect"),
    ],
)
def test_kinds_of_failures(error: SshrDeployError | None, failure: str) -> None:
    assert failure_of(error) == failure


def test_a_run_of_a_good_and_a_bad_slide(infer: Runner, demo_slide: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    good, bad = tmp_path / "in" / "good.svs", tmp_path / "in" / "bad.svs"
    good.symlink_to(demo_slide)
    bad.write_bytes(b"nonsense")
    events: list[Event] = []
    recorder, health, out = Recorder(), Health(), tmp_path / "out"
    reporter = EventReporter(recorder, Events(events.append), health, out)
    infer(good.parent, out, reporter=reporter)  # type: ignore[arg-type]
    infer(good, out, reporter=reporter)  # type: ignore[arg-type]
    told = {(event.slide, event.code): event.facts for event in events[:3]}
    begun, done = told[good, Code.SLIDE_STARTED], told[good, Code.SLIDE_DONE]
    assert begun["tiles"] == recorder.announced > 0
    assert done["folder"] == str(out / "good.svs") and done["earlier"] is False
    result = next(r for r in recorder.finished if r.path == good)
    assert result.summary is not None
    assert done["tissue_mm2"] == result.summary.tissue_area_mm2
    assert done["seconds"] == result.summary.seconds["total"]
    failed = told[bad, Code.SLIDE_FAILED]
    assert failed["failure"] == "input" and "bad.svs" in str(failed["reason"])
    assert [(e.code, e.facts["earlier"]) for e in events[3:]] == [(Code.SLIDE_DONE, True)]


def test_a_failure_before_the_run_is_an_event() -> None:
    events: list[Event] = []
    reporter = EventReporter(Recorder(), Events(events.append), Health(), Path())
    reporter.input_finished(InputResult(Path("folder"), None, "failed", "cannot be read"))
    assert [(e.code, e.facts["failure"]) for e in events] == [(Code.SLIDE_FAILED, "input")]


def test_a_slide_of_a_dead_run_is_an_event() -> None:
    events: list[Event] = []
    reporter = TakeoverReporter(Recorder(), Events(events.append))
    reporter.taken_over(Path("a.svs"), "process 7 of lab")
    assert [(e.code, e.slide, e.facts["reason"]) for e in events] == [
        (Code.TAKEN_OVER, Path("a.svs"), "process 7 of lab gave no sign of life")
    ]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (None, None),
        (KeyboardInterrupt(), "interrupted"),
        (SessionError("the engine\nfailed"), "the engine\\nfailed"),
    ],
)
def test_begin_and_end(error: BaseException | None, reason: str | None) -> None:
    events: list[Event] = []
    health = Health()

    def run() -> None:
        with started(Events(events.append), health, INFO):
            if error is not None:
                raise error

    if error is None:
        run()
    else:
        with pytest.raises(type(error)):
            run()
    begin, end = events
    assert (begin.code, end.code) == (Code.STARTED, Code.STOPPED)
    assert begin.facts["pid"] == os.getpid() and begin.facts["engine"] == "onnx-cpu"
    assert end.facts["reason"] == reason
    assert health.report().engine == "onnx-cpu fp32 on a CPU"
