from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from sshr_deploy.benchmarks.latency import measure, warm
from sshr_deploy.benchmarks.measuring.neighbours import Neighbours
from sshr_deploy.benchmarks.measuring.turns import take_turns
from sshr_deploy.benchmarks.report.reading import read_document
from sshr_deploy.benchmarks.roofline.ceilings import Ceilings, Product
from sshr_deploy.bundle import load_bundle
from sshr_deploy.cli.latency_table import print_latency
from sshr_deploy.precision import Precision
from tests.benchmarks.report.documents import SAME, make_document, make_row
from tests.cli.command import run_here

PATCHES = ("--mode", "reference")
QUICK = ("--seconds", "0.1", "--cold", "0")
NOT_BUILT: dict[str, float | None] = {"building_s": None}


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time to settle between turns, no other work, and a ceiling that is known."""
    product = Product(Precision.FP32, "none", 1000, (10.0,))  # 200 GFLOP/s
    found = Ceilings((product,), 10.0, None, None, 1, {})
    monkeypatch.setattr(measure, "measure_ceilings", lambda *_: found)
    monkeypatch.setattr(warm, "take_turns", partial(take_turns, settle_s=0.0))
    monkeypatch.setattr(Neighbours, "share", lambda _: 0.0)


def test_an_engine_is_measured_and_kept(small_bundle_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "latency.json"
    words = ("--engine", "onnx-cpu", "--batches", "1,3", "--threads", "1", "--json", file)
    done = run_here("benchmark", "latency", small_bundle_dir, *QUICK, *PATCHES, *words)
    assert done.returncode == 0, done.stderr
    document = read_document(file)
    bundle = load_bundle(small_bundle_dir)
    assert document.complete
    assert document.subject is not None
    assert document.subject.manifest_sha256 == bundle.manifest_sha256
    assert document.facts["ceilings"]["gflop_per_s"] == {"fp32": 200.0}
    (artifact,) = bundle.artifacts("onnx-cpu")
    assert artifact.qualification is not None
    for batch in (1, 3):
        row = document.row(f"onnx-cpu fp32, batch {batch}")
        assert row.agreement is not None
        assert row.agreement.masks == artifact.qualification.mask_agreement
        assert row.figures["share_of_ceiling"] == pytest.approx(
            (row.figures["gflop_per_s"] or 0) / 200
        )
    assert done.stdout.count(f"{artifact.qualification.mask_agreement:.4%}") == 2
    assert document.settings["mode"] == "reference"
    for words_shown in (
        "; patches",
        "label maps ms",
        "p99 needs 299 calls",
        "1 thread",
        "other work 0%",
        str(file),
    ):
        assert words_shown in done.stdout


def test_fields_are_measured_where_slides_take_them(small_bundle_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "latency.json"
    words = ("--engine", "onnx-cpu", "--batches", "1", "--json", file)
    done = run_here("benchmark", "latency", small_bundle_dir, *QUICK, *words)
    assert done.returncode == 0, done.stderr
    document, bundle = read_document(file), load_bundle(small_bundle_dir).on_fields()
    assert document.settings["mode"] == "seamless"
    (row,) = document.rows
    (artifact,) = bundle.artifacts("onnx-cpu")
    assert row.name == "onnx-cpu fp32, batch 1 of fields"
    assert row.agreement is not None and artifact.qualification is not None
    assert row.agreement.masks == artifact.qualification.mask_agreement
    assert row.figures["labels_ms"] is None
    assert "patches_per_s" not in row.figures
    rate, gflop_per_s = row.figures["fields_per_s"], row.figures["gflop_per_s"]
    assert rate is not None and gflop_per_s is not None
    gflop = bundle.manifest.model.gflop_per_patch * (bundle.geometry.side_px / 224) ** 2
    assert gflop_per_s == pytest.approx(rate * gflop)
    for shown in (f"; {bundle.geometry.inputs}", "fields/s"):
        assert shown in done.stdout
    assert "label maps ms" not in done.stdout


def test_cold_starts_are_shown_with_agreement_and_with_what_failed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    facts = {"contender": "onnx-cpu fp32", "open": "prepares the graph anew", "failed": "no memory"}
    parts = dict.fromkeys(("start_s", "load_s", "open_s", "first_patch_s"), 1.0)
    row = make_row("a, cold start", [4.0, 4.0], unit="s", facts=facts, figures=parts | NOT_BUILT)
    odd = row.model_copy(update={"name": "b", "facts": {**facts, "unqualified": "a gate differs"}})
    print_latency(make_document([row, odd]))
    said = capsys.readouterr().out
    for shown in ("agreement", f"{SAME.masks:.4%}", "onnx-cpu fp32 *", "system's cache"):
        assert shown in said
    assert "a, cold start: only 2 counted; the next failed: no memory" in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--base", "tensorrt fp16"), "--base 'tensorrt fp16' is not measured; choose "),
        (("--checkpoint", "weights.safetensors"), "give --peers too"),
        (("--precision", "fp32,fp4"), "'fp4' is not one of fp32"),
        (("--engine", "onnx-cpu,onnx-gpu"), "no engine named 'onnx-gpu'"),
    ],
)
def test_what_does_not_fit_is_one_line(
    small_bundle_dir: Path, words: tuple[str, ...], says: str
) -> None:
    done = run_here("benchmark", "latency", small_bundle_dir, *QUICK, *words)
    assert done.returncode == 2
    assert says in done.stderr


def test_where_nothing_can_be_measured_the_command_fails(
    small_bundle_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no nvidia-smi
    done = run_here("benchmark", "latency", small_bundle_dir, *QUICK, "--engine", "onnx-cuda")
    assert done.returncode == 1
    assert "not measured: onnx-cuda fp32: no NVIDIA GPU" in done.stdout
