"""Parts of `gpu.check` that need no GPU and end in every way that a part can."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from sshr_deploy.benchmarks.gpu.child import PartOutput
from sshr_deploy.errors import MissingExtraError, SshrDeployError

HERE = "tests.benchmarks.gpu.stand_ins"
ROW = {
    "form": "plain",
    "precision": "fp16",
    "batch": 1,
    "median_ms": 2.0,
    "patches_per_s": 500.0,
    "dtype": "fp16",
    "shape": [512, 28, 28],
}


def device(output: PartOutput) -> dict[str, Any]:
    return {"device": "NVIDIA Test 1", "sm": 90}


def right(output: PartOutput) -> dict[str, Any]:
    output.row(ROW)
    return {"summary": "all right"}


def crash(output: PartOutput) -> None:
    output.row(ROW)
    os.abort()


def benchmark_and_crash(output: PartOutput) -> None:
    from sshr_deploy.benchmarks.report.recorder import Recorder
    from sshr_deploy.benchmarks.report.records import Row

    with Recorder("training", None, {}, output.document) as recorder:
        recorder.row(Row(name="a", unit="ms", better="lower", samples=(1.0,)))
        os.abort()


def miss(output: PartOutput) -> None:
    """A bundle of which one engine has no library here, and one gives wrong masks."""
    hand_over(output, samples=(1.0,))


def miss_all(output: PartOutput) -> None:
    hand_over(output, samples=())


def hand_over(output: PartOutput, samples: tuple[float, ...]) -> None:
    from sshr_deploy.benchmarks.contenders.judging import why_no_speed
    from sshr_deploy.benchmarks.gpu.bundle_parts import _hand_over
    from sshr_deploy.benchmarks.report.recorder import Recorder
    from sshr_deploy.benchmarks.report.records import Agreement, Row

    wrong = Agreement(masks=0.5, cam_error=1.0, misses=("mask agreement 0.5",))
    recorder = Recorder("latency", None, {})
    for name, agreement, why in (
        ("right, batch 1", None, "no library here"),
        ("absent, batch 1", None, "no library here"),
        ("wrong, batch 1", wrong, why_no_speed(wrong)),
    ):
        own = samples if name.startswith("right") else ()
        recorder.row(
            Row(
                name=name,
                unit="ms",
                better="lower",
                samples=own,
                agreement=agreement,
                not_measured=None if own else why,
            )
        )
    _hand_over(recorder, output)


def leave(output: PartOutput) -> None:
    os._exit(0)


def hang(output: PartOutput) -> None:
    """With a process of its own that would outlive it; its number is in the file PIDS names."""
    output.row(ROW)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(os.environ["PIDS"]).write_text(f"{os.getpid()} {child.pid}")
    time.sleep(600)


def break_off(output: PartOutput) -> None:
    """Dies in the middle of a row."""
    output.row(ROW)
    output._file.write('{"row": {"form": "fu')
    output._file.flush()
    os.abort()


def refuse(output: PartOutput) -> None:
    raise SshrDeployError("fused is off by 1e+00")


def fail(output: PartOutput) -> None:
    output.row(ROW)
    raise RuntimeError("CUDA error\nmore lines")


def need(output: PartOutput) -> None:
    raise ModuleNotFoundError("No module named 'pydantic'", name="pydantic")


def need_extra(output: PartOutput) -> None:
    raise MissingExtraError("cuda-core", "gpu")


def nan(output: PartOutput) -> None:
    output.row(ROW)
    output.row({"median_ms": float("nan")})


def wrong_row(output: PartOutput) -> None:
    output.row({"form": "separable", "batch": 8, "failed": "out of memory"})
