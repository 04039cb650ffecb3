"""What the INT8 benchmark says of samples that are known, and of a small network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from sshr_deploy.benchmarks import int8
from sshr_deploy.benchmarks.int8 import Int8Settings, with_ratios
from sshr_deploy.benchmarks.report.reading import read_document
from sshr_deploy.benchmarks.report.recorder import Recorder
from sshr_deploy.benchmarks.report.records import Agreement, Row
from sshr_deploy.benchmarks.stand_in_session import StandInSession
from sshr_deploy.cli import app
from sshr_deploy.cli.int8_table import print_int8
from sshr_deploy.geometry import PATCH
from sshr_deploy.manifest import Qualification
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.machine.spread import spread_of

SAMPLES = {
    "pytorch": [900.0, 40.0, 1700.0, 60.0, 2100.0, 800.0],  # beside other work
    "fp32": [20.0, 20.1, 20.2, 20.0, 20.3, 20.1],
    "int8 everywhere": [15.0, 15.1, 15.2, 15.0, 15.3, 15.1],
}


def _row(name: str) -> Row:
    return Row(
        name=name,
        unit="ms",
        better="lower",
        samples=tuple(SAMPLES[name]),
        agreement=Agreement(masks=1, cam_error=0, misses=()),
        figures=dict(spread_of(SAMPLES[name]).figures()),
        facts={"qualification": {"iou": None}},
    )


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    settings = {"weight_bits": 8, "ranges": "mse", "keep": []}
    made = Recorder("int8", None, settings)
    for name, fact in {"threads": 2, "patches": 6, "source": "crops"}.items():
        made.fact(name, fact)
    monkeypatch.setattr(made, "busy", lambda: None)
    return made


def test_a_ratio_from_a_busy_run_is_not_reported(
    recorder: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    pytorch, fp32, narrow = (with_ratios(_row(name), SAMPLES, recorder) for name in SAMPLES)
    assert fp32.figures["times_fp32"] == 1 and pytorch.figures["times_pytorch"] == 1
    assert narrow.figures["times_fp32"] == pytest.approx(20.1 / 15.1)
    assert narrow.figures["times_pytorch"] is None and fp32.figures["times_pytorch"] is None
    why = narrow.refused["times_pytorch"]
    assert why.startswith("pytorch: its middle half spreads over ") and "busy" in why
    for row in (pytorch, fp32, narrow):
        recorder.row(row)
    print_int8(recorder.document)
    shown = capsys.readouterr().out
    assert ", 2 threads" in shown
    assert shown.count(f"not reported: {why}\n") == 1
    assert "1.33" in shown and "20.0-20.2" in shown


def test_other_work_allows_no_ratio(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "busy", lambda: "other work took 50%")
    row = with_ratios(_row("int8 everywhere"), SAMPLES, recorder)
    assert row.figures["times_fp32"] is None
    assert row.refused["times_fp32"] == "other work took 50%"


def test_a_row_that_disagrees_has_no_ratio(recorder: Recorder) -> None:
    row = _row("int8 everywhere")
    row.facts["unqualified"] = "its masks disagree"
    found = with_ratios(row, SAMPLES, recorder)
    assert found.figures["times_fp32"] is None
    assert found.refused["times_fp32"] == "int8 everywhere: its masks disagree"
    assert with_ratios(_row("fp32"), SAMPLES | {"pytorch": []}, recorder).refused == {
        "times_pytorch": "pytorch was not measured"
    }


def test_stopped_early_rows_have_the_ratios_that_they_can_have(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def turns(*_: object, **__: object) -> Iterator[tuple[str, list[float]]]:
        yield "fp32", SAMPLES["fp32"]
        yield "int8 everywhere", SAMPLES["int8 everywhere"]
        raise KeyboardInterrupt

    found = Qualification(
        reference="PyTorch",
        engine="none",
        device="none",
        patches=6,
        source="crops",
        cam_relative_error={"cam_28_1": 0.0},
        prob_max_abs_error=0.0,
        gates_equal=True,
        gate_agreement=1.0,
        mask_agreement=1.0,
        mask_agreement_worst=1.0,
    )
    session = StandInSession(2, PATCH)
    ways = {name: int8._Way(session, Precision.FP32, found, []) for name in SAMPLES}
    monkeypatch.setattr(int8, "take_turns", turns)
    with pytest.raises(KeyboardInterrupt):
        int8._time(ways, Int8Settings(), recorder, lambda _: None)
    figures = recorder.document.row("int8 everywhere").figures
    assert figures["times_fp32"] == pytest.approx(20.1 / 15.1)
    assert [row.name for row in recorder.document.rows] == ["fp32", "int8 everywhere"]


def test_the_command_keeps_what_it_measured(
    own_checkpoint: Path, small_bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A way whose masks 8 bits change too much has no time."""

    def copied(_: object, out: Path) -> None:
        """The graph of the same weights, as exporting it again takes seconds."""
        for path in small_bundle_dir.glob(f"{out.name}*"):
            shutil.copyfile(path, out.with_name(path.name))

    monkeypatch.setattr("sshr_deploy.benchmarks.int8.write_onnx", copied)
    file, patches = tmp_path / "int8.json", tmp_path / "patches"
    patches.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    Image.fromarray(pixels).save(patches / "a.png")
    options = ["--patches", str(patches), "--ranges", "min-max", "--seconds", "0.1"]
    options += ["--threads", "1", "--json", str(file)]
    done = CliRunner().invoke(app, ["benchmark", "int8", str(own_checkpoint), *options])
    assert done.exit_code == 0, done.output
    document = read_document(file)
    assert document.complete and document.benchmark == "int8" and document.subject is not None
    assert document.subject.files_sha256.keys() == {own_checkpoint.name}
    assert [row.name for row in document.rows] == ["pytorch", "fp32", "int8 everywhere"]
    for row in document.rows:
        assert row.agreement is not None
        assert bool(row.samples) == (row.not_measured is None) == (not row.agreement.misses)
        assert row.samples == () or row.figures["median_ms"] is not None
    assert document.row("fp32").samples
    assert "compared on 1 patch" in done.stdout and "fp32" in done.stdout
    assert str(file) in done.stdout
