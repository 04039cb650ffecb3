from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sshr_deploy.benchmarks.measuring.memory import PeakMemory

MB = 120
_CHILD = f"import time; block = bytearray({MB} * 10**6); print(flush=True); time.sleep(30)"


def started(code: str) -> subprocess.Popen[bytes]:
    """A small Python of its own: pytest's process has neighbours whose memory comes and goes."""
    return subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def goes_on(child: subprocess.Popen[bytes]) -> None:
    """Let it pass its next `input()`, and wait for what it prints then."""
    assert child.stdin is not None and child.stdout is not None
    child.stdin.write(b"\n")
    child.stdin.flush()
    child.stdout.readline()


def test_memory_that_is_gone_at_the_end_counts() -> None:
    take = f"input(); block = bytearray({MB} * 10**6); print(flush=True)"
    child = started(f"{take}\ninput(); del block; print(flush=True)\ninput()")
    with PeakMemory(child.pid) as memory:
        before = memory.mb
        goes_on(child)
        memory.look()  # as the thread does it, which may come too late on a busy machine
        goes_on(child)
        child.communicate(b"\n")
    assert memory.mb >= before + 0.95 * MB


def test_a_child_counts() -> None:
    begin = f"subprocess.Popen([sys.executable, '-c', {_CHILD!r}], stdout=subprocess.PIPE)"
    child = started(
        f"import subprocess, sys; input(); child = {begin}; child.stdout.readline()\n"
        "print(flush=True); input(); child.kill(); child.communicate()"
    )
    with PeakMemory(child.pid) as memory:
        before = memory.mb
        goes_on(child)
        memory.look()
        child.communicate(b"\n")
    assert memory.mb >= before + 0.95 * MB


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the system shares none out")
def test_what_processes_share_counts_once(tmp_path: Path) -> None:
    file = tmp_path / "shared"
    file.write_bytes(bytes(MB * 10**6))
    touch = "m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)"
    said = "os.write(1, b'%d\\n' % m.find(b'x'))"  # in one piece: two processes write
    child = started(
        f"import mmap, os, time; f = open({str(file)!r}, 'rb'); {touch}; pid = os.fork(); {said}\n"
        "if pid: input(); os.kill(pid, 9); os.wait()\n"
        "else: time.sleep(30)"
    )
    assert child.stdout is not None
    assert [child.stdout.readline() for _ in range(2)] == [b"-1\n"] * 2
    with PeakMemory(child.pid) as memory:
        memory.look()
        child.communicate(b"\n")
    assert 0.95 * MB <= memory.mb < 1.5 * MB


def test_another_process_is_watched_until_it_ends() -> None:
    child = subprocess.Popen([sys.executable, "-c", _CHILD], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    with PeakMemory(child.pid) as memory:
        found = memory.mb
        child.kill()
        child.communicate()
    assert 0.95 * MB <= found <= memory.mb < 2 * MB
