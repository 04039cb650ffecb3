"""The tables of `sshr-deploy benchmark kernels`, on stdout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sshr_deploy.cli.figure_table import print_figures, quartiles

if TYPE_CHECKING:
    from sshr_deploy.benchmarks.report.records import BenchmarkDocument

_HEADINGS = {
    "median_ms": "p50 ms",
    "p25_ms": "p25-p75 ms",
    "p95_ms": "p95 ms",
    "tflop_per_s": "TFLOP/s",
    "gb_per_s": "GB/s",
    "share_of_floor": "floor / time",
    "relative_rms_error": "error",
}


def print_kernels(document: BenchmarkDocument) -> None:
    """A table by type and size, below what the device reached on copies and products."""
    from sshr_deploy.benchmarks.report.machine import machine_line
    from sshr_deploy.cli.terminal import stdout_console

    console, facts = stdout_console(), document.facts
    console.print(machine_line(document), markup=False)
    if "ceilings" in facts:  # known once all is measured
        products = ", ".join(
            f"{dtype} products {ceiling['product_tflop_per_s']:.0f} TFLOP/s"
            for dtype, ceiling in facts["ceilings"].items()
        )
        copy = next(iter(facts["ceilings"].values()))["copy_gb_per_s"]
        console.print(f"{facts['device']}: copies {copy:.0f} GB/s, {products}", markup=False)
    sizes: dict[str, list[list[Any]]] = {}
    for row in (row for row in document.rows if row.samples):
        size, _, form = row.name.rpartition(", ")
        figures = (
            quartiles(row.figures) if key == "p25_ms" else row.figures.get(key, "-")
            for key in _HEADINGS
        )
        sizes.setdefault(size, []).append([form, *figures])
    for size, rows in sizes.items():
        print_figures(console, size, ["form", *_HEADINGS.values()], rows)
