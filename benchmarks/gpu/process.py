"""Runs one part of `gpu.check` in a process of its own and keeps what it measured, come what may.

An illegal access ends the CUDA context of its process, and a hung driver call never returns:
neither may cost the parts that follow.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import IO, Any, Literal

import sshr_deploy

_REAP_S = 5.0
"""A killed process that is still there then is one that a driver holds."""
_LINES = 40
"""Of a failed part's output, kept in the report."""


@dataclass(frozen=True)
class CheckPart:
    """Something to measure or to check."""

    name: str
    target: str
    """Its function, "package.module:function"; gets a `PartOutput` and may return figures."""
    limit_s: float
    """Seconds after which it is killed."""
    least_s: float = 20.0
    """Seconds that have to be left for it to begin."""
    needs_bundle: bool = False
    """It measures the bundle that the environment variable BUNDLE names."""
    stands_in: bool = False
    """It measures a network with random weights where parts that need a bundle have none."""


@dataclass
class Outcome:
    """How a part ended, and its rows."""

    state: Literal["done", "failed", "left_out", "interrupted"]
    reason: str = ""
    """Of anything but "done"; one line."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    output: list[str] = field(default_factory=list)
    """The last lines that it printed."""


def run_part(part: CheckPart, limit_s: float, document: Path | None = None) -> Outcome:
    """Run `part`, and kill it with all processes that it started after `limit_s` seconds.

    A part that is a benchmark of the common form keeps its document in the file `document`.
    Ctrl-C kills it too: the outcome is "interrupted" then, with the rows so far.
    """
    began = time.monotonic()
    printed: deque[str] = deque(maxlen=_LINES)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        file = Path(folder) / "rows"
        child = _start(part, file, limit_s, document)
        relay = Thread(target=_relay, args=(child.stdout, printed), daemon=True)
        stopped: Outcome | None = None
        try:
            relay.start()
            child.wait(limit_s)
        except subprocess.TimeoutExpired:
            stopped = Outcome("failed", f"took longer than {limit_s:.3g} s and was killed")
        except KeyboardInterrupt:
            stopped = Outcome("interrupted", "interrupted")
        finally:
            _kill(child)
        relay.join(_REAP_S)
        if child.stdout is not None and not relay.is_alive():
            child.stdout.close()
        outcome = _read(file, child.returncode, stopped)
    outcome.seconds = round(time.monotonic() - began, 1)
    outcome.output = list(printed)
    return outcome


def _start(
    part: CheckPart, file: Path, limit_s: float, document: Path | None
) -> subprocess.Popen[str]:
    packages = str(Path(sshr_deploy.__file__).parent.parent)
    path = os.pathsep.join(filter(None, (packages, os.environ.get("PYTHONPATH"))))
    module = "sshr_deploy.benchmarks.gpu.child"
    return subprocess.Popen(
        [sys.executable, "-m", module, part.target, str(file), str(limit_s), str(document or "")],
        env=os.environ | {"PYTHONPATH": path},
        stdin=subprocess.PIPE,  # its end tells the child that this process is gone
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # a group to kill as one
    )


def _relay(lines: IO[str] | None, printed: deque[str]) -> None:
    for line in lines or ():
        printed.append(line.rstrip("\n"))
        with suppress(OSError):  # nobody reads on; the child must not wait for that
            print(line, end="", file=sys.stderr, flush=True)


def _kill(child: subprocess.Popen[str]) -> None:
    """Kill what is left of the child's group, also where the child itself has ended."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        child.wait(_REAP_S)
    if child.stdin is not None:
        child.stdin.close()


def _read(file: Path, code: int | None, stopped: Outcome | None) -> Outcome:
    """The outcome by what is in the child's file, or else by how the child ended."""
    text = file.read_text("utf-8") if file.exists() else ""
    found = [json.loads(line) for line in text.split("\n")[:-1]]  # the last may be cut off
    rows = [entry["row"] for entry in found if "row" in entry]
    last = found[-1] if found else {}
    if stopped is not None and stopped.state == "interrupted":
        return Outcome("interrupted", stopped.reason, rows, last.get("done", {}))
    if "done" in last:
        return Outcome("done", "", rows, last["done"])
    if "left_out" in last:
        return Outcome("left_out", last["left_out"], rows)
    if "failed" in last:
        return Outcome("failed", last["failed"], rows)
    outcome = stopped or Outcome("failed", _how_it_ended(code))
    outcome.rows = rows
    return outcome


def _how_it_ended(code: int | None) -> str:
    if code is not None and code < 0:
        with suppress(ValueError):
            return f"its process died of {signal.Signals(-code).name}"
    return f"its process ended with exit code {code} and no result"
