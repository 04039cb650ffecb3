"""`sshr-deploy benchmark roofline`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sshr_deploy.cli.benchmark import JsonOption, benchmark_app
from sshr_deploy.cli.benchmark_latency import EnginesOption, PrecisionsOption, split_names
from sshr_deploy.cli.commands import command
from sshr_deploy.cli.options import AllowUnqualifiedOption, BundleArgument, ThreadsOption
from sshr_deploy.errors import MissingExtraError
from sshr_deploy.precision import Precision


@command(benchmark_app, config=True)
def roofline(
    bundle: BundleArgument,
    engine: EnginesOption = None,
    precision: PrecisionsOption = None,
    allow_unqualified: AllowUnqualifiedOption = False,
    batch: Annotated[int, typer.Option(min=1, max=1024, help="Patches of a call.")] = 8,
    seconds: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=0.1,
            max=3600,
            help="Measuring time of each engine, in s; six calls are made at least.",
        ),
    ] = 5.0,
    layers: Annotated[
        bool,
        typer.Option("--layers", help="Profile the layers too, and show the ten that lose most."),
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder for the plot, as roofline.png and .svg."),
    ] = None,
    threads: ThreadsOption = None,
    json_file: JsonOption = None,
) -> None:
    """How near each engine comes to what the machine can do at best, and which layers hold it back.

    Ceilings: the fastest of some large matrix products in each precision, through the engines' own
    libraries, in GFLOP/s (a multiply-add is two operations; those of int8 count alike), and of
    copies in memory and within the caches, in GB/s read and written. Measured in this run.

    The network's operations and bytes are those of the bundle's graph: convolutions and matrix
    products one after another, each reading its values and weights and writing its values once,
    with all else fused into them. At the ceiling: the time that this takes at least, in ms. Of
    ceiling: that time over what a call took; not told where the machine was busy.

    Layers: from the libraries' own profilers, onnx-cpu and openvino alone, in one call by all
    threads. Lost: time above what the layer takes at its ceiling; not told where the machine was
    busy. A layer that computes nothing, such as a change of layout, has only its bytes.
    """
    from dataclasses import asdict

    try:
        from sshr_deploy.benchmarks.roofline.measure import RooflineSettings, measure_roofline
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "a package", "export") from error
    from sshr_deploy.atomic import check_writable
    from sshr_deploy.benchmarks.contenders.bundle import bundle_contenders, left_out
    from sshr_deploy.benchmarks.report.recorder import Recorder
    from sshr_deploy.benchmarks.report.subject import subject_of
    from sshr_deploy.bundle import load_bundle
    from sshr_deploy.cli.benchmark_document import shown
    from sshr_deploy.cli.console import say
    from sshr_deploy.cli.roofline_table import print_roofline
    from sshr_deploy.runtime.machine.threads import choose_threads

    if plot is not None:
        try:
            from sshr_deploy.benchmarks.report.pictures import picture_paths
            from sshr_deploy.benchmarks.roofline.plot import write_roofline
        except ModuleNotFoundError as error:
            raise MissingExtraError(error.name or "a package", "plots") from error
        for path in picture_paths(plot / "roofline"):
            check_writable(path)
    loaded, engines = load_bundle(bundle), split_names(engine)
    count = choose_threads(loaded.manifest.model.width, threads).count
    settings = RooflineSettings(batch, seconds, layers, count, allow_unqualified)
    contenders = bundle_contenders(
        loaded,
        engines=engines,
        precisions=[Precision.of(name) for name in split_names(precision)],
        threads=count,
        allow_unqualified=allow_unqualified,
        on_step=say,
    )
    recorder = Recorder("roofline", subject_of(loaded), asdict(settings), json_file)
    if (note := left_out(loaded, engines)) is not None:
        recorder.note(note)
    with shown(recorder, print_roofline, json_file):
        measure_roofline(loaded, contenders, settings, recorder, say)
    if plot is not None:
        written = write_roofline(recorder.document, plot / "roofline")
        for path in written:
            typer.echo(str(path))
        if not written:
            say("no plot: no engine was measured")
