"""Prints documents of `sshr-deploy benchmark throughput`."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

from sshr_deploy.benchmarks.report.machine import machine_line
from sshr_deploy.benchmarks.report.records import BenchmarkDocument, Row
from sshr_deploy.cli.console import say
from sshr_deploy.cli.option_names import as_options
from sshr_deploy.cli.tables import print_table
from sshr_deploy.cli.terminal import stdout_console
from sshr_deploy.figures import in_digits

_LAST_WINDOWS = 12
_TREND = "last_over_first"


def print_throughput(document: BenchmarkDocument) -> None:
    """The rows, the knee or the windows of a soak, and the machine."""
    console = stdout_console()
    engine = next((row.facts["engine"] for row in document.rows if "engine" in row.facts), None)
    if engine is not None:
        console.print(
            f"{engine['engine']} {engine['precision']} ({engine['library']})", markup=False
        )
    console.print(machine_line(document, document.settings.get("threads")), markup=False)
    if (slide := document.facts.get("slide")) is not None:
        console.print(f"slide: {slide['about']}, {slide['inputs']:,.0f} inputs", markup=False)
    print_table(console, _rates(document))
    for row in document.rows:
        if windows := row.facts.get("windows"):
            print_table(console, _windows(windows))
            console.print(_trend_line(row), markup=False)
    if (knee := document.facts.get("knee")) is not None:
        console.print(f"knee: {knee['name']}, {knee['of_best']:.0%} of the best ({knee['best']})")
    refused = (why for row in document.rows for why in row.refused.items() if why[0] != _TREND)
    for figure, why in dict.fromkeys(refused):
        say(f"{figure} not told: {why}")
    for note in document.notes:
        say(note)


def _rates(document: BenchmarkDocument) -> Table:
    table = Table("")
    unit = document.rows[0].unit
    for heading in (unit, "p25 to p75", "mm2/s", "slides/h", "J a slide", "masks"):
        table.add_column(heading, justify="right")
    table.add_column("not measured")
    for row in document.rows:
        figures = row.figures
        joules = [f"{part} {j:,.0f}" for part in ("cpu", "gpu") if (j := _joules(row, part))]
        table.add_row(
            row.name,
            _number(figures.get("inputs_per_s")),
            _quartiles(row.samples),
            _number(figures.get("mm2_per_s")),
            _number(figures.get("slides_per_h")),
            ", ".join(joules),
            "" if row.agreement is None else f"{row.agreement.masks:.3%}",
            Text(as_options(row.not_measured or _unqualified(row))),
        )
    return table


def _windows(windows: list[dict[str, Any]]) -> Table:
    """The last minutes; the file has all."""
    table = Table("until")
    for heading in ("rate/s", "CPU", "GPU", "GPU clocks", "W", "slowed by"):
        table.add_column(heading, justify="right")
    for window in windows[-_LAST_WINDOWS:]:
        gpus = window["gpus"]
        cpu = [_with(window["cpu_mhz"], "MHz"), _with(window["cpu_celsius"], "°C")]
        watts = [f"{part} {watt:.0f}" for part, watt in window["watts"].items()]
        table.add_row(
            f"{window['until_s']:.0f} s",
            _number(window["inputs_per_s"]),
            ", ".join(filter(None, cpu)),
            ", ".join(_with(gpu["temperature_celsius"], "°C") for gpu in gpus),
            ", ".join(_with(gpu["sm_clock_mhz"], "MHz") for gpu in gpus),
            ", ".join(watts),
            ", ".join(_slowed(gpus)),
        )
    return table


def _slowed(gpus: list[dict[str, Any]]) -> list[str]:
    """What held clocks back, and in which share of the readings of the GPU it did most."""
    shares: dict[str, float] = {}
    for gpu in gpus:
        for reason, share in gpu["slowed_share"].items():
            shares[reason] = max(share, shares.get(reason, 0.0))
    return [f"{reason} {share:.0%}" for reason, share in sorted(shares.items())]


def _trend_line(row: Row) -> str:
    trend, low, high = (
        row.figures.get(name) for name in (_TREND, f"{_TREND}_low", f"{_TREND}_high")
    )
    if trend is None or low is None or high is None:
        return f"last third over first: not told: {row.refused.get(_TREND, '')}"
    found = "it holds its rate" if low <= 1 <= high else "slower" if trend < 1 else "faster"
    return f"last third over first: {trend:.3f} ({low:.3f}-{high:.3f}), {found}"


def _quartiles(samples: tuple[float, ...]) -> str:
    from sshr_deploy.runtime.machine.spread import quartiles_text, spread_of

    return quartiles_text(spread_of(samples), unit="") if samples else ""


def _joules(row: Row, part: str) -> float | None:
    return row.figures.get(f"{part}_joules_per_slide")


def _unqualified(row: Row) -> str:
    return f"unqualified: {row.facts['unqualified']}" if "unqualified" in row.facts else ""


def _number(value: float | None) -> str:
    return "" if value is None else in_digits(value) if value < 100 else f"{value:,.0f}"


def _with(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.0f} {unit}"
