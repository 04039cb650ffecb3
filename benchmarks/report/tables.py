"""Documents and comparisons as tables of text, for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from sshr_deploy.benchmarks.measuring.neighbours import spoiled_ceiling
from sshr_deploy.benchmarks.report.comparison import Compared, Comparison, Side
from sshr_deploy.benchmarks.report.records import Agreement, BenchmarkDocument, Kind, Row
from sshr_deploy.figures import in_digits
from sshr_deploy.runtime.machine.spread import spread_of

_NONE = "-"
_OF_CEILING = "share_of_ceiling"
_OF_SAMPLES = frozenset({"median", "p25", "p75", "p50", "min", "max"})
"""Begin the names of figures that the columns of every table say already."""
_PERCENTILES = ("p50", "p90", "p95", "p99")
_CALLS = (
    *(f"{name}_ms" for name in _PERCENTILES),
    *("max_ms", "patches_per_s", "fields_per_s", "share_of_ceiling", "speed"),
)
_PARTS = ("copy_in_ms", "engine_ms", "copy_out_ms", "labels_ms")
_STARTS = ("start_s", "load_s", "open_s", "first_patch_s", "building_s")
"""Of a call, and of a start: figures of `benchmark latency`, which has more than fit in a table."""
_HEADINGS = {
    "labels_ms": "label maps ms",
    "start_s": "process s",
    "load_s": "bundle s",
    "open_s": "engine s",
    "building_s": "once, to build and compare s",
    "times_ours": "its time over ours",
    "times_our_tiles": "its time over our tiles alone",
}
_SPELLED = {
    "flop": "FLOP", "gflop": "GFLOP", "mb": "MB", "gb": "GB", "cpu": "CPU", "fp32": "FP32",
    "pytorch": "PyTorch",
}  # fmt: skip
_COMMON = ("median", "quartiles", "samples", "agreement")


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


def document_tables(document: BenchmarkDocument) -> list[TextTable]:
    """Rows with their medians, quartiles, agreement and figures; below them, why some are missing.

    Of latency also the parts of the calls, and the cold starts.
    """
    if document.benchmark != "latency":
        names = dict.fromkeys(name for row in document.rows for name in row.figures)
        shown = [name for name in names if name.split("_")[0] not in _OF_SAMPLES]
        return [_table("row", document.rows, shown, document.notes)]
    starts = [row for row in document.rows if row.unit == "s"]
    calls = [row for row in document.rows if row not in starts]
    tables = [_calls_table(calls, document.notes)] if calls or not starts else []
    parts = [
        (marked(row.name, row), *_figures(row, _PARTS))
        for row in calls
        if row.samples and any(name in row.figures for name in _PARTS)
    ]
    if parts:
        tables.append(TextTable(("parts of a call, timed apart", *map(heading, _PARTS)), (*parts,)))
    if starts:
        engines = [(row.name, row.facts["open"]) for row in starts if "open" in row.facts]
        notes = _grouped(engines) + ([] if calls else [*document.notes])
        tables.append(_table("cold start", starts, _STARTS, notes))
    return tables


def _calls_table(rows: Sequence[Row], notes: Iterable[str]) -> TextTable:
    """Of latency: percentiles with their intervals, and over what the speed is."""
    names = [name for name in _CALLS if any(name in row.figures for row in rows)]
    bases = [*dict.fromkeys(row.facts["base"] for row in rows if row.facts.get("base"))]
    several = f"speed: times as fast as {', '.join(bases)}, whichever has 1 at that batch size"
    more = [several] if len(bases) > 1 else []
    if any(f"{name}_low_ms" in row.figures for row in rows for name in _PERCENTILES):
        more.append("in brackets: where the percentile lies with 95 %")
    table = _table("row", rows, names, [*more, *notes])
    if len(bases) != 1:
        return table
    headings = (f"speed ({bases[0]} = 1)" if h == "speed" else h for h in table.headings)
    return replace(table, headings=tuple(headings))


def _table(
    first: str, rows: Sequence[Row], names: Sequence[str], notes: Iterable[str]
) -> TextTable:
    """Rows with the figures of those names that any row has; why others are missing, below."""
    told = [name for name in names if any(_figures(row, [name]) != [_NONE] for row in rows)]
    cells = [
        (
            marked(row.name, row), *_middle(row), agreement_text(row.agreement),
            *_figures(row, told),
        )
        for row in rows
    ]  # fmt: skip
    reasons = [(row.name, reason) for row in rows for reason in _refusals(row, names)]
    headings = (first, *_COMMON, *map(heading, told))
    measured = [row.name for row in rows if row.samples]
    return TextTable(headings, tuple(cells), (*_grouped(reasons, measured), *notes))


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


def marked(name: str, row: Row) -> str:
    """`name`, with a star where the row's masks disagree and it was measured all the same."""
    return f"{name} *" if "unqualified" in row.facts else name


def kind_title(kind: Kind) -> str:
    """Of a benchmark, as a heading: "Latency", "INT8"."""
    return "INT8" if kind == "int8" else kind.capitalize()


def heading(name: str) -> str:
    """Of a figure: "gb_per_s" -> "GB/s", "p95_ms" -> "p95 ms"."""
    ratio = name.split("_per_")
    words = (" ".join(_SPELLED.get(word, word) for word in part.split("_")) for part in ratio)
    return _HEADINGS.get(name) or "/".join(words)


def figure_text(value: float | None, name: str = "") -> str:
    """Four digits, or a percentage for shares; "-" for what cannot be told."""
    if value is None:
        return _NONE
    if name == _OF_CEILING and spoiled_ceiling(value) is not None:
        return _NONE
    if "share" in name:
        return f"{value:.1%}"
    return in_digits(value, 4)


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
    """Why it has no samples, why these count for nothing, or why some figures are missing."""
    if row.not_measured is not None:
        return [row.not_measured]
    unqualified = row.facts.get("unqualified")
    told = [] if unqualified is None else [f"* not qualified: {unqualified}"]
    share = row.figures.get(_OF_CEILING) if _OF_CEILING in names else None
    spoiled = None if share is None else spoiled_ceiling(share)
    told += [] if spoiled is None else [f"{heading(_OF_CEILING)}: {spoiled}"]
    return told + [f"{heading(name)}: {row.refused[name]}" for name in names if name in row.refused]


def _figures(row: Row, names: Sequence[str]) -> list[str]:
    return [
        figure_text(row.figures.get(name), name) + _interval(row, name.removesuffix("_ms"))
        for name in names
    ]


def _interval(row: Row, percentile: str) -> str:
    """ " (31.2-31.9)"; empty for what has none."""
    low, high = (row.figures.get(f"{percentile}_{end}_ms") for end in ("low", "high"))
    if low is None or high is None:
        return ""
    return f" ({figure_text(low)}-{figure_text(high)})"


def _median(side: Side | None, unit: str) -> str:
    return _NONE if side is None else f"{figure_text(side.median)} {unit}"


def _both_agreements(row: Compared) -> str:
    sides = [side for side in (row.a, row.b) if side is not None]
    return " -> ".join(dict.fromkeys(agreement_text(side.agreement) for side in sides)) or _NONE


def _grouped(reasons: Iterable[tuple[str, str]], measured: Sequence[str] = ()) -> list[str]:
    """Each reason once, after the names that it is about; all of `measured` are named as such."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons:
        if name not in names.setdefault(reason, []):
            names[reason].append(name)
    every = [*measured] if len(measured) > 1 else None
    return [
        f"{'all that was measured' if about == every else '; '.join(about)}: {reason}"
        for reason, about in names.items()
    ]
