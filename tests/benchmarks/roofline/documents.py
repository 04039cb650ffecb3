"""A document of `benchmark roofline`, with figures by hand."""

from __future__ import annotations

from pathlib import Path

from sshr_deploy.benchmarks.report.recorder import Recorder
from sshr_deploy.benchmarks.report.records import Agreement, BenchmarkDocument, Row
from tests.benchmarks.roofline.test_ceilings import CEILINGS


def roofline_document(file: Path | None = None) -> BenchmarkDocument:
    """An engine with layers, one that is not measured, one without a share."""
    recorder = Recorder("roofline", None, {"batch": 8, "threads": 2}, file)
    recorder.fact("ceilings", CEILINGS.as_json())
    recorder.row(_measured("onnx-cpu fp32", 0.5))
    recorder.row(_measured("openvino fp32", None))
    recorder.row(
        Row(name="onnx-cpu int8", unit="ms", better="lower", samples=(), not_measured="no VNNI")
    )
    return recorder.document


def _measured(name: str, share: float | None) -> Row:
    layers = [
        _layer("b7.conv_branch2a", "Conv", 2.0, 40.0, 20.0),
        _layer("node_add", "Add", 0.0, 1.0, 0.5),
    ]
    return Row(
        name=name,
        unit="ms",
        better="lower",
        samples=(40.0, 41.0, 42.0),
        agreement=Agreement(masks=0.9999, cam_error=1e-6, misses=()),
        figures={
            "median_ms": 41.0,
            "gflop_per_s": 50.0,
            "gb_per_s": 1.0,
            "flop_per_byte": 50.0,
            "floor_ms": 20.5,
            "share_of_ceiling": share,
        },
        refused={} if share is not None else {"share_of_ceiling": "the machine was busy"},
        facts={
            "precision": "fp32",
            "batch": 8,
            "ceilings": "ceilings",
            "layers": layers,
            "kernels_ms": 41.0,
            "kernels_without_worst_ms": 20.5,
        },
    )


def _layer(
    name: str, operator: str, gflop: float, took: float, floor: float
) -> dict[str, str | float]:
    return {
        "layer": name,
        "kernel": name,
        "operator": operator,
        "precision": "fp32",
        "gflop": gflop,
        "gb": 0.04,
        "median_ms": took,
        "floor_ms": floor,
        "lost_ms": took - floor,
    }
