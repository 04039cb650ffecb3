"""How many CPU threads this process computes with, and how they wait for each other.

PyTorch, OpenCV and ONNX Runtime each have a pool of their own and take every core. Their threads
wait busily, so that on a machine with other work each holds up what the others wait for: a training
step of width 8 took 11 to 17 s with two such threads at a load of 8 on two cores, 0.9 s with two
that sleep, and 0.33 s with either on quiet ones. So threads sleep here, and are no more than the
work feeds. PyTorch's are OpenMP's, which is told when it is loaded: the command line does it.
"""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sshr_deploy.errors import UsageError, check_count, counted

_OPENMP = "OMP_NUM_THREADS"
MAX_THREADS = 1024

_WIDTH_SQUARED_A_THREAD = 32
"""A convolution's work grows with the square of the width. Two threads over one, 2 quiet cores (AMD
EPYC): ONNX Runtime 0.97 at width 2, 1.36 at width 8; a training step 0.6 and 1.3."""

_NARROW = 8
"""Widest network whose calls run beside each other; see `choose_streams`. Two calls of one thread
over one of two, ONNX Runtime at width 8 on 2 cores (AMD EPYC): a patch 26 ms instead of 31.5, with
8 to 14 % less processor time; a field of 896 px gains nothing."""

_CGROUP_QUOTAS = (
    Path("/sys/fs/cgroup/cpu.max"),  # version 2: "200000 100000" or "max 100000"
    Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"),  # version 1, its period in a file beside it
)


@dataclass(frozen=True)
class Threads:
    """A number of CPU threads, and what chose it."""

    count: int
    chosen_by: str
    """"--threads", "OMP_NUM_THREADS", "the run" or "width 8, 2 cores"."""

    def __str__(self) -> str:
        return f"{counted(self.count, 'CPU thread')} ({self.chosen_by})"


_in_use: Threads | None = None


def usable_cores() -> int:
    """Cores that this process may use, at least 1.

    A scheduler may have bound it to a few (affinity), a container may have a share (cgroup quota).
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = _cgroup_cores(_CGROUP_QUOTAS)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def choose_threads(width: int, wish: int | None = None, *, processes: int = 1) -> Threads:
    """Threads for a network of `width`: the wish, OMP_NUM_THREADS, or what cores and work allow.

    Args:
        width: channels of the first convolution.
        wish: of the user; None chooses.
        processes: that share this machine's cores.

    Raises:
        UsageError: the wish or OMP_NUM_THREADS is no whole number from 1 on.
    """
    if wish is not None:
        check_count("threads", wish, MAX_THREADS)
        return Threads(wish, "--threads")
    if text := os.environ.get(_OPENMP, "").strip():
        first = text.partition(",")[0]  # more are for nested regions
        if not first.isdecimal() or not 1 <= int(first) <= MAX_THREADS:
            raise UsageError(f"{_OPENMP}={text}: set a number from 1 to {MAX_THREADS}, or unset it")
        return Threads(int(first), _OPENMP)
    cores = max(1, usable_cores() // processes)
    count = min(cores, fed_threads(width))
    return Threads(count, f"width {width}, {cores} core{'s' * (cores > 1)}")


def fed_threads(width: int) -> int:
    """Threads that a network of `width` has work for."""
    return max(1, width**2 // _WIDTH_SQUARED_A_THREAD)


def choose_streams(wish: int | None, width: int, *, patches: bool) -> int:
    """Calls of an engine at the same time, of the threads in use: the wish, or what is faster.

    Calls of a thread each need not wait for each other at every operation, as threads of one call
    do, which costs most where operations are short.

    Args:
        wish: of the user; None chooses.
        width: channels of the network's first convolution.
        patches: its inputs are patches, not fields.

    Where the library chooses its threads, one call has them all unless there is a wish.

    Raises:
        UsageError: the wish is more than there are threads.
    """
    threads = _shared_threads()
    if wish is not None and wish > threads:
        raise UsageError(
            f"`streams` is {wish}, each needs a CPU thread and there "
            f"{'is' if threads == 1 else 'are'} {threads}; give fewer, or more `threads`"
        )
    if wish is not None:
        return wish
    return threads if _in_use is not None and patches and width <= _NARROW else 1


def _shared_threads() -> int:
    return usable_cores() if _in_use is None else _in_use.count


def use_threads(threads: Threads) -> None:
    """Let OpenCV, PyTorch if it is loaded, and sessions that are opened from now on have so many.

    NumPy's matrix products and PyTorch's pool for whole operations have nothing to do in this
    package, so their sizes are left alone.
    """
    global _in_use
    _in_use = threads
    import cv2  # here, because the doctor asks for the cores and imports nothing heavy

    cv2.setNumThreads(threads.count)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(threads.count)


def threads_in_use() -> Threads | None:
    """The threads that `use_threads` set last; None leaves each library its own choice."""
    return _in_use


def onnxruntime_options(options: Any, streams: int = 1) -> None:
    """Set the threads of a session about to be opened, in its `onnxruntime.SessionOptions`.

    Each of `streams` calls at the same time gets an equal share of them.

    None of them spins: at width 8 a patch took 37 ms so and 35 ms spinning on two quiet cores, 182
    and 272 ms at a load of 6. And they would spin for 0.1 s into the turn of the next session.
    """
    if _in_use is not None or streams > 1:
        options.intra_op_num_threads = max(1, _shared_threads() // streams)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")


def _cgroup_cores(places: tuple[Path, Path]) -> float | None:
    """The quota in cores, 1.5 and so on; None without one."""
    unified, quota_file = places
    try:
        if unified.is_file():
            quota, period = unified.read_text("ascii").split()[:2]
        else:
            quota = quota_file.read_text("ascii").strip()
            period = quota_file.with_name("cpu.cfs_period_us").read_text("ascii").strip()
        cores = float(quota) / float(period)
    except (OSError, ValueError, ZeroDivisionError):  # "max", or no such system
        return None
    return cores if cores > 0 else None  # -1 is none
