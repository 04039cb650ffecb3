"""Slides as they arrive: found, settled, changed or gone; put down in the queue.

A slide has settled when none of its files changed its size or time for a while. That is timed by
this process alone: after a restart it begins anew, since whoever writes the file may have been
killed with it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sshr_deploy.runtime.operation.events import Code, Events
from sshr_deploy.runtime.pipeline.discovery import Input
from sshr_deploy.runtime.settings import InferSettings
from sshr_deploy.runtime.watch.queue import Queue, QueuedSlide, State
from sshr_deploy.runtime.watch.scanning import Files, Scan, WatchedFolder, scan

_FIRST_LOOK_S, _LAST_LOOK_S = 10.0, 300.0  # between looks at a folder that is lost
_TO_DO = (State.SETTLING, State.WAITING, State.FAILED)

Tell = Callable[[], None]


@dataclass
class _Lost:
    """A folder that cannot be read."""

    next_look_s: float
    pause_s: float = _FIRST_LOOK_S


class Arrivals:
    """Looks through watched folders; for one thread, but for `lost`."""

    def __init__(
        self,
        queue: Queue,
        folders: Sequence[WatchedFolder],
        out: Path,
        events: Events,
        settings: InferSettings,
        *,
        settle_s: float,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Results go below `out`, which is not searched; `settings` choose among the slides."""
        self._settings = settings
        self._queue, self._folders, self._out, self._events = queue, folders, out, events
        self._settle_s, self._clock_s = settle_s, clock_s
        self._since: dict[Path, tuple[str, float]] = {}  # how long each that settles is the same
        self._lost: dict[Path, _Lost] = {}
        self._said: list[Tell] = []

    @property
    def lost(self) -> tuple[Path, ...]:
        """Folders that could not be read when they were last looked at; for any thread."""
        return tuple(self._lost)

    def poll(self) -> None:
        """Look through all folders.

        Raises:
            OutputError: the queue cannot be written.
        """
        for folder in self._folders:
            self._look(folder)

    def _look(self, folder: WatchedFolder) -> None:
        lost = self._lost.get(folder.path)
        if lost is not None and self._clock_s() < lost.next_look_s:
            return
        try:
            found = scan(folder, self._out, self._settings)
        except OSError as error:
            self._lose(folder.path, error.strerror or str(error))
            return
        self._said.clear()
        with self._queue.writing():  # slides are taken, ended and skipped during the scan
            known = {s.path: s for s in self._queue.slides() if s.folder == folder.path}
            is_away = found.is_empty and any(slide.state in _TO_DO for slide in known.values())
            if not is_away:
                for item, files in found.slides.items():
                    self._see(folder, item, files, known.get(item.path))
                self._miss(found, known)
        if is_away:
            self._lose(folder.path, "it is empty, and slides of it wait: is the share mounted?")
            return
        if lost is not None:
            del self._lost[folder.path]
            self._events.emit(Code.FOLDER_BACK, folder.path)
        for tell in self._said:  # once it is on the disk
            tell()

    def _lose(self, folder: Path, reason: str) -> None:
        lost, now_s = self._lost.get(folder), self._clock_s()
        if lost is None:
            self._lost[folder] = _Lost(now_s + _FIRST_LOOK_S)
            self._events.emit(Code.FOLDER_LOST, folder, reason=reason)
            return
        lost.pause_s = min(2 * lost.pause_s, _LAST_LOOK_S)
        lost.next_look_s = now_s + lost.pause_s

    def _see(
        self, folder: WatchedFolder, item: Input, files: Files, known: QueuedSlide | None
    ) -> None:
        path, now_s = item.path, time.time()
        if known is None:
            if not os.path.lexists(path):
                return  # taken away since the scan, and dropped where it was known
            slide = _new(folder, item, files, now_s)
            self._queue.add(slide)
            self._since[path] = files.signature, self._clock_s()
            self._tell(Code.SLIDE_FOUND, path, bytes=files.bytes)
        elif known.state is State.SETTLING:
            if not self._has_settled(path, files):
                if known.signature != files.signature:
                    self._queue.move(path, State.SETTLING, **changes_of(files, known.found_s))
            elif not files.lacks:
                del self._since[path]
                self._queue.move(path, State.WAITING, reason="", ready_s=now_s)
                self._tell(Code.SLIDE_READY, path, bytes=files.bytes)
        elif known.signature != files.signature and known.state not in _SETTLED_OTHERWISE:
            self._queue.move(path, State.SETTLING, **changes_of(files, now_s), **AFRESH)
            self._tell(Code.SLIDE_CHANGED, path, state=known.state.value)

    def _has_settled(self, path: Path, files: Files) -> bool:
        now_s = self._clock_s()
        signature, since_s = self._since.get(path, ("", 0.0))
        if signature != files.signature:
            self._since[path] = files.signature, now_s
            return False
        return now_s - since_s >= self._settle_s

    def _miss(self, found: Scan, known: dict[Path, QueuedSlide]) -> None:
        """Take out what is gone; what is done stays, and what runs is seen at its end."""
        seen = {item.path for item in found.slides}
        for path, slide in known.items():
            stays = path in seen or slide.state in (State.RUNNING, State.DONE)
            if stays or any(path.is_relative_to(folder) for folder in found.unreadable):
                continue
            self._queue.drop(path)
            self._since.pop(path, None)
            self._tell(Code.SLIDE_GONE, path, state=slide.state.value)

    def _tell(self, code: Code, path: Path, **facts: str | int) -> None:
        self._said.append(lambda: self._events.emit(code, path, **facts))


_SETTLED_OTHERWISE = (State.RUNNING, State.SKIPPED)
"""A change of what runs is seen at its end; what is skipped stays so."""

AFRESH: dict[str, object] = {"attempts": 0, "crashes": 0, "code": "", "again_s": None}
"""Columns of a slide that changed."""


def changes_of(files: Files, found_s: float) -> dict[str, object]:
    """Columns of the queue that say how the files of a slide are, found at `found_s`."""
    return {
        "signature": files.signature,
        "bytes": files.bytes,
        "reason": files.lacks,
        "found_s": found_s,
        "written_s": _written_s(files, found_s),
    }


def _written_s(files: Files, found_s: float) -> float:
    """A copy may keep the time of its original, and a server's clock may be ahead."""
    return min(max(files.written_s, found_s), time.time())


def _new(folder: WatchedFolder, item: Input, files: Files, now_s: float) -> QueuedSlide:
    return QueuedSlide(
        path=item.path,
        folder=folder.path,
        relative=item.relative,
        state=State.SETTLING,
        signature=files.signature,
        bytes=files.bytes,
        attempts=0,
        crashes=0,
        reason=files.lacks,
        code="",
        found_s=now_s,
        written_s=_written_s(files, now_s),
    )
