"""Documents and comparisons as tables of text, for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sshr_deploy.benchmarks.report.comparison import Compared, Comparison, Side
from sshr_deploy.benchmarks.report.records import Agreement, BenchmarkDocument, Row
from sshr_deploy.runtime.machine.spread import spread_of

_NONE = "-"
_OF_SAMPLES = frozenset({"median", "p25", "p75", "p50", "min", "max"})
"""Begin the names of figures that the columns of every table say already."""
_LATENCY = ("p95_ms", "p99_ms", "patches_per_s", "fields_per_s", "share_of_ceiling", "speed")
_CHOSEN: dict[str, tuple[str, ...]] = {"latency": _LATENCY}
"""Figures that are shown of benchmarks that have more than fit in a table."""


@dataclass(frozen=True)
class TextTable:
    """Headings, rows of as many cells, and lines to go below."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    right: bool = True
    """All columns but the first are figures, flush right."""

    def markdown(self) -> str:
        """The table and, below it, its lines as a list."""
        rule = "---:" if self.right else "---"
        lines = [self.headings, ("---", *[rule] * (len(self.headings) - 1)), *self.rows]
        table = "\n".join("| " + " | ".join(map(escaped, line)) + " |" for line in lines)
        notes = "\n".join(f"- {escaped(note)}" for note in self.notes)
        return "\n\n".join(part for part in (table, notes) if part) + "\n"


def document_table(document: BenchmarkDocument) -> TextTable:
    """Rows with their medians, quartiles, agreement and figures; below it, why some are missing."""
    found = [name for row in document.rows for name in row.figures]
    chosen = _CHOSEN.get(document.benchmark)
    names = [
        name
        for name in chosen or dict.fromkeys(found)
        if name in found and (chosen or name.split("_")[0] not in _OF_SAMPLES)
    ]
    headings = ("row", "median", "quartiles", "samples", "agreement", *map(heading, names))
    rows = [
        (row.name, *_middle(row), agreement_text(row.agreement), *_figures(row, names))
        for row in document.rows
    ]
    reasons = [(row.name, reason) for row in document.rows for reason in _refusals(row, names)]
    return TextTable(headings, tuple(rows), (*_grouped(reasons), *document.notes))


def comparison_table(comparison: Comparison) -> TextTable:
    """Rows with both medians and the verdict; below it, the reasons and what else differs."""
    headings = ("row", "A", "B", "x A", "95 %", "verdict", "agreement")
    rows = [
        (
            row.name,
            _median(row.a, row.unit),
            _median(row.b, row.unit),
            _NONE if row.speed is None else f"{row.speed:.3f}",
            _NONE if row.low is None else f"{row.low:.3f}-{row.high:.3f}",
            row.verdict,
            _both_agreements(row),
        )
        for row in comparison.rows
    ]
    reasons = [(row.name, row.reason) for row in comparison.rows if row.reason is not None]
    return TextTable(headings, tuple(rows), (*_grouped(reasons), *comparison.warnings))


def heading(name: str) -> str:
    """Of a figure: "patches_per_s" -> "patches/s", "p95_ms" -> "p95 ms"."""
    return name.replace("_per_", "/").replace("_", " ")


def figure_text(value: float | None, name: str = "") -> str:
    """Four digits, or a percentage for shares; "-" for what cannot be told."""
    if value is None:
        return _NONE
    if "share" in name:
        return f"{value:.1%}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def agreement_text(agreement: Agreement | None) -> str:
    """Share of equal mask pixels, with three digits after the point."""
    return _NONE if agreement is None else f"{agreement.masks:.3%}"


def escaped(text: str) -> str:
    """One line of Markdown in which signs are themselves."""
    for sign in "|*<_":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())


def _middle(row: Row) -> tuple[str, str, str]:
    """Median, quartiles and number of the samples."""
    if not row.samples:
        return "not measured", _NONE, "0"
    spread = spread_of(row.samples)
    quartiles = f"{figure_text(spread.p25_ms)}-{figure_text(spread.p75_ms)}"
    return f"{figure_text(spread.median_ms)} {row.unit}", quartiles, str(spread.calls)


def _refusals(row: Row, names: Sequence[str]) -> list[str]:
    """Why it has no samples, or why some of the figures are missing."""
    if row.not_measured is not None:
        return [row.not_measured]
    return [f"{heading(name)}: {row.refused[name]}" for name in names if name in row.refused]


def _figures(row: Row, names: Sequence[str]) -> list[str]:
    return [figure_text(row.figures.get(name), name) for name in names]


def _median(side: Side | None, unit: str) -> str:
    return _NONE if side is None else f"{figure_text(side.median)} {unit}"


def _both_agreements(row: Compared) -> str:
    sides = [side for side in (row.a, row.b) if side is not None]
    return " -> ".join(dict.fromkeys(agreement_text(side.agreement) for side in sides)) or _NONE


def _grouped(reasons: Iterable[tuple[str, str]]) -> list[str]:
    """Each reason once, after the names that it is about."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons:
        if name not in names.setdefault(reason, []):
            names[reason].append(name)
    return [f"{'; '.join(about)}: {reason}" for reason, about in names.items()]
