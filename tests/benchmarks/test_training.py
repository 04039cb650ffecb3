"""The training benchmark: what it reports, and that it reports nothing where variants disagree."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from sshr_deploy.benchmarks import training, training_variants
from sshr_deploy.benchmarks.report.reading import read_document
from sshr_deploy.benchmarks.report.recorder import Recorder
from sshr_deploy.benchmarks.report.records import BenchmarkDocument
from sshr_deploy.cli import app, benchmark_training
from sshr_deploy.errors import MissingExtraError, OutputError, SshrDeployError
from sshr_deploy.model import HFRM
from tests.gpu_here import torch_has_a_gpu

WIDTH, CLASSES, BATCH = 2, 2, 1


def measure(steps: list[str] | None = None) -> BenchmarkDocument:
    seen = [] if steps is None else steps
    recorder = Recorder("training", None, {})
    settings = training.TrainingSettings(WIDTH, BATCH, 1, CLASSES)
    with recorder:
        training.measure_training(settings, recorder, seen.append)
    return recorder.document


@pytest.fixture(scope="module")
def report() -> BenchmarkDocument:
    return measure()


def test_figures_follow_from_the_raw_samples(report: BenchmarkDocument) -> None:
    steps = [row for row in report.rows if row.facts["part"] == "step"]
    assert [row.name for row in steps] == ["step, published", "step, pooled", "step, fast"]
    for row in steps:
        figures = row.figures
        assert len(row.samples) == 1
        median_ms, gflop_per_s = figures["median_ms"], figures["gflop_per_s"]
        assert median_ms == statistics.median(row.samples) and gflop_per_s is not None
        assert figures["patches_per_s"] == pytest.approx(BATCH * 1e3 / median_ms)
        assert gflop_per_s * median_ms == pytest.approx(1e3 * (figures["gflop_per_step"] or 0))
        if row is steps[0]:
            assert figures["speed_up"] == 1
        else:
            assert figures["speed_up"] is None and row.refused["speed_up"], "one call has no spread"
        assert ("peak_memory_mb" in figures) == torch_has_a_gpu()
    levels = ("f56", "f28_1", "f28_2", "all")
    calls = [f"HFRM {level}, {form}" for level in levels for form in ("plain", "pooled")]
    assert [row.name for row in report.rows if row.facts["part"] == "HFRM"] == calls


def test_the_recipes_are_those_that_ship_with_plain_hfrm_for_the_published_one(
    report: BenchmarkDocument,
) -> None:
    published, pooled, fast = (report.facts["recipes"][n] for n in ("published", "pooled", "fast"))
    assert (pooled["name"], pooled["precision"], pooled["hfrm"]) == ("paper", "fp32", "pooled")
    assert published == pooled | {"hfrm": "plain"}
    assert (fast["name"], fast["precision"], fast["hfrm"]) == ("fast", "bf16", "pooled")


def test_pooled_saves_the_operations_of_the_convolutions(report: BenchmarkDocument) -> None:
    """Counted by hand: C x H x W of the levels, 15 x 15 taps, forward and two gradients."""
    sizes = sum(c * WIDTH * px**2 for c, px in ((4, 56), (8, 28), (16, 28)))
    heads = CLASSES * (sizes + 64 * WIDTH * 28**2)
    convolutions = 3 * 2 * BATCH * (15 * 15 * sizes + heads) / 1e9
    names = ("published", "pooled", "fast")
    gflop = [report.row(f"step, {name}").figures["gflop_per_step"] or 0 for name in names]
    assert gflop[0] - gflop[1] == pytest.approx(convolutions, rel=0.01)
    assert gflop[1] == gflop[2]


def test_errors_are_within_their_bounds_and_not_all_zero(report: BenchmarkDocument) -> None:
    assert report.facts["bounds"] == training_variants.BOUNDS
    for name, bounds in report.facts["bounds"].items():
        for figure, bound in bounds.items():
            assert 0 < report.facts["agreement"][name][figure] <= bound


def test_stopped_early_rows_have_the_ratios_that_they_can_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stopped(calls: object, rounds: int) -> Iterator[tuple[str, float]]:
        del calls, rounds
        yield from [("published", 20.0), ("pooled", 10.0)] * 5
        raise KeyboardInterrupt

    recorder = Recorder("training", None, {})
    monkeypatch.setattr(recorder, "busy", lambda: None)
    monkeypatch.setattr(training, "_alternate", stopped)
    calls = dict.fromkeys(("published", "pooled", "fast"), lambda: None)
    with pytest.raises(KeyboardInterrupt):
        training._time("step", calls, 5, recorder)
    assert [row.name for row in recorder.document.rows] == ["step, published", "step, pooled"]
    assert recorder.document.row("step, pooled").figures["speed_up"] == 2


def forget_context(self: HFRM, feature: Tensor, context: Tensor, *_: object) -> Tensor:
    return feature.mean((2, 3)) * self.gate(context)


def test_wrong_logits_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HFRM, "rectified_mean", forget_context)
    steps: list[str] = []
    with pytest.raises(SshrDeployError, match=r"pooled: .* logits .*no speed"):
        measure(steps)
    assert not [step for step in steps if "timing" in step]


def test_wrong_gradients_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = HFRM.tap_sums
    monkeypatch.setattr(HFRM, "tap_sums", lambda *args: right(*args).detach())
    with pytest.raises(SshrDeployError, match=r"pooled: .* gradients .*no speed"):
        measure()


def test_a_fast_step_that_misses_its_bound_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(training_variants.BOUNDS["fast"], "logits", 1e-9)
    with pytest.raises(SshrDeployError, match=r"fast: .* logits .*1e-09.*no speed"):
        measure()


def test_the_command_prints_both_tables_and_writes_its_json(tmp_path: Path) -> None:
    file = tmp_path / "training.json"
    options = ["--width", "1", "--batch", "1", "--rounds", "1", "--classes", "2"]
    done = CliRunner().invoke(app, ["benchmark", "training", *options, "--json", str(file)])
    assert done.exit_code == 0, done.output
    for word in ("plain / pooled", "f28_2", "patches/s", "published", "fast", "relative RMS"):
        assert word in done.stdout
    assert "timing whole steps" in done.stderr
    written = read_document(file)
    assert written.benchmark == "training" and written.complete
    settings = {"width": 1, "batch": 1, "classes": 2, "rounds": 1, "threads": None}
    assert written.settings == settings
    assert written.environment.libraries["torch"] == torch.__version__


def test_a_json_file_that_cannot_be_written_is_refused_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "measure_training", lambda *_: pytest.fail("measured"))
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        benchmark_training.training(json_file=tmp_path / "file" / "x.json")


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, training.__name__)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"torch is not installed.*\[train\]"):
        benchmark_training.training()
