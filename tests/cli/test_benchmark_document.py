from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import typer

from sshr_deploy.benchmarks.measuring.neighbours import Neighbours
from sshr_deploy.benchmarks.report.recorder import Recorder
from sshr_deploy.benchmarks.report.records import BenchmarkDocument, Row
from sshr_deploy.cli.benchmark_document import shown
from sshr_deploy.errors import SessionError

MEASURED = Row(name="a", unit="ms", better="lower", samples=(1.0,))
UNMEASURED = Row(name="b", unit="ms", better="lower", samples=(), not_measured="no GPU")


def _show(document: BenchmarkDocument) -> None:
    print([row.name for row in document.rows])


@pytest.mark.parametrize(("ends_with", "code"), [(KeyboardInterrupt, 130), (SessionError, None)])
def test_what_an_end_in_the_middle_leaves_is_shown(
    ends_with: type[BaseException],
    code: int | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "found.json"
    recorder = Recorder("latency", None, {}, file)
    with pytest.raises((typer.Exit, ends_with)) as ended, shown(recorder, _show, file):
        recorder.row(MEASURED)
        raise ends_with("the engine failed")
    assert getattr(ended.value, "exit_code", None) == code
    assert capsys.readouterr().out == f"['a']\n{file}\n"
    kept = json.loads(file.read_text("utf-8"))
    assert (kept["complete"], len(kept["rows"])) == (False, 1)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP])
def test_what_asks_to_end_is_as_ctrl_c(sent: signal.Signals) -> None:
    def own(number: int, frame: object) -> None:
        pytest.fail("not taken for Ctrl-C")

    before, cleaned = signal.signal(sent, own), False
    try:
        with pytest.raises(typer.Exit) as found, shown(Recorder("slides", None, {}), _show, None):
            try:
                os.kill(os.getpid(), sent)
            finally:
                cleaned = True
        assert signal.getsignal(sent) is own
        assert (found.value.exit_code, cleaned) == (130, True)
        signal.signal(sent, signal.SIG_IGN)
        with shown(Recorder("slides", None, {}), _show, None):  # as below `nohup`
            os.kill(os.getpid(), sent)
    finally:
        signal.signal(sent, before)


@pytest.mark.parametrize(("rows", "code"), [([MEASURED, UNMEASURED], 0), ([UNMEASURED], 1)])
def test_the_exit_code_says_whether_anything_was_measured(rows: list[Row], code: int) -> None:
    recorder, found = Recorder("latency", None, {}), 0
    try:
        with shown(recorder, _show, None):
            for row in rows:
                recorder.row(row)
    except typer.Exit as ended:
        found = ended.exit_code
    assert (found, recorder.document.complete) == (code, True)


def test_a_busy_machine_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Neighbours, "share", lambda _: 0.4)
    recorder = Recorder("latency", None, {})
    with shown(recorder, _show, None):
        recorder.row(MEASURED)
    assert "warning: other work took 40% of the cores' time" in capsys.readouterr().err
