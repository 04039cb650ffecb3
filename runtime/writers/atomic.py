"""Files that are either whole or absent."""

from __future__ import annotations

import csv
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from sshr_deploy.errors import OutputError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path` to write to, then rename it to `path`.

    The folder is made where it is missing. The file is flushed to the disk before it gets its name,
    so that a power cut leaves the old file or the new one. On any exception, Ctrl-C included, the
    partial file is removed and an existing `path` stays as it was.

    Raises:
        OutputError: for every `OSError` inside the block: disk full, no permission, and so on.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with partial.open("r+b") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; free space or choose another --out"
        ) from error
    finally:
        with suppress(OSError):  # must not hide the first error
            partial.unlink(missing_ok=True)


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
