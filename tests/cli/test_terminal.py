"""Names of files are text on a terminal, whatever they hold."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from sshr_deploy.cli.console import BarReporter, PlainReporter, _progress
from sshr_deploy.cli.tables import print_table
from sshr_deploy.cli.terminal import Terminal, stderr_console
from sshr_deploy.runtime.results.findings import InputResult

HOSTILE = "a\nfailed: b\x1b[2J\x1b]0;c\x07\r\x9b31m:smile:[red].tif"
SHOWN = r"a\nfailed: b\x1b[2J\x1b]0;c\x07\r\x9b31m:smile:[red].tif"


def terminal(*, colours: bool = False) -> Terminal:
    return Terminal(file=io.StringIO(), width=300, force_terminal=colours, soft_wrap=True)


def printed(console: Terminal) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_strings_are_one_line_and_texts_may_be_several() -> None:
    console = terminal()
    console.print(HOSTILE, markup=False)
    console.print(Text(f"first\n{HOSTILE}"))
    assert printed(console).splitlines() == [
        *(SHOWN, "first", "a"),
        r"failed: b\x1b[2J\x1b]0;c\x9b31m:smile:[red].tif",  # rich drops some from a Text
    ]


def test_its_own_colours_are_no_text() -> None:
    console = terminal(colours=True)
    console.print(Text(HOSTILE, style="bold"))
    assert printed(console).startswith("\x1b[1ma\x1b[0m")
    assert "\x1b[2J" not in printed(console) and r"\x1b[2J" in printed(console)


@pytest.mark.parametrize("colours", [False, True])
def test_cells_of_tables(colours: bool) -> None:
    console, table = terminal(colours=colours), Table("input", "status")
    table.add_row(escape(HOSTILE), "done")
    print_table(console, table)
    assert SHOWN in printed(console)
    assert sum("done" in line for line in printed(console).splitlines()) == 1


def test_lines_of_reporters() -> None:
    console = terminal()
    plain = PlainReporter(console)
    plain.run_started(1)
    plain.input_started(Path(HOSTILE), 1)
    plain.taken_over(Path(HOSTILE), "another")
    plain.input_finished(InputResult(Path(HOSTILE), "slide", "failed", f"{HOSTILE} is no slide"))
    assert printed(console).splitlines() == [
        "1 input",
        f"[1/1] {SHOWN}: 1 tile",
        f"{SHOWN}: taken over from another, which gave no sign of life",
        f"failed: {SHOWN} is no slide",
    ]


def test_bars_of_reporters() -> None:
    console = terminal()
    progress = _progress(console)
    BarReporter(progress).input_started(Path(HOSTILE), 1)
    console.print(progress)
    assert r"a\nfailed: b\x1b[2J\x1b]0;c" in printed(console)
    assert not set(printed(console)) & {"\x1b", "\x9b", "\x07", "\r"}


def test_what_commands_say_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    stderr_console().print(HOSTILE, markup=False)
    assert capsys.readouterr() == ("", f"{SHOWN}\n")


@pytest.mark.parametrize("columns", ["0", "3"])
def test_a_width_of_next_to_nothing_is_not_taken(
    columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert Terminal(file=io.StringIO()).width == 80
