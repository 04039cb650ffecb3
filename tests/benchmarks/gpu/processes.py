"""Processes that tests started: whether they run, and whether they are gone."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

_PATIENCE_S = 30.0


def wait_for_two(pids: Path) -> None:
    """Wait until the file holds the numbers of two processes."""
    _wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 2)


def check_gone(pids: Path) -> None:
    """The processes whose numbers are in the file end, or have ended."""
    for pid in pids.read_text().split():
        _wait_for(lambda stat=Path(f"/proc/{pid}/stat"): not _is_running(stat))  # type: ignore[misc]


def _is_running(stat: Path) -> bool:
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _wait_for(true: Callable[[], bool]) -> None:
    end = time.monotonic() + _PATIENCE_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)
