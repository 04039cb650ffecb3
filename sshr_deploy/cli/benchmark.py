"""`sshr-deploy benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sshr_deploy.cli.commands import command
from sshr_deploy.cli.engine import open_model
from sshr_deploy.cli.help import Group
from sshr_deploy.cli.options import (
    AllowUnqualifiedOption,
    BundleArgument,
    EngineOption,
    PrecisionOption,
    ThreadsOption,
)
from sshr_deploy.errors import UsageError
from sshr_deploy.runtime.engines.kinds import AUTO

if TYPE_CHECKING:
    from sshr_deploy.bundle import Bundle
    from sshr_deploy.runtime.contract import Session

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
def latency(
    bundle: BundleArgument,
    engine: EngineOption = AUTO,
    precision: PrecisionOption = None,
    allow_unqualified: AllowUnqualifiedOption = False,
    batches: Annotated[
        str, typer.Option(metavar="N,N,...", help="Batch sizes in patches, with commas between.")
    ] = "1,4,8",
    seconds: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=0.1, max=3600, help="Measuring time for each batch size, in s."
        ),
    ] = 10.0,
    threads: ThreadsOption = None,
    json_file: JsonOption = None,
) -> None:
    """Warm latency in ms and throughput in patches/s by batch size.

    Median (p50) and quartiles (p25, p75); p95 from 20 calls on, p99 from 100 on. Cold start is told
    apart. The batch sizes take turns, so that a busy moment of the machine
    falls on all of them. Beside every speed stands how well the masks agree with PyTorch's, as it
    was found on this machine.
    """
    from sshr_deploy.atomic import check_writable, write_json
    from sshr_deploy.benchmarks.latency import measure_latency, parse_batches
    from sshr_deploy.cli.benchmark_tables import print_latency
    from sshr_deploy.runtime.pipeline.spec import RunSpec
    from sshr_deploy.runtime.settings import InferSettings, OpenOptions

    if json_file is not None:
        check_writable(json_file)
    sizes = parse_batches(batches)

    def opened(loaded: Bundle) -> Session:
        options = OpenOptions(precision, sizes[-1], allow_unqualified=allow_unqualified)
        spec = RunSpec(bundle, InferSettings(), engine, options, threads)
        return open_model(spec, bundle=loaded).session

    report = measure_latency(bundle, opened, sizes, seconds)
    print_latency(report)
    if json_file is not None:
        write_json(json_file, report)
        typer.echo(str(json_file))


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
