from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sshr_deploy.benchmarks.pipeline import measure
from sshr_deploy.benchmarks.pipeline.measure import measure_pipeline
from sshr_deploy.benchmarks.pipeline.runs import Timed, run_whole
from sshr_deploy.benchmarks.pipeline.stages import STAGES
from sshr_deploy.benchmarks.report.reading import read_document
from sshr_deploy.benchmarks.report.recorder import Recorder
from sshr_deploy.bundle import load_bundle
from sshr_deploy.cli import app
from sshr_deploy.geometry import PATCH
from tests.runtime.pipeline.flow_parts import Session
from tests.runtime.running import context_of
from tests.runtime.small_slides import small_slide


def test_the_command_measures_a_slide_and_plans_a_day(
    small_bundle_dir: Path, tmp_path: Path
) -> None:
    slide, file = small_slide(tmp_path / "x.tif"), tmp_path / "pipeline.json"
    options = ["--rounds", "1", "--plan", "50", "--mode", "reference", "--json", str(file)]
    options += ["--engine", "onnx-cpu", "--threads", "2", "--streams", "2"]
    arguments = ["benchmark", "pipeline", str(small_bundle_dir), str(slide), *options]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.exception
    document = read_document(file)
    assert document.complete
    ways = ["whole run", "engine alone", "reading alone", "three slides in a row"]
    assert sorted(row.name for row in document.rows) == sorted(
        [*ways, *(f"stage {name}" for name in STAGES)]
    )
    run = document.row("whole run")
    assert run.agreement is not None and run.agreement.masks > 0.999
    assert run.figures["over_engine_alone"] is run.figures["over_reading_alone"] is None
    assert len(run.refused) == 2
    shares = [document.row(f"stage {name}").figures["share_of_run"] or 0.0 for name in STAGES]
    assert sum(shares) == pytest.approx(1.0, abs=0.02)
    assert max(zip(shares, STAGES, strict=True))[1] == run.facts["limit"]
    assert (run.figures["peak_memory_mb"] or 0.0) > 50
    assert document.facts["day"]["slides"] == 50
    assert f"limit: {run.facts['limit']} (" in done.stdout
    assert "50 slides a day like this" in done.stdout
    assert document.facts["day"]["refused"]  # one round is too few, whatever else runs
    assert (run.facts["streams"], document.settings["streams"]) == (2, 2)
    assert ", 2 streams, reference mode" in done.stdout
    assert document.settings["engine"] == "onnx-cpu"
    assert run.facts["effort"]["busy_s"].keys() >= {"plan", "read", "infer"}
    waited = document.row("stage read").figures["engine_waited_s"]
    assert waited is not None and waited >= 0
    assert "engine_waited_s" not in document.row("stage infer").figures


def test_an_interruption_leaves_the_rows_so_far(
    small_bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> Timed:
        raise KeyboardInterrupt

    monkeypatch.setattr(measure, "read_alone", interrupted)
    slide, file = small_slide(tmp_path / "x.tif"), tmp_path / "pipeline.json"
    arguments = ["benchmark", "pipeline", str(small_bundle_dir), str(slide), "--json", str(file)]
    done = CliRunner().invoke(app, [*arguments, "--mode", "reference"])
    assert done.exit_code == 130
    document = read_document(file)
    assert not document.complete
    assert {"whole run", "engine alone"} <= {row.name for row in document.rows}
    assert "engine alone" in done.stdout and str(file) in done.stdout


def test_ratios_are_those_of_medians_in_turns(
    small_bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = load_bundle(small_bundle_dir)
    context = context_of(bundle, Session(PATCH))
    found = replace(
        run_whole(small_slide(tmp_path / "x.tif"), context), seconds=8.0, tissue_mm2=2.0
    )
    monkeypatch.setattr(measure, "run_whole", lambda *_: found)
    monkeypatch.setattr(measure, "compute_alone", lambda *_: Timed(4.0, 1.0))
    monkeypatch.setattr(measure, "read_alone", lambda *_: Timed(2.0, 1.0))
    monkeypatch.setattr(Recorder, "busy", lambda _: None)
    with Recorder("pipeline", None, {}) as recorder:
        measure_pipeline(context, tmp_path / "x.tif", recorder, rounds=5)
    run = recorder.document.row("whole run")
    assert run.figures["over_engine_alone"] == 2.0
    assert run.figures["over_reading_alone"] == 4.0
    assert run.figures["slides_per_h"] == 450.0
    assert run.figures["mm2_per_s"] == 0.25
    assert run.samples == (8.0,) * 5 and not run.refused
    monkeypatch.setattr(Recorder, "busy", lambda _: "the machine was busy")
    with Recorder("pipeline", None, {}) as recorder:
        measure_pipeline(context, tmp_path / "x.tif", recorder, rounds=1)
    run = recorder.document.row("whole run")
    assert run.figures["over_engine_alone"] is None
    assert run.refused["over_engine_alone"] == "the machine was busy"


@pytest.mark.parametrize("busy", [None, "other work took 40% of the cores"])
def test_what_halves_a_day_is_told_on_a_quiet_machine_only(
    small_bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy: str | None
) -> None:
    slide = small_slide(tmp_path / "x.tif")
    context = context_of(load_bundle(small_bundle_dir), Session(PATCH))
    found = replace(run_whole(slide, context), seconds=8.0)
    row = replace(found, seconds=20.0, paths=found.paths * 3)
    monkeypatch.setattr(measure, "run_whole", lambda path, _: found if path == slide else row)
    monkeypatch.setattr(measure, "compute_alone", lambda *_: Timed(5.5, 1.0))
    monkeypatch.setattr(measure, "read_alone", lambda *_: Timed(3.5, 1.0))
    monkeypatch.setattr(Recorder, "busy", lambda _: busy)
    with Recorder("pipeline", None, {}) as recorder:
        measure_pipeline(context, slide, recorder, rounds=5, slides_a_day=100)
    day = recorder.document.facts["day"]
    assert day["further_s"] == 6.0
    assert (day["engine_s"]["network"], day["others_s"]["read"]) == (5.5, 3.5)
    if busy is None:
        assert day["must_be_faster"]["read"] == pytest.approx(3.5 / 3)
    else:
        assert day["refused"] == busy and "must_be_faster" not in day
