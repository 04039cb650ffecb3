from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sshr_deploy.benchmarks.latency import measure_latency, parse_batches
from sshr_deploy.bundle import Bundle, load_bundle
from sshr_deploy.cli.benchmark_tables import print_latency
from sshr_deploy.errors import BundleError, UsageError
from sshr_deploy.runtime.contract import Session
from sshr_deploy.runtime.engines.choosing import open_session


def _open_on_cpu(bundle: Bundle) -> Session:
    return open_session(bundle, "onnx-cpu")


def test_figures_follow_from_the_raw_samples(
    small_bundle_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = measure_latency(small_bundle_dir, _open_on_cpu, [1, 3], seconds=0.1)
    assert [row["batch"] for row in report["rows"]] == [1, 3]
    for row in report["rows"]:
        samples = row["samples_ms"]
        assert len(samples) >= 5
        assert sum(samples) >= 100
        assert row["median_ms"] == pytest.approx(np.median(samples))
        assert row["p25_ms"] <= row["median_ms"] <= row["p75_ms"] <= row["max_ms"] == max(samples)
        assert ("p95_ms" in row, "p99_ms" in row) == (len(samples) >= 20, len(samples) >= 100)
        assert row["patches_per_s"] == pytest.approx(row["batch"] * 1e3 / np.mean(samples))
        gflop = report["bundle"]["gflop_per_patch"]
        assert row["gflop_per_s"] == pytest.approx(row["patches_per_s"] * gflop)
    assert all(seconds > 0 for seconds in report["cold"].values())
    bundle = load_bundle(small_bundle_dir)
    assert report["bundle"]["manifest_sha256"] == bundle.manifest_sha256
    (artifact,) = bundle.artifacts("onnx-cpu")
    assert artifact.qualification is not None
    agreement = report["engine"]["mask_agreement"]
    assert agreement == artifact.qualification.mask_agreement
    json.dumps(report)
    print_latency(report)
    shown = capsys.readouterr().out
    assert shown.count(f"{agreement:.4%}") == 2
    assert "cold start" in shown


@pytest.mark.parametrize("text", ["", "0", "1,x", "-1", "1,,2", "99999"])
def test_wrong_batch_lists_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="`batches`"):
        parse_batches(text)


def test_batch_lists_are_sorted_without_doubles() -> None:
    assert parse_batches("8, 1,8") == [1, 8]


def test_a_broken_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        measure_latency(tmp_path, open_session, [1], 0.1)


def test_the_command_writes_its_json(small_bundle_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "latency.json"
    command = [sys.executable, "-m", "sshr_deploy", "benchmark", "latency", str(small_bundle_dir)]
    done = subprocess.run(
        [*command, "--batches", "1", "--seconds", "0.1", "--json", str(file)],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        check=True,
    )
    assert "patches/s" in done.stdout
    assert json.loads(file.read_text("utf-8"))["benchmark"] == "latency"
