"""The queue of a watched folder: which slides there are, how far each is, and how each ended.

A state changes in `Queue.move` alone, by `_MOVES`, within a transaction that is on the disk when it
ends: after a kill or a power cut the queue is as it was after one of them.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from sshr_deploy.closing import Closing
from sshr_deploy.errors import UsageError
from sshr_deploy.runtime.watch import queue_file
from sshr_deploy.runtime.watch.order import Order


class State(StrEnum):
    """How far a slide is."""

    SETTLING = "settling"
    """It may still be written."""
    WAITING = "waiting"
    """For its turn."""
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    """It will be tried again."""
    QUARANTINED = "quarantined"
    """It failed too often; it is tried again once its file changes, or a person says so."""
    SKIPPED = "skipped"
    """A person said so."""


_MOVES: Mapping[State, tuple[State, ...]] = {
    State.SETTLING: (State.SETTLING, State.WAITING, State.SKIPPED),
    State.WAITING: (State.SETTLING, State.RUNNING, State.SKIPPED),
    # It changed meanwhile; the run was stopped or killed; and its three endings.
    State.RUNNING: (State.SETTLING, State.WAITING, State.DONE, State.FAILED, State.QUARANTINED),
    State.DONE: (State.SETTLING,),
    State.FAILED: (State.SETTLING, State.WAITING, State.RUNNING, State.SKIPPED),
    State.QUARANTINED: (State.SETTLING, State.WAITING, State.SKIPPED),
    State.SKIPPED: (State.WAITING,),
}
ENDED = (State.DONE, State.FAILED, State.QUARANTINED)
"""Each is an ending of an attempt."""


@dataclass(frozen=True)
class QueuedSlide:
    """A slide in the queue; times are seconds since 1970."""

    path: Path
    """Of its main file, absolute."""
    folder: Path
    """The watched one."""
    relative: Path
    """Of its results, below those of the watch."""
    state: State
    signature: str
    """Of all its files, see `arrivals`."""
    bytes: int
    """Of all its files."""
    attempts: int
    """That failed, since the file last changed."""
    crashes: int
    """How often the process ended while it ran, since the file last changed."""
    reason: str
    """Why it failed, or cannot settle."""
    code: str
    """The same as one word."""
    found_s: float
    written_s: float
    """The last change of a file, but not before it was found."""
    ready_s: float | None = None
    started_s: float | None = None
    ended_s: float | None = None
    again_s: float | None = None
    """When it will be tried again."""


@dataclass(frozen=True)
class Ending:
    """How an attempt ended; times are seconds since 1970."""

    path: Path
    state: State
    code: str
    reason: str
    written_s: float
    started_s: float | None
    ended_s: float
    host: str


@dataclass(frozen=True)
class Watcher:
    """The process that last watched; times are seconds since 1970."""

    host: str
    pid: int
    started_s: float
    beat_s: float
    """Its last sign of life; 0 if it said goodbye."""


_COLUMNS = [field.name for field in fields(QueuedSlide)]
_PATHS = ("path", "folder", "relative")
_NEXT = """
SELECT * FROM slides WHERE (state = 'waiting' OR (state = 'failed' AND again_s <= ?))
AND folder NOT IN ({}) ORDER BY min(crashes, 1), written_s {}, path LIMIT 1
"""


class Queue(Closing):
    """An open queue; for several threads and processes, of which one watches."""

    def __init__(self, path: Path) -> None:
        """Open the queue at `path`.

        Raises:
            UsageError, OutputError: see `queue_file.connect`.
        """
        self.path = path
        self._connection = queue_file.connect(path)
        self._connection.row_factory = sqlite3.Row
        self._connection.text_factory = os.fsdecode  # names may hold bytes that are not UTF-8
        self._lock = threading.RLock()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A transaction, or a part of the one that the thread is in: all of it is kept, or nothing.

        Raises:
            OutputError: the file cannot be written.
        """
        with self._lock, queue_file.errors_of(self.path):
            if self._in_transaction():
                yield
                return
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._in_transaction():  # a full disk ends it by itself
                    self._connection.execute("ROLLBACK")
                raise

    def slides(self, states: Iterable[State] = State) -> list[QueuedSlide]:
        """Those in these states, by path."""
        marks = ", ".join(f"'{state}'" for state in states)
        sql = f"SELECT * FROM slides WHERE state IN ({marks}) ORDER BY path"
        return [_slide(row) for row in self._all(sql)]

    def slide(self, path: Path) -> QueuedSlide | None:
        """The one at `path`."""
        rows = self._all("SELECT * FROM slides WHERE path = CAST(? AS TEXT)", (os.fsencode(path),))
        return _slide(rows[0]) if rows else None

    def counts(self) -> dict[State, int]:
        """Slides by state."""
        rows = self._all("SELECT state, count(*) AS n FROM slides GROUP BY state")
        found = {row["state"]: row["n"] for row in rows}
        return {state: found.get(state.value, 0) for state in State}

    def endings(self, since_s: float = 0.0) -> list[Ending]:
        """How attempts ended since a time, the oldest first."""
        rows = self._all(
            "SELECT * FROM endings WHERE ended_s >= ? ORDER BY ended_s, id", (since_s,)
        )
        return [
            Ending(
                **{**_named(row, Ending), "path": Path(row["path"]), "state": State(row["state"])}
            )
            for row in rows
        ]

    def add(self, slide: QueuedSlide) -> None:
        """Add a slide that was found."""
        values = {name: _value(getattr(slide, name)) for name in _COLUMNS}
        marks = ", ".join(_mark(name) for name in _COLUMNS)
        with self.writing():
            self._connection.execute(f"INSERT INTO slides VALUES ({marks})", values)

    def move(self, path: Path, to: State, **changes: object) -> QueuedSlide:
        """Change a slide's state, and other columns with it; returns it as it is then.

        Raises:
            UsageError: there is no such slide, or its state does not allow it.
        """
        with self.writing():
            slide = self.slide(path)
            if slide is None:
                raise UsageError(f"{path} is not in the queue {self.path}; see the list")
            if to not in _MOVES[slide.state]:
                raise UsageError(f"{path} is {slide.state}; it cannot become {to}")
            values = {name: _value(value) for name, value in {**changes, "state": to}.items()}
            sets = ", ".join(f"{name} = {_mark(name)}" for name in values)
            where = {"its_path": os.fsencode(path)}
            self._connection.execute(
                f"UPDATE slides SET {sets} WHERE path = CAST(:its_path AS TEXT)", values | where
            )
            moved = self.slide(path)
            assert moved is not None
            return moved

    def end(self, path: Path, to: State, now_s: float, host: str, **changes: object) -> QueuedSlide:
        """Move a slide to one of `ENDED`, which is put down for good as well."""
        with self.writing():
            slide = self.move(path, to, ended_s=now_s, **changes)
            texts = (os.fsencode(t) for t in (str(path), slide.state, slide.code, slide.reason))
            self._connection.execute(
                "INSERT INTO endings (path, state, code, reason, written_s, started_s, ended_s, "
                f"host) VALUES ({', '.join(['CAST(? AS TEXT)'] * 4)}, ?, ?, ?, ?)",
                (*texts, slide.written_s, slide.started_s, now_s, host),
            )
            return slide

    def take(self, now_s: float, order: Order, lost: Iterable[Path] = ()) -> QueuedSlide | None:
        """The next slide, which runs from now on; None if there is none.

        Slides at which the process ended come last and run alone, so that the one which ends it is
        told from those that ran beside it. None is taken from folders that are `lost`.
        """
        folders = [os.fsencode(folder) for folder in lost]
        marks = ", ".join(["CAST(? AS TEXT)"] * len(folders))
        sql = _NEXT.format(marks, "ASC" if order is Order.OLDEST else "DESC")
        values = (now_s, *folders)
        if not self._all(sql, values):  # most often; and a transaction costs more
            return None
        with self.writing():
            found = [_slide(row) for row in self._all(sql, values)]
            running = self.slides([State.RUNNING])
            alone = any(slide.crashes for slide in (*running, *found))
            if not found or (running and alone):
                return None
            return self.move(found[0].path, State.RUNNING, started_s=now_s, again_s=None)

    def drop(self, path: Path) -> None:
        """Take a slide out, whose file is gone."""
        with self.writing():
            self._connection.execute(
                "DELETE FROM slides WHERE path = CAST(? AS TEXT)", (os.fsencode(path),)
            )

    def watcher(self) -> Watcher | None:
        """Who watches, or did last."""
        rows = self._all("SELECT host, pid, started_s, beat_s FROM watcher")
        return Watcher(*rows[0]) if rows else None

    def beat(self, watcher: Watcher) -> None:
        """Say who watches, and lives."""
        with self.writing():
            self._connection.execute(
                "INSERT OR REPLACE INTO watcher VALUES (1, ?, ?, ?, ?)", astuple(watcher)
            )

    def _in_transaction(self) -> bool:
        return self._connection.in_transaction

    def _all(self, sql: str, values: Any = ()) -> list[sqlite3.Row]:
        with self._lock, queue_file.errors_of(self.path):
            return self._connection.execute(sql, values).fetchall()


def _named(row: sqlite3.Row, kind: type[QueuedSlide | Ending]) -> dict[str, Any]:
    return {field.name: row[field.name] for field in fields(kind)}


def _slide(row: sqlite3.Row) -> QueuedSlide:
    values = _named(row, QueuedSlide)
    paths = {name: Path(values[name]) for name in _PATHS}
    return QueuedSlide(**{**values, **paths, "state": State(values["state"])})


def _value(value: object) -> object:
    """As it is bound: text as bytes, which may be no UTF-8, reasons cut."""
    if isinstance(value, Path):
        return os.fsencode(value)
    return os.fsencode(value[: queue_file.MAX_REASON]) if isinstance(value, str) else value


def _mark(name: str) -> str:
    texts = (*_PATHS, "state", "signature", "reason", "code")
    return f"CAST(:{name} AS TEXT)" if name in texts else f":{name}"
