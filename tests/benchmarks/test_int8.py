"""What the INT8 benchmark says of samples that are known."""

from __future__ import annotations

from typing import Any

import pytest

from sshr_deploy.benchmarks.int8 import times_over
from sshr_deploy.cli.benchmark_tables import print_int8
from sshr_deploy.runtime.machine.spread import spread_of

SAMPLES = {
    "pytorch": [900.0, 40.0, 1700.0, 60.0, 2100.0, 800.0],  # beside other work
    "fp32": [20.0, 20.1, 20.2, 20.0, 20.3, 20.1],
    "int8 everywhere": [15.0, 15.1, 15.2, 15.0, 15.3, 15.1],
}


def _row(name: str) -> dict[str, Any]:
    return {
        "name": name,
        **spread_of(SAMPLES[name]).figures(),
        **times_over("fp32", name, SAMPLES),
        **times_over("pytorch", name, SAMPLES),
        "samples_ms": SAMPLES[name],
        "qualification": {"mask_agreement": 1, "cam_relative_error": {"cam": 0}, "iou": None},
    }


def test_a_ratio_from_a_busy_run_is_not_reported(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [_row(name) for name in SAMPLES]
    pytorch, fp32, narrow = rows
    assert fp32["times_fp32"] == 1 and pytorch["times_pytorch"] == 1
    assert narrow["times_fp32"] == pytest.approx(20.1 / 15.1)
    assert narrow["times_pytorch"] is None and fp32["times_pytorch"] is None
    why = narrow["times_pytorch_not_reported"]
    assert why.startswith("pytorch: its middle half spreads over ") and "busy" in why
    report = {
        **{"width": 8, "scheme": "u8s8", "range_method": "mse", "cpu_threads": 2},
        **{"environment": {"processor": "AMD EPYC", "cores": 2, "load_average": 6.25}},
        **{"rows": rows, "patches": 6, "source": "crops", "kept": []},
    }
    print_int8(report)
    shown = capsys.readouterr().out
    assert "on AMD EPYC, 2 cores, load 6.2, 2 threads" in shown
    assert shown.count(f"not reported: {why}\n") == 1
    assert "1.33" in shown and "20.0-20.2" in shown
