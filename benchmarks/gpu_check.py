"""Everything that needs an NVIDIA GPU, in one run of at most eight minutes (`make gpu-check`).

    PYTHONPATH=. python3 -m sshr_deploy.benchmarks.gpu_check [--out FOLDER]

Needs PyTorch with CUDA and Triton, and installs nothing; a part whose packages are missing is
left out by name. First the tests of the kernels, then the measurements. Ends in a table and
`gpu-check-<device>.json`. Exit code 1: a test or a check failed. Each measurement has a check of
its own and reports no time of what misses it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sshr_deploy.atomic import check_writable, write_json
from sshr_deploy.benchmarks.environment import describe_environment
from sshr_deploy.errors import SshrDeployError, first_line
from sshr_deploy.runtime.gpu import find_gpus
from sshr_deploy.runtime.spread import ratio_text

_ROOT = Path(__file__).resolve().parent.parent
_TESTS = (
    "tests/runtime/kernels",
    "tests/runtime/test_device.py",
    "tests/runtime/test_on_gpu.py",  # skipped without pydantic and onnxruntime
)
_TOTAL_S, _TESTS_S, _KERNELS_S = 440.0, 180.0, 120.0
_NEEDS_S = {"kernels": 125.0, "network": 90.0, "training": 45.0, "configs": 60.0, "recipes": 100.0}
"""Seconds that a part has to have left to begin; 20 where nothing is said."""
_Part = Callable[[], Any]


def check(out: Path) -> dict[str, Any]:
    """Run all parts; a part that fails is recorded with its reason, and the others go on.

    Raises:
        OutputError: the JSON file cannot be written; told before anything is measured.
    """
    import torch

    start = time.perf_counter()
    device = torch.device("cuda")
    file = out / _file_name(torch.cuda.get_device_name())
    check_writable(file)
    report: dict[str, Any] = {
        "benchmark": "gpu-check",
        "measured_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": describe_environment() | _cuda_environment(),
        "device": torch.cuda.get_device_name(),
        "failed": {},
        "left_out": {},
        "seconds": {},
    }
    for name, part in _parts(device).items():
        left = _TOTAL_S - (time.perf_counter() - start)
        if left < _NEEDS_S.get(name, 20.0):
            report["left_out"][name] = "out of time"
            continue
        began = time.perf_counter()
        try:
            figures = part()
            json.dumps(figures, allow_nan=False)
            report[name] = figures
        except ModuleNotFoundError as error:
            report["left_out"][name] = f"{error.name} is not installed"
        except SshrDeployError as error:
            report["failed"][name] = str(error)
        except Exception as error:  # the other parts are worth their time all the same
            report["failed"][name] = f"{type(error).__name__}: {first_line(error)}"
            traceback.print_exc()
        report["seconds"][name] = round(time.perf_counter() - began, 1)
        write_json(file, report)  # nothing done is lost
    for row in report.get("kernels", {}).get("rows", []):
        if "failed" in row:
            report["failed"][f"kernels, {row['form']}"] = row["failed"]
    write_json(file, report)
    return report


def _cuda_environment() -> dict[str, Any]:
    import torch

    properties = torch.cuda.get_device_properties(0)
    gpus = find_gpus()
    return {
        "sm": 10 * properties.major + properties.minor,
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "driver": gpus[0].driver if gpus else None,
    }


def _parts(device: Any) -> dict[str, _Part]:
    from sshr_deploy.benchmarks.kernel_configs import measure_configs
    from sshr_deploy.benchmarks.kernels import measure_kernels
    from sshr_deploy.benchmarks.mask_kernel import measure_mask_kernel
    from sshr_deploy.benchmarks.network import measure_inference
    from sshr_deploy.benchmarks.training_kernels import measure_training_kernels

    return {
        "tests": run_tests,
        "kernels": lambda: measure_kernels(device=device, deadline_s=_KERNELS_S, on_step=_say),
        "masks": lambda: measure_mask_kernel(device=device, on_step=_say),
        "network": lambda: measure_inference(device=device, on_step=_say),
        "training": lambda: measure_training_kernels(device=device, on_step=_say),
        "configs": lambda: measure_configs(device=device, on_step=_say),
        "recipes": _measure_recipes,
    }


def _measure_recipes() -> dict[str, Any]:
    """`sshr-deploy benchmark training`: needs pydantic."""
    from sshr_deploy.benchmarks.training import measure_training

    return measure_training(width=64, batch=None, rounds=5, classes=4, on_step=_say)


def run_tests() -> dict[str, Any]:
    """The tests of kernels and devices on this GPU.

    Raises:
        ModuleNotFoundError: pytest is missing.
        SshrDeployError: a test fails.
    """
    if find_spec("pytest") is None:
        raise ModuleNotFoundError("no pytest", name="pytest")
    several = ["-n", str(min(8, os.cpu_count() or 1))] if find_spec("xdist") else []
    # The settings of pyproject.toml are for the pytest of [dev]; here is another.
    settings = ["-c", os.devnull, "--rootdir", str(_ROOT), "--import-mode=importlib"]
    settings += ["-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", *several, *settings, *_TESTS]
    environment = os.environ | {"PYTHONPATH": str(_ROOT)}
    try:
        done = subprocess.run(
            command,
            cwd=_ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=_TESTS_S,
        )
    except subprocess.TimeoutExpired as error:
        raise SshrDeployError(f"the tests took longer than {_TESTS_S:.0f} s") from error
    last = done.stdout.strip().splitlines()[-1:] or [done.stderr.strip()[-500:]]
    _say(f"tests: {last[0]}")
    if done.returncode != 0:
        print(done.stdout[-6000:], done.stderr[-2000:], file=sys.stderr)
        raise SshrDeployError(f"tests failed: {last[0]}")
    counts = {kind: int(n) for n, kind in re.findall(r"(\d+) (passed|skipped)", last[0])}
    return {"summary": last[0], **counts}


def table(report: dict[str, Any]) -> list[str]:
    """The figures that the aims are stated in, a line each."""
    lines = [f"{report['device']}, {report['measured_utc']}"]
    if "tests" in report:
        lines.append(f"tests: {report['tests']['summary']}")
    lines += _kernel_lines(report.get("kernels", {}).get("rows", []))
    for row in report.get("masks", []):
        lines.append(
            f"cam_to_mask batch {row['batch']:3} {row['form']:8} {row['median_ms']:.4f} ms"
        )
    for row in report.get("network", []):
        lines.append(
            f"network {row['precision']} batch {row['batch']:3} {row['form']:9} "
            f"{row['median_ms']:8.3f} ms {row['patches_per_s']:8.1f} patches/s"
        )
    for row in report.get("training", []):
        what = f"training {row['part']}, batch {row['batch']}, {row['form']}"
        lines.append(f"{what:45} {row['median_ms']:9.3f} ms")
    for row in report.get("configs", []):
        sizes = " ".join(f"{key} {value}" for key, value in row["config"].items())
        result = f"{row['median_ms']:.4f} ms" if "median_ms" in row else row["failed"]
        lines.append(f"block sizes, batch {row['batch']:3} {sizes}: {result}")
    for what in report.get("kernels", {}).get("not_measured", []):
        lines.append(f"not measured, out of time: {what}")
    for name, row in report.get("recipes", {}).get("steps", {}).items():
        faster = ratio_text(row["speed_up"])
        lines.append(f"recipe step {name:9} {row['median_ms']:9.3f} ms, times as fast: {faster}")
    lines += [f"left out {name}: {reason}" for name, reason in report["left_out"].items()]
    return lines + [f"FAILED {name}: {reason}" for name, reason in report["failed"].items()]


def _kernel_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    sizes: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    for row in rows:
        key = (row["dtype"], row["batch"], tuple(row["shape"]))
        sizes.setdefault(key, {})[row["form"]] = row
    lines = []
    for (dtype, batch, shape), rows_by_form in sizes.items():
        forms = {name: row for name, row in rows_by_form.items() if "median_ms" in row}
        times = " ".join(f"{name} {row['median_ms']:.4f}" for name, row in forms.items())
        if "fused_nhwc" not in forms:
            lines.append(f"{dtype} {batch:3} x {'x'.join(map(str, shape)):10} ms: {times}")
            continue
        fused = forms["fused_nhwc"]
        gains = " ".join(
            f"{forms[name]['median_ms'] / fused['median_ms']:.1f}x {name}"
            for name in ("plain", "compiled")
            if name in forms
        )
        size = "x".join(map(str, shape))
        lines.append(
            f"{dtype} {batch:3} x {size:10} ms: {times} | fused_nhwc {gains}, "
            f"{fused['share_of_floor']:.0%} of the floor"
        )
    return lines


def _file_name(device: str) -> str:
    return f"gpu-check-{re.sub(r'[^a-z0-9]+', '-', device.lower()).strip('-')}.json"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, print the table, and say where the JSON file is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    default = Path(os.environ.get("OUT") or "demo/out/gpu")
    parser.add_argument(
        "--out", type=Path, default=default, help="folder of the JSON file (default: $OUT, if set)"
    )
    options = parser.parse_args(arguments)
    missing = _missing()
    if missing:
        print(f"gpu-check: {missing}", file=sys.stderr)
        return 2
    try:
        report = check(options.out)
    except SshrDeployError as error:
        print(f"gpu-check: {error}", file=sys.stderr)
        return 1
    print(*table(report), options.out / _file_name(report["device"]), sep="\n")
    return 1 if report["failed"] else 0


def _missing() -> str:
    """What has to be there first, with the fix; empty where nothing is missing."""
    choose = "name a Python that has it: make gpu-check PYTHON=/path/to/python3"
    if os.environ.get("TRITON_INTERPRET"):
        return "TRITON_INTERPRET is set, which keeps kernels off the GPU; unset it"
    if find_spec("torch") is None:
        return f"{sys.executable} has no PyTorch; {choose}"
    import torch

    if torch.version.cuda is None:
        return f"the PyTorch of {sys.executable} is built without CUDA; {choose}"
    if not torch.cuda.is_available():
        return (
            "PyTorch finds no NVIDIA GPU here; see what nvidia-smi says, or use a machine with one"
        )
    if find_spec("triton") is None:
        return f"{sys.executable} has no Triton beside its PyTorch; {choose}"
    return ""


if __name__ == "__main__":
    sys.exit(main())
