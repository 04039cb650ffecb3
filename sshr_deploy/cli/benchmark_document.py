"""How a command measures into a document, and shows it whatever ends it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sshr_deploy.errors import SshrDeployError

if TYPE_CHECKING:
    from sshr_deploy.benchmarks.report.recorder import Recorder
    from sshr_deploy.benchmarks.report.records import BenchmarkDocument

_INTERRUPTED = 130
_ENDS = ("SIGTERM", "SIGHUP")
"""Signals of `timeout` and services, and of a closed terminal, which Windows has not."""


@contextmanager
def shown(
    recorder: Recorder, show: Callable[[BenchmarkDocument], None], file: Path | None
) -> Iterator[None]:
    """Measure inside; then, after Ctrl-C or an error too, show what there is and where it is kept.

    SIGTERM and a closed terminal are as Ctrl-C.

    Raises:
        typer.Exit: 130 after Ctrl-C, 1 where there are rows and none was measured.
    """
    code = 0
    try:
        with _ends_as_ctrl_c(), recorder:
            yield
        rows = recorder.document.rows
        code = int(bool(rows) and not any(row.samples for row in rows))
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except SshrDeployError:
        _tell(recorder, show, file)
        raise
    _tell(recorder, show, file)
    if code:
        raise typer.Exit(code)


@contextmanager
def _ends_as_ctrl_c() -> Iterator[None]:
    """Let the block clean up where it is asked to end: processes that it started end too."""
    there = [getattr(signal, name) for name in _ENDS if hasattr(signal, name)]
    before = {each: signal.getsignal(each) for each in there}
    heeded = [each for each in there if before[each] != signal.SIG_IGN]  # `nohup` ignores one
    for each in heeded:
        signal.signal(each, signal.default_int_handler)
    try:
        yield
    finally:
        for each in heeded:
            signal.signal(each, before[each])


def _tell(recorder: Recorder, show: Callable[[BenchmarkDocument], None], file: Path | None) -> None:
    from sshr_deploy.cli.console import say

    document = recorder.document
    if document.rows:
        show(document)
    if (busy := recorder.busy()) is not None:
        say(f"warning: {busy}; measure again when it is quiet")
    if file is not None:
        typer.echo(str(file))
