"""The tables of `sshr-deploy benchmark training`, on stdout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sshr_deploy.cli.figure_table import print_figures, quartiles

if TYPE_CHECKING:
    from sshr_deploy.benchmarks.report.records import BenchmarkDocument, Row

_HFRM_HEADINGS = ("level and form", "p50 ms", "p25-p75 ms", "plain / pooled")
_STEP_HEADINGS = {
    "median_ms": "p50 ms",
    "p25_ms": "p25-p75 ms",
    "patches_per_s": "patches/s",
    "gflop_per_s": "GFLOP/s",
    "speed_up": "speed-up",
    "peak_memory_mb": "peak memory MB",
}


def print_training(document: BenchmarkDocument) -> None:
    """HFRM with its heads, whole steps, and how far each variant is from the published one."""
    from sshr_deploy.benchmarks.report.machine import machine_line
    from sshr_deploy.cli.terminal import stdout_console

    console, settings, facts = stdout_console(), document.settings, document.facts
    torch = document.environment.libraries.get("torch", "of unknown release")
    console.print(
        f"{facts['device']}, {machine_line(document, facts['threads'])}, torch {torch}, "
        f"width {settings['width']}, {settings['classes']} classes, {settings['batch']} patches a "
        f"step, medians of {settings['rounds']}",
        markup=False,
    )
    hfrm, steps = _part(document, "HFRM"), _part(document, "step")
    rows = [
        [name, row.figures["median_ms"], quartiles(row.figures), _speed_up(row)]
        for name, row in hfrm.items()
    ]
    print_figures(console, "HFRM + heads, forward and backward", _HFRM_HEADINGS, rows)
    if steps:
        known = {name for row in steps.values() for name in row.figures}
        keys = [key for key in _STEP_HEADINGS if key in known]
        headings = ["variant", *(_STEP_HEADINGS[key] for key in keys)]
        rows = [[name, *(_cell(row, key) for key in keys)] for name, row in steps.items()]
        print_figures(console, "whole step", headings, rows)
    for reason in dict.fromkeys(why for row in document.rows for why in row.refused.values()):
        console.print(f"not reported: {reason}", markup=False)
    for name, errors in facts["agreement"].items():
        console.print(
            f"{name}, relative RMS error against published: logits {errors['logits']:.1e}, "
            f"gradients {errors['gradients']:.1e}, the worst {errors['worst_gradient']:.1e} "
            f"({errors['worst_tensor']})",
            markup=False,
        )


def _part(document: BenchmarkDocument, part: str) -> dict[str, Row]:
    """Its rows by what is behind the part's name: "f56, plain", "pooled"."""
    rows = (row for row in document.rows if row.facts["part"] == part)
    return {row.name.removeprefix(part).lstrip(" ,"): row for row in rows}


def _speed_up(row: Row) -> str | float | None:
    return "" if row.name.endswith("plain") else row.figures.get("speed_up")


def _cell(row: Row, key: str) -> str | float | None:
    return quartiles(row.figures) if key == "p25_ms" else row.figures.get(key)
