"""`sshr-deploy benchmark host`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sshr_deploy.cli.benchmark import JsonOption, benchmark_app
from sshr_deploy.cli.benchmark_document import shown
from sshr_deploy.cli.commands import command
from sshr_deploy.cli.options import BundleArgument
from sshr_deploy.errors import UsageError
from sshr_deploy.figures import in_digits

if TYPE_CHECKING:
    from sshr_deploy.benchmarks.report.records import BenchmarkDocument


@command(benchmark_app, config=True)
def host(
    bundle: BundleArgument,
    slides: Annotated[
        Path,
        typer.Argument(
            metavar="SLIDES", help="A slide, or a folder of them that follow one another."
        ),
    ],
    side_px: Annotated[
        int,
        typer.Option(
            help="Side of the fields in px; 224 for the patches of reference mode.", min=224
        ),
    ] = 1344,
    patches_per_s: Annotated[
        float, typer.Option(min=1, help="Speed of the GPU that is played, in patches/s.")
    ] = 3000.0,
    batch: Annotated[
        int, typer.Option(min=1, max=1024, help="Fields, or patches, in a call of the engine.")
    ] = 1,
    readers: Annotated[
        int | None,
        typer.Option(min=1, max=256, help="Reading threads.", show_default="one a core"),
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=1, max=100, help="Runs of each way; shares of the bound need 5.")
    ] = 5,
    json_file: JsonOption = None,
) -> None:
    """Whether this machine keeps up with a GPU: everything but the network, in fields/s.

    Reading alone: the fields of the slides, by the reading threads and nothing else. Null: a whole
    run, with a stand-in for the engine that answers at once. Fixed: one that takes twice as long
    for a field as reading it. GPU: one that sleeps as long as a GPU of that speed computes. Of
    bound: the rate over that of reading alone (null), or over the stand-in's own (fixed, GPU); not
    told where other work disturbed it, or where the two cannot be told apart. CPU: time of all
    threads for a field. The ways take turns. Cores that a GPU needs are not told either where other
    work disturbed them.
    """
    from sshr_deploy.benchmarks.pipeline.host import measure_host
    from sshr_deploy.benchmarks.report.recorder import Recorder
    from sshr_deploy.benchmarks.report.subject import subject_of
    from sshr_deploy.bundle import load_bundle
    from sshr_deploy.cli.console import say
    from sshr_deploy.geometry import PATCH, field_geometry

    try:
        geometry = PATCH if side_px == PATCH.side_px else field_geometry(side_px)
    except ValueError as error:
        raise UsageError(f"--side-px {side_px}: {error}") from None
    loaded = load_bundle(bundle)
    settings = {
        "slides": slides.name, "side_px": geometry.side_px, "core_px": geometry.core_px,
        "batch": batch, "readers": readers, "rounds": rounds, "gpu_patches_per_s": patches_per_s,
    }  # fmt: skip
    recorder = Recorder("host", subject_of(loaded), settings, json_file)
    with shown(recorder, _print_host, json_file):
        measure_host(
            loaded,
            slides,
            geometry,
            recorder,
            patches_per_s=patches_per_s,
            readers=readers,
            batch=batch,
            rounds=rounds,
            on_step=say,
        )


def _print_host(document: BenchmarkDocument) -> None:
    """A table of the ways, and the cores that the GPU would need."""
    from rich.table import Table

    from sshr_deploy.benchmarks.report.machine import machine_line
    from sshr_deploy.cli.tables import print_table
    from sshr_deploy.cli.terminal import stdout_console
    from sshr_deploy.errors import counted
    from sshr_deploy.runtime.machine.spread import ratio_text

    console, settings = stdout_console(), document.settings
    units = sum(slide["units"] for slide in document.facts["slides"])
    what = "patches" if settings["side_px"] == settings["core_px"] else "fields"
    console.print(
        f"{counted(len(document.facts['slides']), 'slide')}, {units} {what} of "
        f"{settings['side_px']} px, on {machine_line(document)}",
        markup=False,
    )
    table = Table("way", "runs", f"{what}/s", "of bound", "CPU ms")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in document.rows:
        figures = row.figures
        bound = ratio_text(figures["of_bound"]) if "of_bound" in figures else ""
        rate, cpu_ms = figures["units_per_s"] or 0.0, 1e3 * (figures["cpu_s_per_unit"] or 0.0)
        table.add_row(row.name, str(len(row.samples)), in_digits(rate), bound, in_digits(cpu_ms))
    print_table(console, table)
    if (cores := document.facts.get("gpu_needs_cores")) is not None:
        console.print(
            f"a GPU of {settings['gpu_patches_per_s']:.0f} patches/s needs {cores:.1f} cores of "
            f"this kind beside it; this machine has {document.environment.cores}"
        )
    refused = [reason for row in document.rows for reason in row.refused.values()]
    if (reason := document.facts.get("gpu_needs_cores_not_reported")) is not None:
        refused.append(reason)
    for reason in dict.fromkeys(refused):
        console.print(f"not reported: {reason}", markup=False)
