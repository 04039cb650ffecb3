"""`sshr-deploy benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sshr_deploy.cli.commands import command
from sshr_deploy.cli.help import Group
from sshr_deploy.cli.options import BundleArgument
from sshr_deploy.errors import UsageError

benchmark_app = typer.Typer(
    cls=Group,
    name="benchmark",
    help="Measure a bundle, training or the GPU kernels on this machine.",
    no_args_is_help=True,
)

JsonOption = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="File for raw samples, environment and figures."),
]


@benchmark_app.callback()
def _group() -> None:
    """Measure a bundle, training or the GPU kernels on this machine."""


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
    rounds: Annotated[int, typer.Option(min=1, max=100, help="Runs of each way.")] = 3,
    json_file: JsonOption = None,
) -> None:
    """Whether this machine keeps up with a GPU: everything but the network, in fields/s.

    Reading alone: the fields of the slides, by the reading threads and nothing else. Null: a whole
    run, with a stand-in for the engine that answers at once. Fixed: one that takes twice as long
    for a field as reading it. GPU: one that sleeps as long as a GPU of that speed computes. Of
    bound: the rate over that of reading alone (null), or over the stand-in's own (fixed, GPU).
    CPU: seconds of all threads for a field. The ways take turns.
    """
    from sshr_deploy.atomic import check_writable, write_json
    from sshr_deploy.benchmarks.host import measure_host
    from sshr_deploy.bundle import load_bundle
    from sshr_deploy.cli.benchmark_tables import print_host
    from sshr_deploy.cli.console import say
    from sshr_deploy.geometry import PATCH, field_geometry

    try:
        geometry = PATCH if side_px == PATCH.side_px else field_geometry(side_px)
    except ValueError as error:
        raise UsageError(f"--side-px {side_px}: {error}") from None
    if json_file is not None:
        check_writable(json_file)
    report = measure_host(
        load_bundle(bundle),
        slides,
        geometry,
        patches_per_s=patches_per_s,
        readers=readers,
        batch=batch,
        rounds=rounds,
        on_step=say,
    )
    print_host(report)
    if json_file is not None:
        write_json(json_file, report)
        typer.echo(str(json_file))
