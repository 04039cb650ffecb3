"""Tables of `sshr-deploy benchmark robustness`, on stdout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def print_robustness(report: dict[str, Any]) -> None:
    """Mean IoU by perturbation, all networks beside each other; then IoU by class of each."""
    from rich.markup import escape

    from sshr_deploy.benchmarks.environment import machine_text
    from sshr_deploy.cli.terminal import stdout_console
    from sshr_deploy.errors import counted

    console = stdout_console()
    models = report["models"]
    images = counted(report["split"]["images"], "image")
    machine = machine_text(report["environment"], None)
    console.print(f"{images}, {report['settings']['mode']} mode, {machine}")
    for number, model in enumerate(models, 1):
        engine = model["engine"]
        console.print(
            f"{number}: {model['name']}, {engine['engine']} {engine['precision']}", markup=False
        )
    words = [one["words"] for one in report["perturbations"]]
    _print(console, "mean IoU", ["", *_mean_headings(len(models))], words, _mean_rows(models))
    names = [escape(name) for name in report["classes"]]
    for number, model in enumerate(models, 1):
        title = "IoU by class" if len(models) == 1 else f"IoU by class, {number}"
        title += ", and the difference to 1" if number > 1 else ""
        rows = (_class_cells(row, beside=number > 1) for row in model["rows"])
        _print(console, title, ["", *names], words, rows)


def _mean_headings(count: int) -> list[str]:
    if count == 1:
        return ["mean IoU", "lost"]
    numbers = range(1, count + 1)
    return [
        *(str(number) for number in numbers),
        *(f"{number} - 1" for number in numbers[1:]),
        *(f"lost, {number}" for number in numbers),
    ]


def _mean_rows(models: Sequence[dict[str, Any]]) -> Iterator[list[str]]:
    for rows in zip(*(model["rows"] for model in models), strict=True):
        yield [
            *(f"{row['mean_iou']:.3f}" for row in rows),
            *(f"{row['gained_mean_iou']:+.3f}" for row in rows[1:]),
            *(_lost(row) for row in rows),
        ]


def _lost(row: dict[str, Any]) -> str:
    return "" if row["perturbation"] == "clean" else f"{row['lost_mean_iou']:.3f}"


def _class_cells(row: dict[str, Any], *, beside: bool) -> list[str]:
    cells = ["-" if iou is None else f"{iou:.3f}" for iou in row["class_iou"]]
    if not beside:
        return cells
    gains = ("-" if gain is None else f"{gain:+.3f}" for gain in row["gained_class_iou"])
    return [f"{cell} ({gain})" for cell, gain in zip(cells, gains, strict=True)]


def _print(
    console: Console,
    title: str,
    headings: Sequence[str],
    words: Sequence[str],
    rows: Iterator[list[str]],
) -> None:
    from rich.table import Table

    from sshr_deploy.cli.tables import print_table

    table = Table(*headings)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, cells in zip(words, rows, strict=True):
        table.add_row(name, *cells)
    console.print(title)
    print_table(console, table)
