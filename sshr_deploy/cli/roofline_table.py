"""Tables of `sshr-deploy benchmark roofline`, on stdout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from sshr_deploy.benchmarks.report.records import BenchmarkDocument, Row

_SHOWN_LAYERS = 10
_SHOWN_OPERATORS = 6
_FIGURES = {
    "median_ms": "p50 ms",
    "gflop_per_s": "GFLOP/s",
    "gb_per_s": "GB/s",
    "flop_per_byte": "FLOP/byte",
    "floor_ms": "at the ceiling ms",
}


def print_roofline(document: BenchmarkDocument) -> None:
    """Ceilings, engines beneath them, the layers that lose most, and what is missing."""
    from sshr_deploy.benchmarks.report.machine import machine_line
    from sshr_deploy.cli.terminal import stdout_console

    console, subject = stdout_console(), document.subject
    if subject is not None:
        console.print(f"{subject.profile}, width {subject.width}", markup=False)
    console.print(machine_line(document, document.settings.get("threads")), markup=False)
    for name, where in (("ceilings", "processor"), ("gpu_ceilings", "GPU")):
        if name in document.facts:
            console.print(f"{where}: {_ceilings_text(document.facts[name])}", markup=False)
    measured = [row for row in document.rows if row.samples]
    if measured:
        _print_engines(console, measured)
    for row in measured:
        if row.facts.get("layers"):
            _print_layers(console, row)
    for line in _missing(document):
        console.print(line, markup=False)


def _ceilings_text(ceilings: dict[str, Any]) -> str:
    """ "products of fp32 190 GFLOP/s, int8 410 GFLOP/s; copies 12 GB/s, within the caches ..." """
    rates = (f"{name} {_figure(rate)} GFLOP/s" for name, rate in ceilings["gflop_per_s"].items())
    text = f"products of {', '.join(rates)}; copies {_figure(ceilings['copy_gb_per_s'])} GB/s"
    if ceilings["cache_gb_per_s"] is not None:
        mib = ceilings["cache_bytes"] / 2**20
        text += f", within the caches ({mib:.0f} MiB) {_figure(ceilings['cache_gb_per_s'])} GB/s"
    return text


def _print_engines(console: Console, rows: Sequence[Row]) -> None:
    from sshr_deploy.cli.tables import print_table

    table = _table("engine", ["batch", "calls", *_FIGURES.values(), "of ceiling", "agreement"])
    for row in rows:
        share = row.figures["share_of_ceiling"]
        table.add_row(
            row.name + " *" * ("unqualified" in row.facts),
            str(row.facts["batch"]),
            str(len(row.samples)),
            *(_figure(row.figures[key]) for key in _FIGURES),
            "" if share is None else f"{share:.0%}",
            "" if row.agreement is None else f"{row.agreement.masks:.4%}",
        )
    print_table(console, table)
    if any("unqualified" in row.facts for row in rows):
        console.print("*: its masks disagree with the reference (--allow-unqualified)")


def _print_layers(console: Console, row: Row) -> None:
    from rich.text import Text

    from sshr_deploy.cli.tables import print_table

    headings = ["kernel", "in", "ms", "GFLOP/s", "GB/s", "at the ceiling ms", "lost ms", "of all"]
    table = _table(f"{row.name}: layer", headings)
    whole_ms, rest_ms = row.facts["kernels_ms"], row.facts["kernels_without_worst_ms"]
    worst = row.facts["layers"][:_SHOWN_LAYERS]
    for layer in worst:
        took = layer["median_ms"]
        rate = layer["gflop"] / took * 1e3 if took else None
        table.add_row(
            Text(layer["layer"]),
            Text(layer["operator"]),
            layer["precision"],
            _figure(took),
            _figure(rate) if layer["gflop"] else "",
            _figure(layer["gb"] / took * 1e3 if took else None),
            _figure(layer["floor_ms"]),
            _figure(layer["lost_ms"]),
            "" if layer["lost_ms"] is None else f"{layer['lost_ms'] / whole_ms:.1%}",
        )
    print_table(console, table)
    if "layers_refused" in row.facts:
        why = row.facts["layers_refused"]
        console.print(f"{row.name}: what its layers lose is not told: {why}", markup=False)
        return
    taken: dict[str, float] = {}
    for layer in row.facts["layers"]:
        taken[layer["operator"]] = taken.get(layer["operator"], 0.0) + layer["median_ms"]
    most = sorted(taken.items(), key=lambda item: -item[1])[:_SHOWN_OPERATORS]
    shares = ", ".join(f"{name} {took / whole_ms:.0%}" for name, took in most)
    console.print(f"{row.name}, time by kernel: {shares}", markup=False)
    console.print(
        f"{row.name}: {len(row.facts['layers'])} kernels take {_figure(whole_ms)} ms; with these "
        f"{len(worst)} at their ceilings it would be {_figure(rest_ms)} ms",
        markup=False,
    )


def _missing(document: BenchmarkDocument) -> list[str]:
    """Rows, shares and layers that are missing, each with the reason; and the notes."""
    from sshr_deploy.cli.option_names import as_options

    lines: list[str] = []
    refused: dict[str, list[str]] = {}
    for row in document.rows:
        if row.not_measured is not None:
            lines.append(as_options(f"not measured: {row.name}: {row.not_measured}"))
        if "layers_not_measured" in row.facts:
            lines.append(f"layers not measured: {row.facts['layers_not_measured']}")
        for reason in row.refused.values():
            refused.setdefault(reason, []).append(row.name)
    lines += [f"share not told of {', '.join(names)}: {why}" for why, names in refused.items()]
    return [*lines, *document.notes]


def _table(first: str, headings: Sequence[str]) -> Table:
    from rich.table import Table

    table = Table(first, *headings)
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _figure(value: float | None) -> str:
    """With three digits; empty where there is none."""
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2g}"
