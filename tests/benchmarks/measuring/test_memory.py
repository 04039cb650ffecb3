from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sshr_deploy.benchmarks.measuring.memory import PeakMemory

MB = 120
_CHILD = f"import time; block = bytearray({MB} * 10**6); print(flush=True); time.sleep(30)"


def test_memory_that_is_gone_at_the_end_counts() -> None:
    with PeakMemory() as memory:
        before = memory.mb
        block = np.ones(MB * 10**6, np.uint8)
        memory._look()  # as the thread does it, which may come too late on a busy machine
        del block
    assert memory.mb >= before + 0.95 * MB


def test_a_child_counts() -> None:
    with PeakMemory() as memory:
        before = memory.mb
        child = subprocess.Popen([sys.executable, "-c", _CHILD], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        memory._look()
        child.kill()
        child.communicate()
    assert memory.mb >= before + 0.95 * MB


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the system shares none out")
def test_what_processes_share_counts_once(tmp_path: Path) -> None:
    file = tmp_path / "shared"
    file.write_bytes(bytes(MB * 10**6))
    mapped = np.memmap(file, np.uint8, "r")
    mapped.max()
    touch = f"import mmap; m = mmap.mmap(open({str(file)!r}).fileno(), 0, prot=mmap.PROT_READ)"
    code = f"{touch}; m.find(b'x'); print(flush=True); input()"
    with PeakMemory() as memory:
        before = memory.mb
        child = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        child.stdout.readline()
        memory._look()
        child.communicate(b"\n")
    assert memory.mb < before + 0.5 * MB


def test_another_process_is_watched_until_it_ends() -> None:
    child = subprocess.Popen([sys.executable, "-c", _CHILD], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    with PeakMemory(child.pid) as memory:
        found = memory.mb
        child.kill()
        child.communicate()
    assert 0.95 * MB <= found <= memory.mb < 2 * MB
