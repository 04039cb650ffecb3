"""Two workers of a real Ray on this machine: the same results as of one process."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sshr_deploy.api import Model
from sshr_deploy.bundle import read_manifest
from sshr_deploy.cluster.connecting import connected
from sshr_deploy.cluster.opening import open_workers
from sshr_deploy.errors import OutputError, SessionError
from sshr_deploy.runtime.operation.events import Code, Event, Events
from sshr_deploy.runtime.pipeline.discovery import Input
from sshr_deploy.runtime.pipeline.run import RunResult
from sshr_deploy.runtime.pipeline.run_lock import run_lock
from sshr_deploy.runtime.pipeline.spec import RunSpec
from sshr_deploy.runtime.pipeline.stopping import StopRequest
from sshr_deploy.runtime.pipeline.terms import Terms, terms_of
from sshr_deploy.runtime.pipeline.work import prepare_run
from sshr_deploy.runtime.settings import InferSettings, OpenOptions
from tests.runtime.running import Recorder

SAME = ("mask.ome.tif", "overlay.png", "regions.geojson")


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    pytest.importorskip("ray")
    with connected("auto"):
        yield


@pytest.fixture(scope="module")
def spec(small_bundle_dir: Path) -> RunSpec:
    return RunSpec(small_bundle_dir, InferSettings(), "onnx-cpu", OpenOptions(), threads=1)


@pytest.fixture(scope="module")
def slides(demo_slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    for name in ("a", "b", "c"):
        shutil.copy(demo_slide, folder / f"{name}.svs")
    (folder / "bad.svs").write_bytes(demo_slide.read_bytes()[:100_000])
    return folder


@pytest.fixture(scope="module")
def local(spec: RunSpec, slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of one process."""
    out = tmp_path_factory.mktemp("local")
    with Model(spec, None, lambda _: None) as model:
        for _ in model.run(slides, out):
            pass
    return out


def terms(spec: RunSpec) -> Terms:
    return terms_of(*read_manifest(spec.bundle), spec.settings)


def run_in_workers(
    spec: RunSpec, slides: Path, out: Path, reporter: Recorder, *listeners: Callable[[Event], None]
) -> RunResult:
    with (
        prepare_run(slides, out, spec.settings, terms(spec)) as work,
        open_workers(
            spec, out, [slides], "auto", 1, say=print, events=Events(*listeners)
        ) as opened,
    ):
        run = opened.start(work, opened.settings, reporter)
        for _ in run:
            pass
    return run.outcome


def check_same(out: Path, local: Path) -> None:
    for name in ("a.svs", "b.svs", "c.svs"):
        for file in SAME:
            assert (out / name / file).read_bytes() == (local / name / file).read_bytes()


def test_outputs_equal_those_of_one_process(
    spec: RunSpec, slides: Path, local: Path, tmp_path: Path
) -> None:
    recorder = Recorder()
    result = run_in_workers(spec, slides, tmp_path / "out", recorder)
    ended = {r.path.name: r.status for r in result.results}
    assert ended == {"a.svs": "done", "b.svs": "done", "c.svs": "done", "bad.svs": "failed"}
    check_same(tmp_path / "out", local)
    assert recorder.tiles == recorder.announced > 0
    assert len(recorder.finished) == 4
    assert result.document.engine.engine == "onnx-cpu"
    assert result.document.effort is not None
    assert result.document.effort.readers >= 2
    left = {p.name for p in (tmp_path / "out").iterdir()}
    assert left == {
        "a.svs", "b.svs", "c.svs", "report.html", "run.json", "runs", "summary.csv",
    }  # fmt: skip


class Killer(Recorder):
    """Kills a worker as its first tiles are computed."""

    def __init__(self, victim: Callable[[], int]) -> None:
        super().__init__()
        self.victim = victim
        self.killed = False

    def tiles_done(self, path: Path, tiles: int) -> None:
        super().tiles_done(path, tiles)
        if not self.killed:
            self.killed = True
            os.kill(self.victim(), signal.SIGKILL)


def test_the_slides_of_a_killed_worker_are_done_by_another(
    spec: RunSpec, slides: Path, local: Path, tmp_path: Path
) -> None:
    out, events = tmp_path / "out", list[Event]()
    with (
        prepare_run(slides, out, spec.settings, terms(spec)) as work,
        open_workers(
            spec, out, [slides], "auto", 1, say=print, events=Events(events.append)
        ) as opened,
    ):
        killer = Killer(lambda: opened.workers.pids()[0])
        run = opened.start(work, opened.settings, killer)
        for _ in run:
            pass
    statuses = {r.path.name: r.status for r in run.outcome.results}
    assert statuses == {"a.svs": "done", "b.svs": "done", "c.svs": "done", "bad.svs": "failed"}
    assert len(killer.finished) == 4
    assert [event.code for event in events] == [Code.WORKER_LOST]
    check_same(out, local)


def test_results_that_cannot_be_written_end_all_workers(
    spec: RunSpec, slides: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    inputs = iter([Input(slides / "a.svs", "slide", Path("a.svs"))])
    with (
        run_lock(out, terms(spec)) as lock,
        open_workers(spec, out, [slides], "auto", 1, say=print, events=Events()) as opened,
    ):
        (out / "a.svs").write_text("in the way of the results")
        context = opened.context(opened.settings)
        workers = opened.workforce(out, lock, context, Recorder(), StopRequest())
        with pytest.raises(OutputError):
            list(workers.process(lambda: next(inputs, None)))
        with pytest.raises(SessionError, match="start again"):
            list(workers.process(lambda: None))
