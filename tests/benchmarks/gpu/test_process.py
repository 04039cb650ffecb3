"""One part in a process of its own: what is kept however it ends, and what is left running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sshr_deploy.benchmarks.gpu.process import CheckPart, Outcome, run_part
from tests.benchmarks.gpu.processes import check_gone, wait_for_two
from tests.benchmarks.gpu.stand_ins import HERE, ROW

pytestmark = pytest.mark.skipif(os.name == "nt", reason="process groups")


def outcome_of(function: str, limit_s: float = 30.0) -> Outcome:
    return run_part(CheckPart(function, f"{HERE}:{function}", limit_s), limit_s)


def test_rows_and_figures_come_back() -> None:
    outcome = outcome_of("right")
    assert (outcome.state, outcome.rows) == ("done", [ROW])
    assert outcome.figures == {"summary": "all right"}


@pytest.mark.parametrize(
    ("function", "state", "reason", "rows"),
    [
        ("crash", "failed", "its process died of SIGABRT", [ROW]),
        ("break_off", "failed", "its process died of SIGABRT", [ROW]),
        ("leave", "failed", "its process ended with exit code 0 and no result", []),
        ("refuse", "failed", "fused is off by 1e+00", []),
        ("fail", "failed", "RuntimeError: CUDA error", [ROW]),
        ("nan", "failed", "ValueError: Out of range float values are not JSON compliant", [ROW]),
        ("need", "left_out", "pydantic is not installed", []),
        (
            "need_extra",
            "left_out",
            "cuda-core is not installed: pip install 'sshr-deploy[gpu]'",
            [],
        ),
        ("missing", "failed", f"AttributeError: module '{HERE}' has no attribute 'missing'", []),
    ],
)
def test_what_is_kept(function: str, state: str, reason: str, rows: list[object]) -> None:
    outcome = outcome_of(function)
    assert (outcome.state, outcome.rows) == (state, rows)
    assert outcome.reason.startswith(reason)


def test_a_crash_shows_where_it_was() -> None:
    outcome = outcome_of("crash")
    assert any("stand_ins.py" in line and "in crash" in line for line in outcome.output)


def test_ctrl_c_keeps_the_rows_and_leaves_nothing_running(pids: Path) -> None:
    def press() -> None:
        wait_for_two(pids)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Thread(target=press).start()
        outcome = outcome_of("hang")
    finally:
        signal.signal(signal.SIGINT, before)
    assert (outcome.state, outcome.rows) == ("interrupted", [ROW])
    check_gone(pids)


def test_a_part_ends_with_the_process_that_started_it(pids: Path, repo_root: Path) -> None:
    code = "from sshr_deploy.benchmarks.gpu.process import CheckPart, run_part\n"
    code += f"run_part(CheckPart('hang', '{HERE}:hang', 60), 60)"
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=repo_root)
    try:
        wait_for_two(pids)
    finally:
        parent.kill()
        parent.wait()
    check_gone(pids)
