"""Tables on stdout: columns on a terminal, row by row on a narrow one, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

_LEAST_TEXT = 24
"""Columns of a terminal that a long text or name needs to be read with ease."""
_EMPTY = "-"
_GAP = 3

_Rows = list[list[Text]]


def print_table(console: Console, table: Table, *, lead: int = 0) -> None:
    """Print it so that it can be read at any width, and searched where it goes to a file.

    Where a terminal is too narrow for its columns, each row is told as lines of heading and value.
    With `lead`, so many first columns name what the rows below are about, and go on a line of
    their own instead.
    """
    rows = _rows(console, table)
    if not console.is_terminal:
        for line in _plain_lines(console, table, rows):
            console.print(Text(line), soft_wrap=True)
        return
    if _fits(console, table, rows):
        table.box, table.show_edge, table.pad_edge = SIMPLE_HEAD, False, False
        console.print(table, soft_wrap=False)
    elif lead:
        _print_led(console, table, rows, lead)
    else:
        _print_records(console, table, rows)


def _fits(console: Console, table: Table, rows: _Rows) -> bool:
    """Whether it can be read in columns; long texts are to be wrapped, all else is not."""
    needed = _GAP * (len(table.columns) - 1)
    for place, column in enumerate(table.columns):
        longest = max((cell_len(row[place].plain) for row in rows), default=0)
        column.overflow = "fold"
        if longest <= _LEAST_TEXT:
            column.no_wrap = True
            longest = max(longest, cell_len(_text(console, column.header).plain))
        needed += longest if column.no_wrap else _LEAST_TEXT
    return needed <= console.width


def _plain_lines(console: Console, table: Table, rows: _Rows) -> Iterator[str]:
    """A line for each row, as long as it may be."""
    lines = [[_text(console, column.header).plain for column in table.columns]]
    lines += [[text.plain.replace("\n", "; ") or _EMPTY for text in row] for row in rows]
    widths = [max(map(cell_len, cells)) for cells in zip(*lines, strict=True)]
    for line in lines:
        padded = []
        for column, cell, width in zip(table.columns, line, widths, strict=True):
            blanks = " " * (width - cell_len(cell))
            padded.append(blanks + cell if column.justify == "right" else cell + blanks)
        yield "  ".join(padded).rstrip()


def _print_records(console: Console, table: Table, rows: _Rows) -> None:
    """Each row as lines of heading and value, below its first cell; empty cells are left out."""
    headings = [_text(console, column.header).plain for column in table.columns]
    width = max(map(cell_len, headings[1:]), default=0)
    for first, *rest in rows:
        name = Text.assemble(headings[0], " " * bool(headings[0]), (first.plain, "bold"))
        console.print(name, soft_wrap=True)
        for heading, cell in zip(headings[1:], rest, strict=True):
            if cell:
                line = Table.grid(padding=(0, 2))
                line.add_column()
                line.add_column(overflow="fold")
                blanks = " " * (width - cell_len(heading))
                line.add_row(Text.assemble("  ", (heading + blanks, "dim")), cell)
                console.print(line, soft_wrap=False)


def _print_led(console: Console, table: Table, rows: _Rows, lead: int) -> None:
    """The first cells of each group of rows as a line, and below it the others in columns."""
    groups: list[_Rows] = []
    for row in rows:
        if row[0] or not groups:
            groups.append([])
        groups[-1].append(row)
    for group in groups:
        console.print(Text("  ").join(Text(cell.plain, "bold") for cell in group[0][:lead]))
        below = Table()
        for column in table.columns[lead:]:
            below.add_column(column.header, justify=column.justify)
        for row in group:
            if any(row[lead:]):
                below.add_row(*row[lead:])
        if below.row_count:
            print_table(console, below)


def _rows(console: Console, table: Table) -> _Rows:
    columns = ([_text(console, cell) for cell in column.cells] for column in table.columns)
    return [list(row) for row in zip(*columns, strict=True)]


def _text(console: Console, cell: object) -> Text:
    return cell if isinstance(cell, Text) else console.render_str(str(cell))
