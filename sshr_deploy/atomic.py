"""Files and folders that are either whole or absent."""

from __future__ import annotations

import csv
import errno
import glob
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
_PARTIAL_NAME = re.compile(rf"\.(.+)\.[A-Za-z0-9]+-[0-9]+-[0-9a-f]{{8}}{re.escape(_PARTIAL)}")
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


def is_partial_name(name: str) -> bool:
    """Whether `partial_name` makes such names, on any machine."""
    return _PARTIAL_NAME.fullmatch(name) is not None


@contextmanager
def partial_folder(out: Path) -> Iterator[Path]:
    """Give a new folder beside `out` to write to; it is gone afterwards unless it was renamed.

    The folder around them is made where it is missing, and what killed processes left of `out` is
    removed first.

    Raises:
        OSError: nothing can be written there.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(out.parent, f"{glob.escape(out.name)}.*")
    partial = out.with_name(partial_name(out.name))
    partial.mkdir()
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def replace_folder(partial: Path, out: Path) -> None:
    """Rename the folder `partial` to `out`; an earlier `out` goes once the new one is there.

    On any exception, Ctrl-C included, the earlier one keeps its name. Both are in one folder. Of
    several processes that do this at once one is last, or fails because another was first.

    Raises:
        OSError: one of them cannot be renamed, or another process has just put its own there.
    """
    replaced = out.with_name(partial_name(out.name))
    try:
        with suppress(FileNotFoundError):
            out.replace(replaced)
        partial.replace(out)
    except BaseException as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            shutil.rmtree(replaced, ignore_errors=True)  # another process was first
        else:
            with suppress(OSError):  # must not hide the first error
                replaced.replace(out)
        raise
    shutil.rmtree(replaced, ignore_errors=True)


def remove_path(path: Path) -> int:
    """Remove a file, a link or a folder with all below it; returns the bytes that were freed.

    For others it is gone at once: it gets a partial name first, which `remove_abandoned` knows if
    this process is killed.

    Raises:
        OSError: it cannot be removed; FileNotFoundError if it is gone already.
    """
    known = _PARTIAL_NAME.fullmatch(path.name)
    going = path.with_name(partial_name(known[1] if known else path.name))
    path.replace(going)
    if going.is_symlink() or not going.is_dir():
        freed = going.lstat().st_size
        going.unlink()
    else:
        freed = sum(p.lstat().st_size for p in going.rglob("*") if not p.is_dir())
        shutil.rmtree(going)
    return freed


def remove_abandoned(folder: Path, pattern: str = "*") -> int:
    """Remove what a killed process left in `folder` under a `partial_name` of `pattern`.

    What a living process of this machine writes stays; where that cannot be told (another machine
    on a shared folder, Windows), only what has not changed for a day goes. Several processes may do
    this at once. Returns the bytes that were freed.

    Raises:
        OSError: the folder cannot be read or changed.
    """
    freed = 0
    for path in folder.glob(f".{pattern}{_PARTIAL}"):
        if is_partial_name(path.name) and _is_abandoned(path):
            with suppress(FileNotFoundError):  # another process removes it
                freed += remove_path(path)
    return freed


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
        return has_ended(int(pid))
    try:
        return time.time() - path.stat().st_mtime > _ABANDONED_S
    except FileNotFoundError:
        return False  # its process has just finished it


def has_ended(pid: int) -> bool:
    """Whether no process of this machine has that number; False where that cannot be told."""
    if os.name != "posix" or pid <= 0:  # on Windows, signal 0 would end the process
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False  # alive but not ours, or no number of a process
    return False


def write_json(path: Path, obj: object) -> None:
    """Write `obj` as JSON: indent 2, UTF-8, final newline.

    Raises:
        OutputError: the file cannot be written.
        ValueError: a number is NaN or infinite, which JSON does not have.
    """
    # A file name that is not UTF-8 holds surrogates; written as \udcXX they are valid JSON.
    write_text(path, json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8; what is no character is written as \\udcXX.

    Raises:
        OutputError: the file cannot be written.
    """
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
