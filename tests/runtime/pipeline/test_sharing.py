"""Runs that divide the inputs of one folder; threads stand for processes and machines."""

from __future__ import annotations

import json
import os
import platform
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sshr_deploy.bundle import Bundle
from sshr_deploy.errors import OutputError, UsageError
from sshr_deploy.geometry import PATCH
from sshr_deploy.runtime.pipeline import processing as processing_module
from sshr_deploy.runtime.pipeline.processing import Processing
from sshr_deploy.runtime.pipeline.run import RunResult
from sshr_deploy.runtime.pipeline.run_lock import SHARING_NAME, RunLock
from sshr_deploy.runtime.pipeline.terms import terms_of
from sshr_deploy.runtime.pipeline.unit_store import UnitStore
from sshr_deploy.runtime.pipeline.work import prepare_run
from tests.runtime.pipeline.flow_parts import FIELDS, WAIT_S, Session, slides
from tests.runtime.running import Recorder, Runner, context_of, read_summary

pytestmark = pytest.mark.usefixtures("no_thread_is_left", "often")


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs look after each other without delay."""
    monkeypatch.setattr(processing_module, "_LOOK_AGAIN_S", 0.01)


def images(folder: Path, count: int) -> Path:
    folder.mkdir()
    for index in range(count):
        noise = np.random.default_rng(index).integers(120, 200, (224, 224, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{index}.png")
    return folder


def together(*runs: Callable[[], RunResult]) -> list[RunResult]:
    results: dict[int, RunResult] = {}

    def do(index: int) -> None:
        results[index] = runs[index]()

    threads = [threading.Thread(target=do, args=(index,)) for index in range(len(runs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return [results[index] for index in range(len(runs))]


@pytest.mark.parametrize("kind", ["slides", "images"])
def test_each_input_is_done_once(bundle: Bundle, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    settings: dict[str, Any] = {"batch": 1, "shares": True, "any_stain": True}
    source = slides(tmp_path / "in", 4) if kind == "slides" else images(tmp_path / "in", 8)
    geometry = FIELDS if kind == "slides" else PATCH
    sessions, meeting = [Session(geometry), Session(geometry)], threading.Barrier(2)

    def meet(done: int) -> None:
        if done == 0:
            meeting.wait(WAIT_S)

    for session in sessions:
        session.before = meet
    alone = Session(geometry)
    Runner(bundle, alone)(source, tmp_path / "alone", **settings)

    results = together(*(partial(Runner(bundle, s), source, out, **settings) for s in sessions))

    names = sorted(path.name for path in source.iterdir())
    for result in results:
        assert result.exit_code == 0
        assert sorted(r.path.name for r in result.results) == names
    done = [r.path.name for result in results for r in result.results if r.status == "done"]
    assert sorted(done) == names
    assert all("done" in {r.status for r in result.results} for result in results)
    assert sum(sum(s.batches) for s in sessions) == sum(alone.batches)
    assert (out / "summary.csv").read_bytes().count(b"\n") == len(names) + 1
    assert not (out / SHARING_NAME).exists()
    for path in (tmp_path / "alone").rglob("*"):
        if path.name in ("mask.ome.tif", "mask.png", "overlay.png", "regions.geojson"):
            assert (out / path.relative_to(tmp_path / "alone")).read_bytes() == path.read_bytes()


def test_what_another_run_fails_at_is_tried(bundle: Bundle, tmp_path: Path) -> None:
    source, out = slides(tmp_path / "in", 1), tmp_path / "out"
    (source / "1.tif").write_bytes(b"no slide")
    results = together(*[partial(Runner(bundle, Session()), source, out, shares=True)] * 2)
    assert [[r.status for r in result.results].count("failed") for result in results] == [1, 1]
    assert sum(r.status == "done" for result in results for r in result.results) == 1
    assert not (out / "1.tif").exists()


@pytest.mark.parametrize("kind", ["slide", "image"])
def test_an_input_whose_run_is_killed_goes_to_another(
    bundle: Bundle, tmp_path: Path, kind: str
) -> None:
    """The claim of a live run is waited for; when that is gone, it is taken over and said."""
    source, out = tmp_path / "in", tmp_path / "out"
    source = slides(source, 2) if kind == "slide" else images(source, 2)
    first, second = sorted(source.iterdir())
    session, recorder = Session(FIELDS if kind == "slide" else PATCH), Recorder()
    facts = {
        "host": "another", "pid": 5, "started_utc": "2026-01-02T03:04:05+00:00", "token": "x",
        "terms": None,
    }  # fmt: skip
    sharing = out / SHARING_NAME
    claim = RunLock._claim_path
    waited = threading.Event()

    def foreign(lock: RunLock, relative: Path) -> Path:
        path = claim(lock, relative)
        if relative.name == first.name and not waited.is_set():
            waited.set()
            (sharing / "run-x").write_text(json.dumps(facts), "utf-8")
            path.write_text(json.dumps(facts), "utf-8")
        elif relative.name == first.name and recorder.finished:
            os.utime(sharing / "run-x", (0, 0)) if (sharing / "run-x").exists() else None
        return path

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(RunLock, "_claim_path", foreign)
        result = Runner(bundle, session)(
            source, out, reporter=recorder, shares=True, any_stain=True
        )
    assert [r.path for r in result.results] == [second, first], "the free one first"
    assert result.exit_code == 0
    assert recorder.taken == [(first, "process 5 on another (since 2026-01-02T03:04:05+00:00)")]
    assert not sharing.exists()


def test_what_a_full_disk_stopped_is_left_to_others(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watch waits and goes on with the same `Processing`: it holds no claims meanwhile."""
    source, out = slides(tmp_path / "in", 3), tmp_path / "out"
    context, put = context_of(bundle, Session()), UnitStore.put
    terms = terms_of(bundle.manifest, bundle.manifest_sha256, context.settings)

    def full(store: UnitStore, records: Any) -> None:
        if store._folder.name == "1.tif":
            raise OutputError("no space")
        put(store, records)

    with (
        prepare_run(source, out, context.settings, terms) as work,
        Processing(out, work.lock, context, Recorder()) as processing,
    ):
        inputs = iter(work.found.inputs)
        with monkeypatch.context() as patched, pytest.raises(OutputError):
            patched.setattr(UnitStore, "put", full)
            list(processing.process(lambda: next(inputs, None)))
        assert list((out / SHARING_NAME).glob("claim-*")) == []
        inputs = iter(work.found.inputs)
        statuses = [r.status for r in processing.process(lambda: next(inputs, None))]
    assert statuses[-3:] == ["skipped", "done", "done"]


