"""The file of a queue: an SQLite database that is whole, of our kind and version, or refused.

SQLite keeps its promise across kills and power cuts (WAL, `synchronous=FULL`). What it does not see
is a file that something else cut or replaced: so one that exists is checked whole, with
`integrity_check`, when it is opened; it is made under another name first, so that an empty one is
no new queue; and a row fits into a page (paths have 4 KiB at most, reasons `MAX_REASON`), because
the check does not read what overflows into other pages.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sshr_deploy.atomic import atomic_path
from sshr_deploy.errors import OutputError, UsageError, first_line

SCHEMA_VERSION = 1
MAX_REASON = 1000
"""Characters."""

_APPLICATION_ID = 0x53534852  # "SSHR"
_BUSY_S = 30.0  # another process writes: never more than a few rows
_SCHEMA = f"""
PRAGMA page_size = 16384;
PRAGMA journal_mode = WAL;
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
CREATE TABLE slides (
    path TEXT PRIMARY KEY,
    folder TEXT NOT NULL,
    relative TEXT NOT NULL,
    state TEXT NOT NULL,
    signature TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    crashes INTEGER NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '',
    code TEXT NOT NULL DEFAULT '',
    found_s REAL NOT NULL,
    written_s REAL NOT NULL,
    ready_s REAL,
    started_s REAL,
    ended_s REAL,
    again_s REAL
);
CREATE INDEX turn ON slides (state, written_s);
CREATE TABLE endings (
    id INTEGER PRIMARY KEY,
    path TEXT NOT NULL,
    state TEXT NOT NULL,
    code TEXT NOT NULL,
    reason TEXT NOT NULL,
    written_s REAL NOT NULL,
    started_s REAL,
    ended_s REAL NOT NULL,
    host TEXT NOT NULL
);
CREATE INDEX day ON endings (ended_s);
CREATE TABLE watcher (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    started_s REAL NOT NULL,
    beat_s REAL NOT NULL
);
"""


def make(path: Path) -> None:
    """Write an empty queue.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_path(path) as partial:
        for rest in ("-wal", "-shm"):  # of a queue that was removed: no part of this one
            path.with_name(path.name + rest).unlink(missing_ok=True)
        with errors_of(path), closing(sqlite3.connect(partial)) as connection:
            connection.executescript(_SCHEMA)


def connect(path: Path) -> sqlite3.Connection:
    """Open a queue that exists; transactions are begun by whoever writes.

    Raises:
        UsageError: there is none, it is damaged, of another program or of a newer release.
        OutputError: it cannot be used just now.
    """
    if not path.is_file():
        raise UsageError(f"there is no queue at {path}; give the `queue` of a watched folder")
    if path.stat().st_size == 0:  # SQLite takes it for a new one
        raise _damaged(path, "the file is empty")
    with errors_of(path):
        uri = f"{path.absolute().as_uri()}?mode=rw"
        connection = sqlite3.connect(
            uri, uri=True, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
        )
        try:
            _check(path, connection)
            connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            connection.close()
            raise
    return connection


@contextmanager
def errors_of(path: Path) -> Iterator[None]:
    """Turn SQLite's errors of the block into ours, about the queue at `path`."""
    try:
        yield
    except sqlite3.OperationalError as error:  # the disk is full, the file locked or away
        raise OutputError(
            f"the queue {path} cannot be used: {first_line(error)}; check the disk and your rights"
        ) from error
    except sqlite3.DatabaseError as error:
        raise _damaged(path, first_line(error)) from error


def _check(path: Path, connection: sqlite3.Connection) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application != _APPLICATION_ID:
        raise UsageError(f"{path} is no queue of sshr-deploy; give another `queue`")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise UsageError(
            f"{path} was made by a newer sshr-deploy (schema {version}, this one knows "
            f"{SCHEMA_VERSION}); update, or give another `queue`"
        )
    if version < SCHEMA_VERSION:
        raise _damaged(path, f"schema {version}")
    (first,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if first != "ok":
        raise _damaged(path, first)


def _damaged(path: Path, reason: str) -> UsageError:
    return UsageError(
        f"the queue {path} is damaged ({reason}): move it away with its -wal and -shm; a new one "
        "finds by their results which slides are done"
    )
