from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sshr_deploy.errors import OutputError
from sshr_deploy.runtime.operation.event_log import EventLog
from sshr_deploy.runtime.operation.events import Code
from tests.runtime.operation.events import SLIDE, event


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "events.jsonl"


def test_an_event_is_one_flat_object(path: Path) -> None:
    log = EventLog(path, pytest.fail)
    log(event(Code.SLIDE_FAILED, reason='two\nlines, "quoted"', attempts=2))
    log(event(Code.STOPPED, None, reason=None))
    assert lines(path) == [
        {
            "time_utc": "2026-01-31T23:59:59+00:00",
            "code": "slide_failed",
            "slide": str(SLIDE.absolute()),
            "reason": 'two\nlines, "quoted"',
            "attempts": 2,
        },
        {
            "time_utc": "2026-01-31T23:59:59+00:00",
            "code": "stopped",
            "slide": None,
            "reason": None,
        },
    ]


def test_names_of_any_bytes_are_logged(path: Path) -> None:
    name = os.fsdecode("/schön/".encode() + b"\xff.svs")
    EventLog(path, pytest.fail)(event(Code.SLIDE_DONE, Path(name)))
    assert lines(path)[0]["slide"] == str(Path(name).absolute())
    assert "schön" in path.read_text("utf-8")


def test_it_goes_on_in_a_new_file_after_a_rotation(path: Path) -> None:
    log = EventLog(path, pytest.fail)
    log(event(Code.STARTED))
    path.rename(path.with_suffix(".1"))
    log(event(Code.SLIDE_DONE))
    path.write_bytes(b"")  # copied and truncated
    log(event(Code.STOPPED))
    assert [line["code"] for line in lines(path.with_suffix(".1"))] == ["started"]
    assert [line["code"] for line in lines(path)] == ["stopped"]


def test_an_earlier_log_is_kept(path: Path) -> None:
    for _ in range(2):
        EventLog(path, pytest.fail)(event(Code.STARTED))
    assert len(lines(path)) == 2


def test_what_cannot_be_written_is_said_once_and_stops_nothing(path: Path) -> None:
    said: list[str] = []
    log = EventLog(path, said.append)
    path.unlink()
    path.parent.rmdir()
    for _ in range(3):
        log(event(Code.SLIDE_DONE))
    assert len(said) == 1
    assert str(path) in said[0] and "No such file" in said[0]
    path.parent.mkdir()
    log(event(Code.STOPPED))
    assert [line["code"] for line in lines(path)] == ["stopped"]
    path.unlink()
    path.mkdir()
    log(event(Code.STOPPED))
    assert len(said) == 2


def test_a_file_that_cannot_be_made_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        EventLog(tmp_path, pytest.fail)


def test_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    EventLog(Path("-"), pytest.fail)(event(Code.STARTED))
    assert json.loads(capsys.readouterr().out)["code"] == "started"


def test_threads_write_whole_lines(path: Path) -> None:
    log = EventLog(path, pytest.fail)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: log(event(Code.SLIDE_DONE, n=n, text="x" * 5000)), range(80)))
    assert sorted(str(line["n"]) for line in lines(path)) == sorted(map(str, range(80)))
