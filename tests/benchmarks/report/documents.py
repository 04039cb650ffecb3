"""Documents of benchmarks that were never run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sshr_deploy.benchmarks.report.records import (
    Agreement,
    BenchmarkDocument,
    Environment,
    Kind,
    Load,
    Row,
    Subject,
)

MACHINE = Environment(
    sshr_deploy="1.0", commit="0123456789ab", processor="A processor", cores=2, gpus=(),
    platform="Linux", python="3.11.2", libraries={"onnxruntime": "1.30.0"},
)  # fmt: skip
QUIET = Load(before=0.1, after=1.2, other_work=0.01)
BUSY = Load(before=3.0, after=4.2, other_work=0.45)
SUBJECT = Subject(
    profile="wsss4luad", width=8, gflop_per_patch=3.2, manifest_sha256="a" * 64,
    files_sha256={"model.onnx": "b" * 64},
)  # fmt: skip
SAME = Agreement(masks=1.0, cam_error=1e-6, misses=())


def make_row(name: str, samples: Sequence[float], **changes: Any) -> Row:
    values = {"unit": "ms", "better": "lower", "agreement": SAME, **changes}
    return Row(name=name, samples=tuple(samples), **values)


def make_document(rows: Sequence[Row], kind: Kind = "latency", **changes: Any) -> BenchmarkDocument:
    values: dict[str, Any] = {
        "measured_utc": "2026-11-28T14:00:00Z",
        "complete": True,
        "environment": MACHINE,
        "load": QUIET,
        "subject": SUBJECT,
        "settings": {"seconds": 3.0},
        **changes,
    }
    return BenchmarkDocument(benchmark=kind, rows=tuple(rows), **values)
