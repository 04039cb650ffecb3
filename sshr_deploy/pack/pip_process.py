"""pip in a process of its own, with the configuration of whoever packs; its errors in one line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from sshr_deploy.errors import OutputError, UsageError

_NOT_FOUND = re.compile(r"No matching distribution found for (.+)")


class NotFoundError(UsageError):
    """pip finds no file for a requirement."""

    def __init__(self, requirement: str, text: str) -> None:
        super().__init__(text)
        self.requirement = requirement


def run_pip(arguments: Sequence[str], what: str, work: Path) -> None:
    """Run pip; `what` is what it works on, `work` the folder for its temporary files and its log.

    Where stderr is a terminal, pip shows its own progress there.

    Raises:
        NotFoundError: no index or folder that pip knows has a file for a requirement.
        OutputError: the disk is full.
        UsageError: pip failed otherwise, or is not installed.
    """
    temporary = work / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "pip",
        *arguments,
        "--no-input",
        "--log",
        str(work / "pip.log"),
    ]
    done = subprocess.run(
        command,
        env={**os.environ, "TMPDIR": str(temporary), "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        raise _error(done.stderr, what, work / "pip.log")


def _error(stderr: str, what: str, log: Path) -> UsageError | OutputError:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    if "No space left on device" in stderr:
        return OutputError(f"pip cannot fetch {what}: the disk is full; free space beside `out`")
    if "No module named pip" in stderr:
        return UsageError(f"{sys.executable} has no pip; run it with -m ensurepip first")
    missing = _NOT_FOUND.search(stderr)
    if missing and "Retrying" in stderr:
        return UsageError(
            f"pip could not reach its index for {missing[1]}; check the network and pip's "
            f"configuration (pip config list); its own words are in {log}"
        )
    if missing:
        requirement = missing[1].strip()
        return NotFoundError(requirement, f"pip finds no wheel of {requirement} for {what}")
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    reason = (errors or lines[-1:] or ["it says no reason"])[0]
    return UsageError(f"pip failed at {what}: {reason[:300]}; its own words are in {log}")
