"""The command line as a person runs it: in a process of its own, or in this one."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

from sshr_deploy.cli import main

SETTINGS = {
    **os.environ,
    "COLUMNS": "100",
    "NO_COLOR": "1",
    "PYTHONIOENCODING": "utf-8",
    "TERM": "dumb",
}
LIMIT_S = 120

Done = subprocess.CompletedProcess[str]


def run(*args: str | Path) -> Done:
    """In a process of its own, which imports everything anew: seconds."""
    return subprocess.run(
        [sys.executable, "-m", "sshr_deploy", *map(str, args)],
        capture_output=True, encoding="utf-8", env=SETTINGS, timeout=LIMIT_S, check=False,
    )  # fmt: skip


def run_here(*args: str | Path) -> Done:
    """In this process, by the same entry point."""
    argv = ["sshr-deploy", *map(str, args)]
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    code: object = 0
    with (
        mock.patch.object(sys, "argv", argv),
        mock.patch.dict(os.environ, SETTINGS),
        signals_kept(),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    assert isinstance(code, int), code
    texts = [stream.buffer.getvalue().decode() for stream in (out, err)]
    return subprocess.CompletedProcess(argv, code, *texts)


@contextmanager
def signals_kept() -> Iterator[None]:
    """Commands take SIGTERM as Ctrl-C; this process goes on after them with its own handlers."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
