"""A queue is for one watch at a time."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from sshr_deploy.atomic import has_ended
from sshr_deploy.errors import UsageError
from sshr_deploy.runtime.watch import queue_file
from sshr_deploy.runtime.watch.queue import Queue, Watcher

SILENT_S = 120.0
"""A watch of another machine that gave no sign of life for so long is gone."""


@contextmanager
def own_queue(path: Path) -> Iterator[Queue]:
    """The queue at `path`, made where it is missing, for this process alone to watch with.

    The system frees the lock of a process that is killed. It does not reach other machines: a sign
    of life in the queue tells of theirs.

    Raises:
        UsageError: another watch has it, or it cannot be used.
        OutputError: it cannot be made.
    """
    path = path.absolute()
    lock = filelock.FileLock(path.with_name(f".{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        with Queue(path) as queue:
            raise _taken(path, queue.watcher()) from None
    except OSError as error:
        raise UsageError(
            f"the queue {path} cannot be made: {error.strerror}; give another `queue`"
        ) from error
    try:
        if not path.exists():
            queue_file.make(path)
        with Queue(path) as queue:
            other = queue.watcher()
            if other is not None and other.host != platform.node() and is_alive(other):
                raise _taken(path, other)
            yield queue
    finally:
        lock.release()


def is_alive(watcher: Watcher) -> bool:
    """Whether it gave a sign of life lately, and is there as far as this machine can tell."""
    gone = watcher.host == platform.node() and has_ended(watcher.pid)
    return not gone and time.time() - watcher.beat_s <= SILENT_S


def _taken(path: Path, watcher: Watcher | None) -> UsageError:
    who = "" if watcher is None else f" (process {watcher.pid} on {watcher.host})"
    return UsageError(
        f"another watch{who} uses the queue {path}: end it, or give each its own `queue`, on a "
        "disk of its machine"
    )
