"""Files that are either whole or absent."""

from __future__ import annotations

import csv
import errno
import json
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from sshr_deploy.errors import OutputError

_PARTIAL = ".partial"
_HOST = re.sub(r"[^A-Za-z0-9]", "", platform.node())[:32] or "host"
_ABANDONED_S = 24 * 3600.0


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path` to write to, then rename it to `path`.

    The folder is made where it is missing. The file is flushed to the disk before it gets its name,
    so that a power cut leaves the old file or the new one. On any exception, Ctrl-C included, the
    partial file is removed and an existing `path` stays as it was.

    Raises:
        OutputError: for every `OSError` inside the block: disk full, no permission, and so on.
    """
    partial = path.with_name(partial_name(path.name))
    try:
        with output_errors(path):
            _check_replaceable(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            with partial.open("r+b") as file:
                os.fsync(file.fileno())
            partial.replace(path)
    finally:
        with suppress(OSError):  # must not hide the first error
            partial.unlink(missing_ok=True)


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn every `OSError` of the block into an `OutputError` about `path`."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; free space or choose another place"
        ) from error


def partial_name(name: str) -> str:
    """A new temporary name for `name` that tells which process of which machine writes it."""
    return f".{name}.{_HOST}-{os.getpid()}-{secrets.token_hex(4)}{_PARTIAL}"


def remove_abandoned(folder: Path, pattern: str = "*") -> None:
    """Remove what a killed process left in `folder` under a `partial_name` of `pattern`.

    What a living process of this machine writes stays; where that cannot be told (another machine
    on a shared folder, Windows), only what has not changed for a day goes.

    Raises:
        OSError: the folder cannot be read or changed.
    """
    for path in folder.glob(f".{pattern}{_PARTIAL}"):
        if _is_abandoned(path):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Try whether a file can be made at `path`, before long work whose result goes there.

    Raises:
        OutputError: it cannot.
    """
    with output_errors(path):
        _check_replaceable(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        trial = path.with_name(partial_name(path.name))
        trial.touch()
        trial.unlink()


def _check_replaceable(path: Path) -> None:
    """A device such as /dev/null must not become a file."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no regular file")


def _is_abandoned(path: Path) -> bool:
    owner, _, pid = path.name.removesuffix(_PARTIAL).rpartition("-")[0].rpartition("-")
    if os.name == "posix" and owner.endswith(f".{_HOST}") and pid.isdigit():
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False  # alive, but not ours
        return False
    try:
        return time.time() - path.stat().st_mtime > _ABANDONED_S
    except FileNotFoundError:
        return False  # its process has just finished it


def write_json(path: Path, obj: object) -> None:
    """Write `obj` as JSON: indent 2, UTF-8, final newline.

    Raises:
        OutputError: the file cannot be written.
        ValueError: a number is NaN or infinite, which JSON does not have.
    """
    text = json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # backslashreplace: a file name that is not UTF-8 holds surrogates, and \udcXX is valid JSON.
    with (
        atomic_path(path) as partial,
        partial.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file,
    ):
        file.write(text)


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write `rows` as CSV (UTF-8, comma, one header line); absent keys and None are empty fields.

    The columns are all keys in the order in which they are first met. No rows, no header.

    Raises:
        OutputError: the file cannot be written.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with (
        atomic_path(path) as partial,
        partial.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        if columns:
            writer.writeheader()
        writer.writerows(rows)
