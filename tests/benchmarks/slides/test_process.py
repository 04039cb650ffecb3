from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import psutil
import pytest

from sshr_deploy.benchmarks.slides.process import CAN_LIMIT_CORES, Finished, run_process
from sshr_deploy.errors import SessionError

TELL = 'print("chatter"); print(\'{"work_s": 0.25, "tiles": 3, "version": "x 1"}\')'


def run(
    code: str,
    *,
    watch_memory: bool = False,
    limit_s: float = 60.0,
    path: str = "",
    cores: int | None = None,
) -> Finished:
    environ = {**os.environ, "GIVEN": path}
    command = [sys.executable, "-I", "-S", "-c", code]
    return run_process(command, environ, watch_memory=watch_memory, limit_s=limit_s, cores=cores)


def test_the_last_line_is_what_it_found() -> None:
    found = run(TELL)
    assert (found.work_s, found.tiles, found.version) == (0.25, 3, "x 1")
    assert 0 < found.seconds < 60
    assert found.peak_mib is None


def test_memory_of_children_counts() -> None:
    holds = "import time; block = bytearray(64 << 20); time.sleep(0.8)"
    code = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {holds!r}])\n{TELL}"
    found = run(code, watch_memory=True)
    assert found.peak_mib is not None
    assert found.peak_mib > 64


@pytest.mark.skipif(not CAN_LIMIT_CORES, reason="the system has no affinity of processes")
def test_it_and_its_children_have_so_many_cores(tmp_path: Path) -> None:
    before, file = os.sched_getaffinity(0), tmp_path / "cores"
    count = "import os; print(len(os.sched_getaffinity(0)))"
    code = (
        "import os, subprocess, sys\n"
        f"found = subprocess.check_output([sys.executable, '-c', {count!r}], text=True)\n"
        f"open(os.environ['GIVEN'], 'w').write(found)\n{TELL}"
    )
    run(code, path=str(file), cores=1)
    assert file.read_text().strip() == "1"
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("import sys; print('a'); sys.exit('no such slide')", "it failed: no such slide"),
        ("import os; os._exit(3)", "it failed: exit code 3"),
        ("print('done')", "it does not tell what it found, but 'done'"),
        ("pass", "it does not tell what it found, but ''"),
        ("print('{\"work_s\": 1}')", "it does not tell what it found"),
    ],
)
def test_a_failure_is_told_in_one_line(code: str, problem: str) -> None:
    with pytest.raises(SessionError, match=problem):
        run(code)


def test_one_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    sleep = "import time; time.sleep(60)"
    code = (
        "import os, subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {sleep!r}])\n"
        "open(os.environ['GIVEN'], 'w').write(str(child.pid))\n"
        "time.sleep(60)"
    )
    with pytest.raises(SessionError, match="longer than 3 s and was ended"):
        run(code, limit_s=3.0, path=str(pids))
    grandchild = int(pids.read_text())
    for _ in range(100):
        if not psutil.pid_exists(grandchild) or _is_zombie(grandchild):
            return
        time.sleep(0.02)
    pytest.fail("the grandchild lives on")


def _is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
