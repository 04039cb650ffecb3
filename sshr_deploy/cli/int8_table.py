"""The table of `sshr-deploy benchmark int8`, on stdout."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sshr_deploy.benchmarks.report.records import BenchmarkDocument, Row


def print_int8(document: BenchmarkDocument) -> None:
    """A row for each way, then why some figures are not there."""
    from rich.table import Table

    from sshr_deploy.benchmarks.report.machine import machine_line
    from sshr_deploy.cli.tables import print_table
    from sshr_deploy.cli.terminal import stdout_console

    console, settings, facts = stdout_console(), document.settings, document.facts
    width = "" if document.subject is None else f"width {document.subject.width}, "
    console.print(
        f"{width}weights of {settings['weight_bits']} bits, ranges by {settings['ranges']}, "
        f"on {machine_line(document, facts['threads'])}",
        markup=False,
    )
    headings = ["network", "p50 ms", "p25-p75 ms", "x fp32", "x PyTorch", "agreement", "CAM error"]
    with_truth = any(_iou(row) for row in document.rows)
    table = Table(*headings, *["mean IoU"] * with_truth)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in document.rows:
        table.add_row(row.name, *_figures(row), *[_iou(row)] * with_truth)
    print_table(console, table)
    for reason in dict.fromkeys(why for row in document.rows for why in row.refused.values()):
        console.print(f"not reported: {reason}", markup=False)
    for row in document.rows:
        if row.not_measured is not None:
            console.print(f"{row.name} not measured: {row.not_measured}", markup=False)
    console.print(f"compared on {facts['patches']} patches of {facts['source']}", markup=False)
    if settings["keep"]:
        console.print(f"int8 mix keeps {', '.join(settings['keep'])} in FP32", markup=False)


def _figures(row: Row) -> list[str]:
    agreement, figures = row.agreement, row.figures
    shown = ["-"] * 4
    if row.samples:
        shown = [f"{figures['median_ms']:.1f}", f"{figures['p25_ms']:.1f}-{figures['p75_ms']:.1f}"]
        ratios = (figures.get(name) for name in ("times_fp32", "times_pytorch"))
        shown += ["not reported" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
    if agreement is None:
        return [*shown, "-", "-"]
    return [*shown, f"{agreement.masks:.3%}", f"{agreement.cam_error:.1e}"]


def _iou(row: Row) -> str:
    iou = row.facts["qualification"]["iou"]
    return f"{iou['mean_iou']:.4f}" if iou else ""
