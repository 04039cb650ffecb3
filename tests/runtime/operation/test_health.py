from __future__ import annotations

from pathlib import Path

import pytest

from sshr_deploy.runtime.contract import SessionInfo
from sshr_deploy.runtime.operation import health as module
from sshr_deploy.runtime.operation.events import Code
from sshr_deploy.runtime.operation.health import Health
from tests.runtime.operation.events import SLIDE, event


def test_a_new_service_works_and_knows_nothing() -> None:
    report = Health().report()
    assert report.works and report.problems == ()
    assert (report.running, report.queue, report.disk_free_bytes, report.engine) == (
        0,
        {},
        None,
        None,
    )


def test_silence_is_a_problem_until_the_next_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    health = Health()
    monkeypatch.setattr(module, "SILENT_S", 0.0)
    report = health.report()
    assert not report.works and report.problems[0].startswith("no sign of life")
    monkeypatch.setattr(module, "SILENT_S", 60.0)
    health.alive()
    assert health.report().works


def test_problems_come_and_go_with_their_events() -> None:
    health = Health()
    one, other = Path("/one"), Path("/other")
    health(event(Code.FOLDER_LOST, one, reason="Host is down"))
    health(event(Code.FOLDER_LOST, other))
    health(event(Code.DISK_LOW, None, reason="4.2 GiB free"))
    assert health.report().problems == (
        "folder lost: Host is down",
        f"folder lost: {other}",
        "disk low: 4.2 GiB free",
    )
    assert health.report().works
    health(event(Code.FOLDER_BACK, one))
    health(event(Code.DISK_OK, None))
    assert health.report().problems == (f"folder lost: {other}",)


@pytest.mark.parametrize("end", ["done", "failed", "quarantined", "changed", "gone"])
def test_slides_under_way_are_counted(end: str) -> None:
    health = Health()
    health(event(Code.SLIDE_STARTED))
    health(event(Code.SLIDE_STARTED, Path("other")))
    health(event(Code(f"slide_{end}"), SLIDE))
    health(event(Code(f"slide_{end}"), SLIDE))
    assert health.report().running == 1


def test_what_it_was_told(tmp_path: Path) -> None:
    health = Health()
    health.serves(tmp_path, lambda: {"waiting": 3})
    health.runs_on(SessionInfo("onnx-cpu", "fp32", "a CPU", "onnxruntime 1.32.0"))
    report = health.report()
    assert report.queue == {"waiting": 3}
    assert report.disk_free_bytes is not None and report.disk_free_bytes > 0
    assert report.engine == "onnx-cpu fp32 on a CPU"
    health.serves(tmp_path / "gone")
    assert health.report().disk_free_bytes is None
