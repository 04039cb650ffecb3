"""The parts of `gpu.check` that measure a bundle, on the processor."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from sshr_deploy.benchmarks.gpu import bundle_parts
from sshr_deploy.benchmarks.gpu.child import PartOutput
from sshr_deploy.benchmarks.report.reading import read_document


@pytest.mark.parametrize("name", ["latency", "throughput"])
def test_a_bundle_is_measured_into_a_document(
    name: str, small_bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(bundle_parts.BUNDLE, str(small_bundle_dir))
    monkeypatch.setattr(bundle_parts, "ENGINES", ("onnx-cpu",))
    monkeypatch.setattr(bundle_parts, "AUTO", "onnx-cpu")
    monkeypatch.setattr(bundle_parts, "BATCHES", (1,))
    monkeypatch.setattr(bundle_parts, "_SECONDS", 0.01)
    lines, document = io.StringIO(), tmp_path / "document.json"
    getattr(bundle_parts, name)(PartOutput(lines, 60.0, document))
    found = read_document(document)
    assert found.complete and found.benchmark == name
    rows = [json.loads(line)["row"] for line in lines.getvalue().splitlines()]
    assert [row["name"] for row in rows] == [row.name for row in found.rows]
    assert any(row["samples"] for row in rows)
