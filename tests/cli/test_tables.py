"""Tables at several widths, and where they are no tables."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sshr_deploy.cli.tables import print_table
from sshr_deploy.cli.terminal import stdout_console

NAME = "TCGA-44-2656-01Z-00-DX1.a1b2c3d4-aaaa-bbbb-cccc-0123456789ab.svs"
WHY = "ends before image 1 does: 20000 of 1938955 bytes are there; copy it again"


def slides() -> Table:
    table = Table("slide", "state", "size", "when", "failed", "why")
    table.columns[2].justify = "right"
    table.add_row(NAME, Text("running", style="cyan"), "523 MB", "for 50 s", "", "")
    table.add_row("b\\[1].svs", Text("failed", style="red"), "1 MB", "again in 5 min", "2×", WHY)
    return table


def classes() -> Table:
    table = Table("input", "status", "class", "share", "area mm²")
    for column in table.columns[3:]:
        column.justify = "right"
    table.add_row("TCGA-44-2656-01Z-00-DX1.svs", "done", "tumour epithelium", "43.2%", "12.3456")
    table.add_row("", "", "tumour-associated stroma", "51.0%", "14.2000", end_section=True)
    table.add_row("b.svs", "failed", "", "", "")
    return table


def shown(table: Table, width: int, *, terminal: bool, lead: int = 0) -> str:
    file = io.StringIO()
    print_table(Console(file=file, width=width, force_terminal=terminal), table, lead=lead)
    text = file.getvalue()
    return Text.from_ansi(text).plain if terminal else text


def words(text: str) -> str:
    return "".join(text.translate(dict.fromkeys(map(ord, "│┃━┏┓┗┛─"), " ")).split())


def test_elsewhere_than_on_a_terminal_each_row_is_one_plain_line() -> None:
    assert shown(slides(), 40, terminal=False).splitlines() == [
        f"{'slide'.ljust(len(NAME))}  state      size  when            failed  why",
        f"{NAME}  running  523 MB  for 50 s        -       -",
        f"{'b[1].svs'.ljust(len(NAME))}  failed     1 MB  again in 5 min  2×      {WHY}",
    ]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140, 200])
def test_nothing_is_cut_at_any_width(width: int) -> None:
    for table, lead in ((slides(), 0), (classes(), 0), (classes(), 2)):
        cells = [str(cell) for column in table.columns for cell in column.cells]
        text = shown(table, width, terminal=True, lead=lead)
        assert "…" not in text
        assert max(map(len, text.splitlines())) <= max(width, len(f"slide {NAME}"))
        for cell in cells:
            single = words(cell.replace("\\", ""))
            assert single in words(text) or len(single) > 24, cell  # those are folded


def test_a_terminal_that_is_wide_enough_has_columns_below_a_rule() -> None:
    heading, rule, first, *_ = shown(classes(), 100, terminal=True).splitlines()
    assert heading.split() == ["input", "status", "class", "share", "area", "mm²"]
    assert set(rule) == {"─"}
    assert first.split()[:2] == ["TCGA-44-2656-01Z-00-DX1.svs", "done"]


def test_on_a_narrow_terminal_rows_are_told_one_below_the_other() -> None:
    assert [line.rstrip() for line in shown(slides(), 60, terminal=True).splitlines()] == [
        f"slide {NAME}",
        "  state   running",
        "  size    523 MB",
        "  when    for 50 s",
        "slide b[1].svs",
        "  state   failed",
        "  size    1 MB",
        "  when    again in 5 min",
        "  failed  2×",
        "  why     ends before image 1 does: 20000 of 1938955 bytes",
        "          are there; copy it again",
    ]


def test_first_columns_lead_a_table_of_the_rest() -> None:
    lines = shown(classes(), 60, terminal=True, lead=2).splitlines()
    assert [line.rstrip() for line in lines] == [
        "TCGA-44-2656-01Z-00-DX1.svs  done",
        "class                      share   area mm²",
        "─" * 43,
        "tumour epithelium          43.2%    12.3456",
        "tumour-associated stroma   51.0%    14.2000",
        "b.svs  failed",
    ]


def test_colours_are_on_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")

    def coloured(**settings: str) -> bool:
        file = io.StringIO()
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        console = stdout_console()
        console.file = file
        console.print(Text("red", style="red"))
        return "\x1b[31m" in file.getvalue()

    assert not coloured()
    assert coloured(FORCE_COLOR="1")
    assert not coloured(FORCE_COLOR="1", NO_COLOR="1")
