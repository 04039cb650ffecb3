from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sshr_deploy.runtime.machine.child_process import run_child


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_exit_code_and_both_outputs() -> None:
    code = "import sys; print('out é'); sys.stderr.write('err'); sys.exit(7)"
    environ = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    assert run_child(python(code), 30.0, environ) == (7, "out é\n", "err")


def test_it_reads_nothing() -> None:
    assert run_child(python("print(repr(input()))"), 30.0)[0] == 1  # EOFError


def test_it_gets_the_environment_that_is_given() -> None:
    code = "import os; print(os.environ.get('WANTED'))"
    assert run_child(python(code), 30.0, {**os.environ, "WANTED": "yes"})[1] == "yes\n"


def test_a_program_that_hangs_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    code = f"import os, time; open({str(file)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    with pytest.raises(subprocess.TimeoutExpired):
        run_child(python(code), 4.0)
    if os.name != "nt":
        with pytest.raises(ProcessLookupError):
            os.kill(int(file.read_text()), 0)


def test_a_grandchild_that_holds_the_pipes_is_not_waited_for() -> None:
    sleep = f"[{sys.executable!r}, '-c', 'import time; time.sleep(20)']"
    code = f"import subprocess, time; subprocess.Popen({sleep}); time.sleep(600)"
    with pytest.raises(subprocess.TimeoutExpired):
        run_child(python(code), 2.0)


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        run_child([str(tmp_path / "nothing")], 1.0)
