from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from sshr_deploy.benchmarks.constructed_slide import build_slide
from sshr_deploy.benchmarks.pipeline import host
from sshr_deploy.benchmarks.pipeline.host import measure_host
from sshr_deploy.benchmarks.pipeline.runs import Timed
from sshr_deploy.benchmarks.report.reading import read_document
from sshr_deploy.benchmarks.report.recorder import Recorder
from sshr_deploy.benchmarks.stand_in_session import StandInSession
from sshr_deploy.bundle import load_bundle
from sshr_deploy.cli import app
from sshr_deploy.cli.benchmark_host import _print_host
from sshr_deploy.errors import InputError, UsageError
from sshr_deploy.geometry import PATCH, Geometry
from sshr_deploy.runtime.contract import CamBatch
from tests.runtime.session_contract import Patches, SessionContract, Subject
from tests.runtime.small_slides import small_slide

FIELD = Geometry(448, 56)


class TestStandIn(SessionContract):
    """It is a session like the others, but that its answers say nothing of the patches."""

    @pytest.fixture(scope="class")
    @classmethod
    def subject(cls) -> Subject:
        def answers(patches: Patches) -> CamBatch:
            return StandInSession(3, PATCH).infer(patches)

        return Subject(
            lambda: StandInSession(3, PATCH), answers, engine="stand-in", precision="none"
        )


@pytest.mark.parametrize("geometry", [PATCH, FIELD])
def test_a_stand_in_takes_its_time_and_has_two_batches_in_flight(geometry: Geometry) -> None:
    session = StandInSession(3, geometry, unit_s=0.02)
    asked: list[int] = []

    def batches() -> Iterator[tuple[int, Patches]]:
        for index in range(4):
            asked.append(index)
            yield index, np.zeros((2, *geometry.input_shape()), np.uint8)

    started = time.perf_counter()
    for key, cams in session.stream(batches()):
        assert cams.cam_deep.shape == (2, *geometry.cam_shape(3))
        assert cams.prob.shape == (2, *geometry.prob_shape(3))
        assert len(asked) == min(key + 2, 4)
    assert time.perf_counter() - started >= 4 * 2 * 0.02


def test_the_command_measures_all_ways(
    small_bundle_dir: Path, demo_slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Recorder, "busy", lambda _: None)
    slides = tmp_path / "slides"
    slides.mkdir()
    for name in ("a", "b"):
        build_slide(demo_slide, slides / f"{name}.svs", side_px=1920, tissue_share=0.5)
    file = tmp_path / "host.json"
    arguments = [str(small_bundle_dir), str(slides), "--side-px", "448", "--rounds", "1"]
    done = CliRunner().invoke(app, ["benchmark", "host", *arguments, "--json", str(file)])
    assert done.exit_code == 0, done.exception
    document = read_document(file)
    assert document.complete
    slides_done = document.facts["slides"]
    assert [slide["name"] for slide in slides_done] == ["a.svs", "b.svs"]
    units = sum(slide["units"] for slide in slides_done)
    rows = {row.name: row for row in document.rows}
    assert list(rows) == ["reading alone", "null", "fixed", "gpu"]
    for row in rows.values():
        (seconds,) = row.samples
        assert row.figures["units_per_s"] == pytest.approx(units / seconds)
    assert rows["gpu"].facts["unit_s"] == pytest.approx(4 / 3000)
    # A null run has too few rounds beside reading alone; the others are beside a stated time.
    assert rows["null"].figures["of_bound"] is None and rows["null"].refused["of_bound"]
    share = rows["fixed"].figures["of_bound"]
    assert share is not None or rows["fixed"].refused
    if share is not None:
        expected = units * rows["fixed"].facts["unit_s"] / rows["fixed"].samples[0]
        assert share == pytest.approx(expected) and share <= 1
    assert rows["fixed"].facts["effort"]["limited_by"] in ("engine", "read", "write")
    needed = (rows["null"].figures["cpu_s_per_unit"] or 0.0) * 3000 / 4
    assert document.facts["gpu_needs_cores"] == pytest.approx(needed)
    assert f"needs {needed:.1f} cores" in done.stdout


BUSY = "other work took 40% of the cores' time"


@pytest.mark.parametrize("busy", [None, BUSY])
def test_ratios_and_cores_are_told_on_a_quiet_machine_only(
    small_bundle_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    busy: str | None,
) -> None:
    reading = iter([1.0, 1.0, 1.1, 1.0, 0.9, 1.0])
    runs = iter([Timed(1.0, 2.0), Timed(3.0, 2.0), Timed(3.0, 2.0)] * 5)
    monkeypatch.setattr(host, "read_alone", lambda *_: Timed(next(reading), 1.0))
    monkeypatch.setattr(host, "run_whole", lambda *_: next(runs))
    monkeypatch.setattr(Recorder, "busy", lambda _: busy)
    settings = {"side_px": 224, "core_px": 224, "gpu_patches_per_s": 3000.0}
    with Recorder("host", None, settings) as recorder:
        measure_host(
            load_bundle(small_bundle_dir),
            small_slide(tmp_path / "x.tif"),
            PATCH,
            recorder,
            patches_per_s=3000.0,
        )
    document = recorder.document
    units = sum(slide["units"] for slide in document.facts["slides"])
    _print_host(document)
    printed = capsys.readouterr().out
    null, fixed = document.row("null"), document.row("fixed")
    if busy is None:
        assert null.refused["of_bound"].endswith("overlap: 1 to 1 s and 1 to 1 s")
        assert fixed.figures["of_bound"] == pytest.approx(2 / 3)
        assert document.facts["gpu_needs_cores"] == pytest.approx(2.0 / (units / 3000))
        assert "cores of this kind beside it" in printed
    else:
        assert null.refused["of_bound"] == fixed.refused["of_bound"] == busy
        assert document.facts["gpu_needs_cores"] is None
        assert f"not reported: cores that a GPU needs: {busy}" in " ".join(printed.split())


@pytest.mark.parametrize(
    ("side_px", "share", "words"), [("230", 0.5, "--side-px 230"), ("448", 0.0, "has no tissue")]
)
def test_what_cannot_be_measured_is_refused(
    small_bundle_dir: Path, demo_slide: Path, tmp_path: Path, side_px: str, share: float, words: str
) -> None:
    slide = tmp_path / "x.svs"
    build_slide(demo_slide, slide, side_px=1920, tissue_share=share)
    arguments = [str(small_bundle_dir), str(slide), "--side-px", side_px]
    done = CliRunner().invoke(app, ["benchmark", "host", *arguments])
    assert isinstance(done.exception, InputError | UsageError)
    assert words in str(done.exception)
