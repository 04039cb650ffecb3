"""The tests of kernels, devices and engines on this machine's GPU, as a part of `gpu.check`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sshr_deploy.errors import SshrDeployError

if TYPE_CHECKING:
    from sshr_deploy.benchmarks.gpu.child import PartOutput

ROOT = Path(__file__).resolve().parents[2]
TESTS = (
    "tests/runtime/kernels",
    "tests/runtime/cuda/test_devices.py",
    "tests/runtime/test_on_gpu.py",  # skipped without pydantic and onnxruntime
)
_RESULT = re.compile(
    r"\[gw\d+\] \[ *\d+%\] (?P<several>[A-Z]+) (?P<test_of_several>\S+::.*)"  # with xdist
    r"|(?P<test>\S+::.*?) (?P<one>PASSED|FAILED|ERROR|SKIPPED)(?: \(.*\))?(?: +\[ *\d+%\])?"
)


def run_tests(
    output: PartOutput, root: Path = ROOT, tests: tuple[str, ...] = TESTS
) -> dict[str, Any]:
    """Run them; each that does not pass is a row, as soon as it is known.

    Raises:
        ModuleNotFoundError: pytest is missing.
        SshrDeployError: there are no tests beside this package, or some fail.
    """
    if find_spec("pytest") is None:
        raise ModuleNotFoundError("no pytest", name="pytest")
    if not all((root / test).exists() for test in tests):
        raise SshrDeployError("no tests beside this package; run it in a clone of the repository")
    counts: Counter[str] = Counter()
    with subprocess.Popen(
        _command(root, tests),
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root), "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            match = _RESULT.fullmatch(line.rstrip())
            if match is None:
                print(line, end="", file=sys.stderr)
                continue
            result = match["several"] or match["one"]
            counts[result.lower()] += 1
            if result in ("FAILED", "ERROR"):
                test = match["test_of_several"] or match["test"]
                output.row({"test": test.strip(), "failed": result.lower()})
    if child.returncode != 0:
        raise SshrDeployError(f"tests: {_summary(counts)}, pytest's exit code {child.returncode}")
    return {"summary": _summary(counts), **counts}


def _command(root: Path, tests: tuple[str, ...]) -> list[str]:
    several = ["-n", str(min(8, os.cpu_count() or 1))] if find_spec("xdist") else []
    # The settings of pyproject.toml are for the pytest of [dev]; here is another.
    settings = ["-c", os.devnull, "--rootdir", str(root), "--import-mode=importlib"]
    settings += ["-p", "no:cacheprovider", "--color=no", "--tb=short"]
    return [sys.executable, "-m", "pytest", "-v", *several, *settings, *tests]


def _summary(counts: Counter[str]) -> str:
    return ", ".join(f"{number} {result}" for result, number in counts.items()) or "none ran"
