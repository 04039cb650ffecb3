from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sshr_deploy.benchmarks.contenders.parts import Parts
from sshr_deploy.benchmarks.contenders.trtexec import TrtexecPeer
from sshr_deploy.benchmarks.latency.rows import (
    Calls,
    Yardsticks,
    row_apart,
    row_of,
    unmeasured_row,
)
from sshr_deploy.benchmarks.report.records import Agreement, Row
from sshr_deploy.bundle import load_bundle
from sshr_deploy.precision import Precision

AGREES = Agreement(masks=1.0, cam_error=0.0, misses=())
PARTS = Parts(1.0, 2.0, 3.0, 4.0)


def _calls(name: str, middle_ms: float, count: int = 60) -> Calls:
    samples = [middle_ms * (1 + 0.0001 * i) for i in range(count)]
    return Calls(name, 4, Precision.FP32, AGREES, PARTS, {"cuda_graphs": None}, samples)


def _against(base: Calls | None, busy: str | None = None) -> Yardsticks:
    ceilings = {Precision.FP32: 1000.0}
    return Yardsticks(2.0, ceilings, base, None if base else "none was measured", busy)


def test_figures_follow_from_the_raw_samples() -> None:
    calls, base = _calls("a", 10.0), _calls("b", 40.0)
    row = row_of(calls, _against(base))
    assert row.name == "a, batch 4"
    assert row.samples == tuple(calls.samples_ms)
    median = float(np.median(calls.samples_ms))
    figures = row.figures
    assert figures["p50_ms"] == pytest.approx(median)
    for percent in (50, 90, 95):
        low, value, high = (figures[f"p{percent}{end}_ms"] for end in ("_low", "", "_high"))
        assert low is not None and value is not None and high is not None
        assert low <= value <= high
    assert figures["max_ms"] == max(calls.samples_ms)
    assert figures["patches_per_s"] == pytest.approx(4e3 / median)
    assert figures["gflop_per_s"] == pytest.approx(8e3 / median)
    assert figures["share_of_ceiling"] == pytest.approx(8 / median)
    assert figures["speed"] == pytest.approx(4.0)
    assert (figures["copy_in_ms"], figures["labels_ms"]) == (1.0, 4.0)
    assert (row.facts["contender"], row.facts["batch"], row.facts["base"]) == ("a", 4, "b")


def test_a_percentile_of_too_few_calls_is_refused_with_the_number_it_needs() -> None:
    row = row_of(_calls("a", 10.0), _against(None))
    assert row.figures["p99_ms"] is None
    assert row.refused["p99_ms"] == "needs 299 calls"
    assert "p95_ms" not in row.refused


def test_a_ratio_that_cannot_be_told_says_why() -> None:
    calls, base = _calls("a", 10.0), _calls("b", 40.0)
    cases = {
        "other work took": (calls, _against(base, "other work took 90 %")),
        "overlap": (calls, _against(_calls("b", 10.01))),
        "none was measured": (calls, _against(None)),
        "masks disagree": (
            replace(calls, agreement=AGREES.model_copy(update={"misses": ("a gate differs",)})),
            _against(base),
        ),
    }
    for words, (measured, against) in cases.items():
        row = row_of(measured, against)
        assert row.figures["speed"] is None
        assert words in row.refused["speed"]
    assert row.facts["unqualified"] == "its masks disagree: a gate differs"
    assert row_of(base, _against(base, "other work took 90 %")).figures["speed"] == 1.0


def test_a_ceiling_that_was_not_measured_gives_no_share() -> None:
    calls = replace(_calls("a", 10.0), precision=Precision.BF16)
    assert row_of(calls, _against(None)).figures["share_of_ceiling"] is None


def test_a_share_that_cannot_be_is_not_told() -> None:
    row = row_of(_calls("a", 1.0), _against(None))  # eight times the ceiling
    assert row.figures["share_of_ceiling"] is None
    assert "cannot be" in row.refused["share_of_ceiling"]


def test_no_share_is_told_of_what_a_gpu_computes_nor_on_a_busy_machine() -> None:
    calls = _calls("a", 10.0)
    gpu = row_of(replace(calls, on_gpu=True), _against(None))
    assert "the GPU's ceilings" in gpu.refused["share_of_ceiling"]
    busy = row_of(calls, _against(None, "other work took 90 %"))
    assert "other work" in busy.refused["share_of_ceiling"]
    assert gpu.figures["share_of_ceiling"] is busy.figures["share_of_ceiling"] is None


def test_a_peer_that_times_itself_gets_no_ratio(small_bundle_dir: Path) -> None:
    bundle = load_bundle(small_bundle_dir)
    peer = TrtexecPeer("trtexec", bundle, bundle.artifacts("onnx-cpu")[0])
    timed = Row(
        name="trtexec fp32, batch 4",
        unit="ms",
        better="lower",
        samples=(10.0,) * 8,
        figures={"copy_in_ms": 1.0, "engine_ms": 8.0, "copy_out_ms": 1.0},
    )
    row = row_apart(timed, peer, 4, _against(_calls("b", 40.0)))
    assert (row.figures["p50_ms"], row.figures["engine_ms"]) == (10.0, 8.0)
    assert (row.figures["labels_ms"], row.figures["speed"]) == (None, None)
    assert row.figures["share_of_ceiling"] is None, "the ceilings are the processor's"
    assert "not timed in turns" in row.refused["speed"]
    absent = timed.model_copy(update={"samples": (), "not_measured": "no GPU", "figures": {}})
    assert row_apart(absent, peer, 4, _against(None)).facts["contender"] == "trtexec fp32"


def test_what_was_not_measured_has_no_samples() -> None:
    row = unmeasured_row("a", 8, "no NVIDIA GPU")
    assert (row.name, row.samples, row.not_measured) == ("a, batch 8", (), "no NVIDIA GPU")