def test_results_of_another_proven_engine_count_while_it_shares(
    bundle: Bundle, tmp_path: Path
) -> None:
    source, out = slides(tmp_path / "in", 1), tmp_path / "out"
    Runner(bundle, Session())(source, out)
    theirs = read_summary(out / "0.tif")
    theirs["key"]["device"] = "another"
    (out / "0.tif" / "summary.json").write_text(json.dumps(theirs), "utf-8")
    statuses = []
    for company, qualified in ((True, True), (True, False), (False, True)):
        theirs["key"]["qualified"] = qualified
        (out / "0.tif" / "summary.json").write_text(json.dumps(theirs), "utf-8")
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(RunLock, "has_company", company)
            result = Runner(bundle, Session())(source, out, shares=True)
        statuses += [r.status for r in result.results]
    assert statuses == ["skipped", "done", "done"]


def test_what_others_did_meanwhile_is_not_overwritten(bundle: Bundle, tmp_path: Path) -> None:
    source, out = slides(tmp_path / "in", 1), tmp_path / "out"
    Runner(bundle, Session())(source, out)
    statuses = []
    for finished in ("2000-01-01T00:00:00+00:00", "2100-01-01T00:00:00+00:00"):
        summary = read_summary(out / "0.tif") | {"finished_utc": finished}
        (out / "0.tif" / "summary.json").write_text(json.dumps(summary), "utf-8")
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(RunLock, "has_company", True)
            result = Runner(bundle, Session())(source, out, shares=True, overwrite=True)
        statuses += [r.status for r in result.results]
    assert statuses == ["done", "skipped"]


def test_other_settings_are_refused_and_named(bundle: Bundle, tmp_path: Path) -> None:
    source, out, session = slides(tmp_path / "in", 1), tmp_path / "out", Session()
    told: list[str] = []

    def second(done: int) -> None:
        if done == 0:
            with pytest.raises(UsageError) as error:
                Runner(bundle, Session())(source, out, shares=True, mpp_um=1.0)
            told.append(str(error.value))

    session.before = second
    assert Runner(bundle, session)(source, out, shares=True).exit_code == 0
    assert f"process {os.getpid()} on {platform.node()}" in told[0]
    assert "with another `mpp`: wait for it, or choose another `out`" in told[0]
