"""One run at a time writes into a results folder: a lock file that names its run and shows life."""

from __future__ import annotations

import errno
import os
import platform
import secrets
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import BaseModel, ValidationError

from sshr_deploy.atomic import has_ended, partial_name, remove_abandoned
from sshr_deploy.errors import OutputError, UsageError
from sshr_deploy.runtime.machine.clock import now_utc

LOCK_NAME = ".run.lock"
_BEAT_S = 5.0
_STALE_S = 120.0  # 24 missed beats: a share may be away for a while, a compiler may hold the GIL


class _Holder(BaseModel, frozen=True):
    """Content of the lock file."""

    host: str
    pid: int
    started_utc: str
    token: str


class RunLock:
    """A lock that is held; its file's time is renewed by a thread until it is released."""

    def __init__(self, path: Path, holder: _Holder) -> None:
        self._path, self._holder = path, holder
        self._other: _Holder | None = None  # which has taken over
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="run lock", daemon=True)
        self._thread.start()

    def is_lost(self) -> bool:
        """Whether another run has taken over, also where that one has ended since."""
        with suppress(OSError):  # the server is away
            found = _read(self._path)
            if found not in (None, self._holder):
                self._other = found
        return self._other is not None

    def check(self) -> None:
        """Refuse to go on if another run has taken over.

        That happens where this one gave no sign of life for two minutes: it was suspended, or
        the folder's server was away.

        Raises:
            OutputError: another run writes here now.
        """
        if self.is_lost():
            raise OutputError(
                f"{_who(self._other)} writes into {self._path.parent} now: this run gave no sign "
                f"of life for more than {_STALE_S:.0f} s; let that one finish"
            )

    def release(self) -> None:
        """Remove the file, unless it is another run's by now."""
        self._released.set()
        self._thread.join()
        with suppress(OSError):  # it goes stale
            if _read(self._path) == self._holder:
                self._path.unlink()

    def _beat(self) -> None:
        while not self._released.wait(_BEAT_S):
            with suppress(OSError):  # the server is away: the next beat may reach it
                if not self.is_lost():
                    os.utime(self._path)


@contextmanager
def run_lock(out: Path) -> Iterator[RunLock]:
    """Hold the lock of a results folder, which is made where it is missing.

    A lock whose process is gone, or that gave no sign of life for two minutes (another machine, a
    number that another process has got since), is taken over. Folders that were made and are
    still empty at the end are removed again.

    Raises:
        UsageError: another run writes there, or nothing can be written there.
    """
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    lock: RunLock | None = None
    try:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"`out` {out} cannot be made a folder: {error.strerror}; choose another"
            ) from error
        try:
            lock = RunLock(out / LOCK_NAME, _acquire(out / LOCK_NAME))
        except OSError as error:
            raise UsageError(
                f"`out` {out} cannot take results: {error.strerror}; "
                "choose another folder, or mend its rights or space"
            ) from error
        yield lock
    finally:
        if lock is not None:
            lock.release()
        with suppress(OSError):  # one that is not empty, and so are those around it
            for folder in made:
                folder.rmdir()


def _acquire(path: Path) -> _Holder:
    ours = _Holder(
        host=platform.node(), pid=os.getpid(), started_utc=now_utc(), token=secrets.token_hex(8)
    )
    try:
        _create(path, ours)
    except FileExistsError:
        holder = _read(path)
        if not _is_stale(path, holder):
            raise _held(path, holder) from None
        _remove(path, holder)
        try:
            _create(path, ours)
        except FileExistsError:
            raise _held(path, _read(path)) from None
    return ours


def _create(path: Path, holder: _Holder) -> None:
    file = path.open("x", encoding="utf-8")
    try:
        with file:
            file.write(holder.model_dump_json())
    except BaseException:
        with suppress(OSError):  # must not hide the first error
            path.unlink()
        raise


def _remove(path: Path, holder: _Holder | None) -> None:
    """Remove the lock of `holder`, but not that of a run which has taken over since it was read."""
    remove_abandoned(path.parent, f"{LOCK_NAME}.*")
    moved = path.with_name(partial_name(path.name))
    try:
        path.replace(moved)
    except FileNotFoundError:
        return
    other = _read(moved)
    if other != holder:
        moved.replace(path)
        raise _held(path, other)
    moved.unlink()


def _held(path: Path, holder: _Holder | None) -> UsageError:
    return UsageError(
        f"{_who(holder)} writes into {path.parent}: wait for it, or choose another `out`"
    )


def _is_stale(path: Path, holder: _Holder | None) -> bool:
    """Whether the run that holds the lock is gone."""
    if holder is not None and holder.host == platform.node() and has_ended(holder.pid):
        return True
    now = path.with_name(partial_name(path.name))  # the folder's server may have another clock
    try:
        now.touch()
        # A time in the future is that of a clock which was set back.
        return abs(now.stat().st_mtime - path.stat().st_mtime) > _STALE_S
    except FileNotFoundError:
        return True  # released meanwhile
    finally:
        now.unlink(missing_ok=True)


def _read(path: Path) -> _Holder | None:
    """None where it is gone, or is being written this moment.

    Raises:
        OSError: it cannot be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise OSError(errno.EINVAL, f"{path.name} there is no regular file; move it away")
        return _Holder.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _who(holder: _Holder | None) -> str:
    if holder is None:
        return "another run"
    return (
        f"process {holder.pid} on {holder.host or 'another machine'} (since {holder.started_utc})"
    )
