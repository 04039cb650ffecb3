"""A contender's process: how long it takes, how much memory, and what it found."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import IO, Any

from sshr_deploy.benchmarks.measuring.memory import PeakMemory
from sshr_deploy.errors import SessionError
from sshr_deploy.runtime.machine.clock import Stopwatch

LIMIT_S = 3600.0
"""A contender that takes longer is ended."""
CAN_LIMIT_CORES = hasattr(os, "sched_setaffinity")
_MIB = 1 << 20


@dataclass(frozen=True)
class Finished:
    """What a contender's process took and told."""

    seconds: float
    """From its start to its end."""
    work_s: float
    """Without start-up, by its own clock."""
    tiles: int
    version: str
    peak_mib: float | None
    """Of it and its children together; None where nobody watched."""
    tiles_s: float | None = None
    """From its first tile read to its last label map; ours alone tells it."""
    mask_agreement: float | None = None
    """Share of its mask's pixels that are PyTorch's, by its own check; ours alone tells it."""


def run_process(
    command: Sequence[str],
    environ: Mapping[str, str],
    *,
    watch_memory: bool = False,
    limit_s: float = LIMIT_S,
    cores: int | None = None,
) -> Finished:
    """Run a contender to its end; it is killed, with all that it started, where that fails.

    Memory is that of `PeakMemory`, which is not for runs that are timed. With `cores`, which needs
    `CAN_LIMIT_CORES`, it and its children have no others.

    Raises:
        SessionError: it fails, takes too long, or does not tell what it found.
        OSError: it cannot be started.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        watch = Stopwatch()
        with _on_cores(cores):
            child = subprocess.Popen(
                command,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,  # a group to end as one
            )
        timer, memory = threading.Timer(limit_s, _end, [child]), PeakMemory(child.pid)
        timer.start()
        try:
            with memory if watch_memory else nullcontext():
                code = child.wait()
                seconds = watch.seconds()
        finally:
            timer.cancel()
            _end(child)
        if code == -signal.SIGKILL and seconds >= limit_s:
            raise SessionError(f"it took longer than {limit_s:g} s and was ended")
        if code:
            raise SessionError(f"it failed: {_last_line(err) or f'exit code {code}'}")
        told = _told(_last_line(out))
    return Finished(seconds, peak_mib=memory.mb * 1e6 / _MIB if watch_memory else None, **told)


@contextmanager
def _on_cores(cores: int | None) -> Iterator[None]:
    """What this thread starts inside has so many cores."""
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:cores])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _end(child: subprocess.Popen[bytes]) -> None:
    """End what is left of the child's group, also where the child itself has ended."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _last_line(file: IO[bytes]) -> str:
    file.seek(0)
    lines = file.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1].strip()[:300] if lines else ""


def _told(line: str) -> dict[str, Any]:
    try:
        told = json.loads(line)
        return {
            "work_s": float(told["work_s"]),
            "tiles": int(told["tiles"]),
            "version": str(told["version"]),
            **{name: float(told[name]) for name in ("tiles_s", "mask_agreement") if name in told},
        }
    except (ValueError, TypeError, KeyError) as error:
        raise SessionError(f"it does not tell what it found, but {line!r}") from error
