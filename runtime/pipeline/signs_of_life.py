"""Files by which a process shows others, on any machine that sees the folder, that it lives.

Such a file names its process, and its time is renewed every few seconds. Its process is gone where
it has ended on this machine, or where the file gave no sign of life for two minutes: it runs on
another machine that is off, was suspended, or its number is another process's by now.
"""

from __future__ import annotations

import errno
import os
import platform
import secrets
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, JsonValue, ValidationError

from sshr_deploy.atomic import has_ended, partial_name, remove_abandoned
from sshr_deploy.runtime.machine.clock import now_utc

BEAT_S = 5.0
STALE_S = 120.0  # 24 missed beats: a share may be away for a while, a compiler may hold the GIL


class Holder(BaseModel, frozen=True):
    """Content of such a file."""

    host: str
    pid: int
    started_utc: str
    token: str
    """By chance, of this process or a part of it."""
    terms: dict[str, JsonValue] | None = None
    """All that others must have in common with it to share its folder; None for nobody."""

    @classmethod
    def new(cls, terms: dict[str, JsonValue] | None = None) -> Holder:
        """This process, under a new token."""
        return cls(
            host=platform.node(),
            pid=os.getpid(),
            started_utc=now_utc(),
            token=secrets.token_hex(8),
            terms=terms,
        )


class SignOfLife:
    """A file of this process whose time a thread renews until it is `removed`."""

    def __init__(self, path: Path, holder: Holder, on_beat: Callable[[], None]) -> None:
        """Go on with a file that `create` made; `on_beat` is called by the thread."""
        self._path, self._holder, self._on_beat = path, holder, on_beat
        self._lost = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="sign of life", daemon=True)
        self._thread.start()

    def is_lost(self) -> bool:
        """Whether another process took this one for dead, and removed or replaced the file."""
        with suppress(OSError):  # the folder's server is away
            self._lost = self._lost or read(self._path) != self._holder
        return self._lost

    def remove(self) -> None:
        """End the thread, and remove the file unless it is another's by now."""
        self._ended.set()
        self._thread.join()
        with suppress(OSError):  # it goes stale
            if not self.is_lost():
                self._path.unlink()

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            with suppress(OSError):  # the server is away: the next beat may reach it
                if not self.is_lost():
                    os.utime(self._path)
                    self._on_beat()


def create(path: Path, holder: Holder) -> None:
    """Make the file of a holder.

    Raises:
        FileExistsError: there is one.
        OSError: it cannot be made.
    """
    file = path.open("x", encoding="utf-8")
    try:
        with file:
            file.write(holder.model_dump_json())
    except BaseException:
        with suppress(OSError):  # must not hide the first error
            path.unlink()
        raise


def read(path: Path) -> Holder | None:
    """Whose file it is; None where it is gone, or is being written this moment.

    Raises:
        OSError: it cannot be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise OSError(errno.EINVAL, f"{path.name} there is no regular file; move it away")
        return Holder.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def remove_stale(path: Path, holder: Holder | None) -> None:
    """Remove the file of `holder`, but not one that took its place since it was read.

    Raises:
        OSError: it cannot be removed.
    """
    remove_abandoned(path.parent, f"{path.name}.*")
    if read(path) != holder:
        return  # another's by now, who must not miss it even for a moment
    moved = path.with_name(partial_name(path.name))
    with suppress(FileNotFoundError):
        path.replace(moved)
        if read(moved) == holder:
            moved.unlink()
        else:
            moved.replace(path)


def is_stale(path: Path, holder: Holder | None) -> bool:
    """Whether the process is gone whose file it is, or the file.

    Raises:
        OSError: the folder cannot be read or written.
    """
    try:
        return is_abandoned(path, holder)
    except FileNotFoundError:
        return True  # removed meanwhile


def is_abandoned(path: Path, holder: Holder | None) -> bool:
    """Whether the process is gone that left its file there.

    Raises:
        FileNotFoundError: the file is gone.
        OSError: the folder cannot be read or written.
    """
    if holder is not None and holder.host == platform.node() and has_ended(holder.pid):
        return True
    now = path.with_name(partial_name(path.name))  # the folder's server may have another clock
    try:
        now.touch()
        # A time in the future is that of a clock which was set back.
        return abs(now.stat().st_mtime - path.stat().st_mtime) > STALE_S
    finally:
        now.unlink(missing_ok=True)


def who(holder: Holder | None) -> str:
    """The holder as messages name it."""
    if holder is None:
        return "another run"
    return (
        f"process {holder.pid} on {holder.host or 'another machine'} (since {holder.started_utc})"
    )
