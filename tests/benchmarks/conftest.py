"""Some benchmarks run kernels."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests import kernels_anywhere as kernels_anywhere

# Its parent ends at once, so that it is nobody's child: this process's children are its own work.
BUSY = """
import os
if os.fork() == 0:
    print(os.getpid(), flush=True)
    os.close(1)
    end = os.times().elapsed + 60
    while os.times().elapsed < end: pass
"""


@pytest.fixture
def pids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the stand-in `hang` of `stand_ins` writes the numbers of its processes."""
    monkeypatch.setenv("PIDS", str(tmp_path / "pids"))
    return tmp_path / "pids"


@pytest.fixture
def busy_processes() -> Iterator[None]:
    """Strangers that compute on a third of the cores, at least on one."""
    if not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    pids = []
    try:
        for _ in range(-(-cores // 3)):
            started = subprocess.run(
                [sys.executable, "-c", BUSY], stdout=subprocess.PIPE, text=True, check=True
            )
            pids.append(int(started.stdout))
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
