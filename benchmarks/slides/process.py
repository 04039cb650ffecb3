"""A contender's process: how long it takes, how much memory, and what it found."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

import psutil

from sshr_deploy.errors import SessionError
from sshr_deploy.runtime.machine.clock import Stopwatch

LIMIT_S = 3600.0
"""A contender that takes longer is ended."""
_WATCH_S = 0.1
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
) -> Finished:
    """Run a contender to its end; it is killed, with all that it started, where that fails.

    Memory is counted as the system shares it out (PSS): what several processes have in common
    counts once. Watching costs the process some time, so it is not for runs that are timed.

    Raises:
        SessionError: it fails, takes too long, or does not tell what it found.
        OSError: it cannot be started.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        watch = Stopwatch()
        child = subprocess.Popen(
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,  # a group to end as one
        )
        timer, memory = threading.Timer(limit_s, _end, [child]), _MemoryWatch(child.pid)
        timer.start()
        try:
            if watch_memory:
                memory.start()
            code = child.wait()
            seconds = watch.seconds()
        finally:
            timer.cancel()
            memory.stop()
            _end(child)
        if code == -signal.SIGKILL and seconds >= limit_s:
            raise SessionError(f"it took longer than {limit_s:g} s and was ended")
        if code:
            raise SessionError(f"it failed: {_last_line(err) or f'exit code {code}'}")
        told = _told(_last_line(out))
    return Finished(seconds, peak_mib=memory.peak_mib if watch_memory else None, **told)


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


class _MemoryWatch(threading.Thread):
    """Looks often at the memory of a process and its children."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.peak_mib = 0.0
        self._pid, self._ended = pid, threading.Event()

    def run(self) -> None:
        """Look until `stop`."""
        while not self._ended.wait(_WATCH_S):
            self.peak_mib = max(self.peak_mib, _memory_mib(self._pid))

    def stop(self) -> None:
        """End it; it need not have started."""
        self._ended.set()
        if self.is_alive():
            self.join()


def _memory_mib(pid: int) -> float:
    total = 0
    with suppress(psutil.Error):
        for process in (root := psutil.Process(pid), *root.children(recursive=True)):
            with suppress(psutil.Error):  # it has ended meanwhile
                memory = process.memory_full_info()
                total += getattr(memory, "pss", memory.rss)
    return total / _MIB
