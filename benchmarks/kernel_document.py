"""The rows of `kernels`, which a machine with hardly more than PyTorch has too, as a document."""

from __future__ import annotations

from typing import Any

from sshr_deploy.benchmarks.kernels import measure_kernels
from sshr_deploy.benchmarks.report.recorder import Recorder
from sshr_deploy.benchmarks.report.records import Row

_OF_A_ROW = ("dtype", "batch", "shape", "form", "calls_a_sample")
"""Facts; all else but the samples are figures."""


def record_kernels(recorder: Recorder, **settings: Any) -> None:
    """`measure_kernels` with these settings, a row for each form at each size.

    Raises:
        SshrDeployError: a form broke the CUDA context of this process.
    """

    def keep(conditions: dict[str, Any]) -> None:
        for name in ("device", "ceilings", "rates"):
            recorder.fact(name, conditions[name])
        recorder.fact("bounds", conditions["settings"]["bounds"])

    report = measure_kernels(
        **settings, on_row=lambda row: recorder.row(row_of(row)), on_conditions=keep
    )
    recorder.fact("not_measured", report["not_measured"])


def row_of(row: dict[str, Any]) -> Row:
    """A row of `measure_kernels`."""
    size = " x ".join(map(str, (row["batch"], *row["shape"])))
    others = {*_OF_A_ROW, "samples_ms", "failed"}
    return Row(
        name=f"{row['dtype']}, {size}, {row['form']}",
        unit="ms",
        better="lower",
        samples=tuple(row.get("samples_ms", ())),
        not_measured=row.get("failed"),
        figures={name: value for name, value in row.items() if name not in others},
        facts={name: row[name] for name in _OF_A_ROW if name in row},
    )
