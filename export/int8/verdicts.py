"""Verdicts on 8-bit graphs, the budget that they are held to, and their table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sshr_deploy.errors import ExportError

_MOST_ALONE = 12
"""Rows of single layers in a table; the rest would hide what was decided by them."""


@dataclass(frozen=True)
class Verdict:
    """How far a graph is from the reference."""

    agreement: float
    """Share of mask pixels with the same label, 0 to 1."""
    miou_drop: float | None
    """Mean IoU of the reference minus that of the graph; None without label maps."""
    cam_error: float
    """RMS error of the CAMs over their RMS."""


def change_text(miou_drop: float | None) -> str:
    """The change of the mean IoU, "-0.0009" where it falls; "" where it is not known.

    Users always read the change, with this sign; names in code and manifest count the drop.
    """
    return "" if miou_drop is None else f"{round(-miou_drop, 4) + 0.0:+.4f}"


@dataclass(frozen=True)
class Budget:
    """Limits that an 8-bit graph has to keep."""

    min_agreement: float = 0.985
    max_miou_drop: float = 0.005

    def holds(self, verdict: Verdict) -> bool:
        """Whether the verdict is within it; NaN never is."""
        drop = 0.0 if verdict.miou_drop is None else verdict.miou_drop
        return verdict.agreement >= self.min_agreement and drop <= self.max_miou_drop

    def __str__(self) -> str:
        return (
            f"{self.min_agreement:.2%} agreement and at most {self.max_miou_drop:g} less mean IoU"
        )


@dataclass(frozen=True)
class Row:
    """One candidate."""

    scheme: str
    method: str
    layers: str
    """Which are 8-bit: "all 46", "only conv1a", "all but conv1a, ic1"."""
    kept: tuple[str, ...]
    """Layers that are not."""
    verdict: Verdict
    ms: float | None = None
    """A patch, on this machine; None where it was not timed."""
    alone: bool = False
    """Whether one layer alone is 8-bit, to find out what it costs."""


class Int8RejectedError(ExportError):
    """No 8-bit graph meets the budget and is faster; `rows` say why."""

    def __init__(self, reason: str, rows: Sequence[Row]) -> None:
        super().__init__(reason)
        self.rows = tuple(rows)

    @property
    def table(self) -> str:
        """The rows as text of several lines; below them, which layers the timed mix keeps."""
        last = self.rows[-1] if self.rows else None
        if last is None or last.ms is None or not last.kept:
            return format_table(self.rows)
        return f"{format_table(self.rows)}\nwide in the last row: {', '.join(last.kept)}"


def format_table(rows: Sequence[Row]) -> str:
    """The rows as aligned columns, one line each, after a heading; of mean IoU the change.

    Rows of single layers stand together, the 12 most harmful first, the others as a count. Of rows
    that read alike ("all but 7") the timed one stands there, or else the best.
    """
    heading = ("8-bit layers", "scheme", "range", "agreement", "mean IoU", "CAM error", "ms")
    distinct = _distinct(rows)
    alone = sorted((row for row in distinct if row.alone), key=lambda row: row.verdict.agreement)
    before = next((index for index, row in enumerate(distinct) if row.alone), 0)
    shown, rest = alone[:_MOST_ALONE], alone[_MOST_ALONE:]
    cells = [heading, *(_cells(row) for row in (*distinct[:before], *shown))]
    if rest:
        line = f"... {len(rest)} more, {rest[0].verdict.agreement:.2%} or better"
        cells.append((line, *[""] * (len(heading) - 1)))
    cells += [_cells(row) for row in distinct[before:] if not row.alone]
    return _aligned(cells)


def _distinct(rows: Sequence[Row]) -> list[Row]:
    found: dict[tuple[str, ...], Row] = {}
    for row in rows:
        key = row.layers, row.scheme, row.method
        if key not in found or _told_first(row) > _told_first(found[key]):
            found.pop(key, None)  # it goes to the end: timed rows are the last
            found[key] = row
    return list(found.values())


def _told_first(row: Row) -> tuple[bool, float]:
    return row.ms is not None, row.verdict.agreement


def _aligned(cells: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    text = 3  # columns of words; numbers are to the right
    lines = [
        "  ".join(
            cell.ljust(width) if column < text else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]
    return "\n".join(lines)


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.layers,
        row.scheme,
        row.method,
        f"{row.verdict.agreement:.2%}",
        change_text(row.verdict.miou_drop) or "-",
        f"{row.verdict.cam_error:.2%}",
        "-" if row.ms is None else f"{row.ms:.1f}",
    )
