"""`sshr-deploy benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sshr_deploy.cli.options import BundleArgument, EngineOption
from sshr_deploy.runtime.settings import EngineChoice

benchmark_app = typer.Typer(
    name="benchmark", help="Measure a bundle on this machine.", no_args_is_help=True
)


@benchmark_app.callback()
def _group() -> None:
    """Measure a bundle on this machine."""


@benchmark_app.command()
def latency(
    bundle: BundleArgument,
    engine: EngineOption = EngineChoice.AUTO,
    batches: Annotated[
        str, typer.Option(help="Batch sizes in patches, with commas between.")
    ] = "1,4,8",
    seconds: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Measuring time for each batch size, in s.")
    ] = 10.0,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json", help="File for raw samples, environment and figures.", show_default="none"
        ),
    ] = None,
) -> None:
    """Warm latency (p50, p95, p99 in ms) and throughput (patches/s) by batch size.

    Cold start is told apart. The batch sizes take turns, so that a busy moment of the machine
    falls on all of them. Beside every speed stands how well the graph agrees with PyTorch, from
    the bundle's manifest.
    """
    from sshr_deploy.atomic import check_writable, write_json
    from sshr_deploy.benchmarks.latency import measure_latency, parse_batches, print_latency

    if json_file is not None:
        check_writable(json_file)
    report = measure_latency(bundle, engine.value, parse_batches(batches), seconds)
    print_latency(report)
    if json_file is not None:
        write_json(json_file, report)
        typer.echo(str(json_file))
