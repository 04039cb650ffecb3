from __future__ import annotations

import subprocess
import sys

import numpy as np

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
