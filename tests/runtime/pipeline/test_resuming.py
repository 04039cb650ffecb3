"""Slides that were left or interrupted: all threads end, and the next run goes on."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sshr_deploy.atomic import partial_name
from sshr_deploy.bundle import Bundle
from sshr_deploy.errors import SessionError
from sshr_deploy.geometry import PATCH, Geometry
from sshr_deploy.runtime.pipeline import slide as slide_job
from sshr_deploy.runtime.pipeline.run import Run
from sshr_deploy.runtime.pipeline.run_lock import SHARING_NAME
from sshr_deploy.runtime.pipeline.slide import SlideWork
from sshr_deploy.runtime.pipeline.unit_store import UnitStore
from sshr_deploy.runtime.pipeline.units import FieldUnits
from sshr_deploy.runtime.pipeline.work import prepare_run
from sshr_deploy.runtime.results.file_names import (
    REPORT_NAME,
    SLIDE_RESULTS,
    SUMMARY_NAME,
    UNFINISHED_NAME,
)
from tests.runtime.pipeline.flow_parts import FIELDS, SEVERAL, WAIT_S, Session, mask_of, slides
from tests.runtime.running import Recorder, Runner, context_of, read_summary
from tests.runtime.small_slides import small_slide

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


def test_leaving_the_iteration_ends_all_and_keeps_fields(bundle: Bundle, tmp_path: Path) -> None:
    source, out = slides(tmp_path / "in", 4), tmp_path / "out"
    context = context_of(bundle, Session(), batch=1)
    with prepare_run(source, out, context.settings) as work:
        run = Run(work, context, Recorder())
        with closing(iter(run)) as results:
            assert next(results).status == "done"
    assert run.outcome.document.interrupted
    assert [r.status for r in run.outcome.results] == ["done"]
    again = Session()
    result = Runner(bundle, again)(source, out, batch=1)
    assert [r.status for r in result.results] == ["skipped", "done", "done", "done"]


def test_leaving_stops_what_is_being_planned(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = slides(tmp_path / "in", 2), tmp_path / "out"
    begin, waiting = slide_job.begin_slide, threading.Event()

    def plan_for_ever(path: Path, *args: Any) -> SlideWork:
        if path.name == "0.tif":
            return begin(path, *args)
        waiting.set()
        while True:
            args[-1]()
            time.sleep(0.01)

    monkeypatch.setattr(slide_job, "begin_slide", plan_for_ever)
    context = context_of(bundle, Session())
    with (
        prepare_run(source, out, context.settings) as work,
        closing(iter(Run(work, context, Recorder()))) as results,
    ):
        assert next(results).path.name == "0.tif"
        assert waiting.wait(WAIT_S)
    assert not (out / "1.tif").exists()


def test_fields_are_not_left_where_another_run_has_taken_over(
    bundle: Bundle, tmp_path: Path
) -> None:
    source, out, session = slides(tmp_path / "in", 1), tmp_path / "out", Session()

    def taken_over(done: int) -> None:
        if done == 3:
            (own,) = (out / SHARING_NAME).glob("run-*")
            own.unlink()
            raise SessionError("out of memory")

    session.before = taken_over
    with pytest.raises(SessionError):
        Runner(bundle, session)(source, out, batch=1)
    assert not (out / "0.tif" / UNFINISHED_NAME).exists()


@pytest.mark.parametrize("geometry", [PATCH, FIELDS])
@pytest.mark.parametrize("ahead", [0, 2])
def test_ctrl_c_keeps_what_is_computed(
    bundle: Bundle, tmp_path: Path, geometry: Geometry, ahead: int
) -> None:
    """A signal, at a moment that the session chooses."""
    source, out = slides(tmp_path / "in", 1), tmp_path / "out"
    Runner(bundle, Session(geometry))(source, tmp_path / "whole", batch=1)
    total = read_summary(tmp_path / "whole" / "0.tif")["tiles"]["computed"]
    session, at = Session(geometry, ahead), total - 1
    session.before = lambda done: signal.raise_signal(signal.SIGINT) if done == at else None
    with pytest.raises(KeyboardInterrupt):
        Runner(bundle, session)(source, out, batch=1)
    assert [path.name for path in (out / "0.tif").iterdir()] == [UNFINISHED_NAME]
    assert json.loads((out / "run.json").read_text())["interrupted"] is True

    again, recorder = Session(geometry), Recorder()
    assert Runner(bundle, again)(source, out, reporter=recorder, batch=4).exit_code == 0
    assert sum(again.batches) == total - (at - ahead)
    assert recorder.tiles == recorder.announced == total - (at - ahead)
    assert not (out / "0.tif" / UNFINISHED_NAME).exists()
    assert np.array_equal(mask_of(out, "0.tif"), mask_of(tmp_path / "whole", "0.tif"))


@pytest.mark.parametrize("geometry", [PATCH, FIELDS, SEVERAL])
def test_what_a_kill_leaves_is_gone_on_from_batch_by_batch(
    bundle: Bundle, tmp_path: Path, geometry: Geometry
) -> None:
    """A copy of the folder in the middle of a batch is what SIGKILL leaves then."""
    source, out = slides(tmp_path / "in", 1), tmp_path / "out"
    session, killed = Session(geometry), tmp_path / "killed"

    def kill(done: int) -> None:
        if done and not killed.exists():
            shutil.copytree(out, killed)

    session.before = kill
    Runner(bundle, session)(source, out, batch=3)
    shutil.rmtree(killed / SHARING_NAME)
    again = Session(geometry)
    assert Runner(bundle, again)(source, killed, batch=3).exit_code == 0
    kept = len(session.batches) - len(again.batches)
    assert kept > 0
    assert again.batches == session.batches[kept:]
    assert {p.name for p in (killed / "0.tif").iterdir()} == {
        *SLIDE_RESULTS,
        REPORT_NAME,
        SUMMARY_NAME,
    }
    for name in SLIDE_RESULTS:
        whole = (out / "0.tif" / name).read_bytes()
        assert (killed / "0.tif" / name).read_bytes() == whole


@pytest.mark.parametrize("change", ["mode", "mpp", "input"])
def test_what_was_kept_of_something_else_is_not_used(
    bundle: Bundle, tmp_path: Path, change: str
) -> None:
    source, out, session = slides(tmp_path / "in", 1), tmp_path / "out", Session()
    session.before = lambda done: signal.raise_signal(signal.SIGINT) if done == 4 else None
    with pytest.raises(KeyboardInterrupt):
        Runner(bundle, session)(source, out, batch=1)
    if change == "input":
        small_slide(source / "0.tif", seed=1)
    again = Session(PATCH if change == "mode" else FIELDS)
    settings: dict[str, Any] = {"mpp_um": 1.1, "force_mpp": True} if change == "mpp" else {}
    assert Runner(bundle, again)(source, out, **settings).exit_code == 0
    assert sum(again.batches) == read_summary(out / "0.tif")["tiles"]["computed"]
    assert not (out / "0.tif" / UNFINISHED_NAME).exists()


def test_ctrl_c_while_files_are_written_keeps_all_fields(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = slides(tmp_path / "in", 1), tmp_path / "out"
    bands, main = FieldUnits.bands, threading.main_thread()

    def interrupted(units: FieldUnits, store: UnitStore, _check_stop: object) -> Any:
        assert main.ident is not None
        signal.pthread_kill(main.ident, signal.SIGINT)
        for band in bands(units, store):
            stopped.wait(0.5)
            yield band

    stopped = threading.Event()
    with monkeypatch.context() as patched:
        patched.setattr(FieldUnits, "bands", interrupted)
        with pytest.raises(KeyboardInterrupt):
            Runner(bundle, Session())(source, out)
    assert [path.name for path in (out / "0.tif").iterdir()] == [UNFINISHED_NAME]
    again = Session()
    assert Runner(bundle, again)(source, out).exit_code == 0
    assert again.batches == [], "nothing was left to compute"


def test_what_was_left_beside_whole_results_goes(bundle: Bundle, tmp_path: Path) -> None:
    source, out = slides(tmp_path / "in", 1), tmp_path / "out"
    Runner(bundle, Session())(source, out)
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                           capture_output=True, text=True, check=True)  # fmt: skip
    host = re.fullmatch(r"\.x\.(.*)-\d+-\w+\.partial", partial_name("x"))
    assert host is not None
    left = out / "0.tif" / f".units.{host[1]}-{int(ended.stdout)}-00000000.partial"
    left.write_bytes(b"killed after summary.json")
    unfinished = out / "0.tif" / UNFINISHED_NAME
    unfinished.write_bytes(b"and before the slide was closed")
    result = Runner(bundle, Session())(source, out)
    assert [r.status for r in result.results] == ["skipped"]
    assert not left.exists()
    assert not unfinished.exists()
