"""`sshr-deploy infer`."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Annotated

import typer

from sshr_deploy.cli.engine import open_engine
from sshr_deploy.cli.options import (
    AllowUnqualifiedOption,
    BatchOption,
    EngineOption,
    ForceMppOption,
    ModelOption,
    MppOption,
    NoBuildOption,
    PrecisionOption,
    QuietOption,
)
from sshr_deploy.runtime.settings import (
    EngineChoice,
    InferSettings,
    Mode,
    TissueChoice,
    default_batch,
)


def infer(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            help="A slide, a patch image (PNG, JPEG), or a folder of them, searched recursively.",
        ),
    ],
    model: ModelOption,
    out: Annotated[
        Path, typer.Option(help="Folder for the results; each input gets a folder of its own name.")
    ],
    mode: Annotated[
        Mode, typer.Option(help="How tiles are put together; reference: each alone, as published.")
    ] = Mode.REFERENCE,
    mpp: MppOption = None,
    force_mpp: ForceMppOption = False,
    tissue: Annotated[
        TissueChoice,
        typer.Option(help="Tiles to compute; auto: those with tissue, all: every one."),
    ] = TissueChoice.AUTO,
    engine: EngineOption = EngineChoice.AUTO,
    precision: PrecisionOption = None,
    batch: BatchOption = None,
    no_build: NoBuildOption = False,
    allow_unqualified: AllowUnqualifiedOption = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Compute again what an earlier run finished.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print run.json on stdout instead of the table.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Segment slides and patches.

    Writes for each slide mask.ome.tif, overlay.png, regions.geojson (QuPath) and summary.json with
    areas in mm2; for each patch image mask.png, overlay.png and summary.json; for the run run.json
    and summary.csv. A second run with the same settings does only what is left.
    """
    from sshr_deploy.bundle import load_bundle
    from sshr_deploy.cli.console import make_reporter, print_results, say
    from sshr_deploy.runtime.run import run_infer
    from sshr_deploy.runtime.summary import Context

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: keep what is done
    bundle = load_bundle(model)
    with open_engine(
        bundle,
        engine,
        precision=precision,
        batch=batch,
        no_build=no_build,
        allow_unqualified=allow_unqualified,
        quiet=quiet,
    ) as session:
        info = session.info
        if not quiet and info.mask_agreement is not None:
            say(
                f"engine: {info.engine} {info.precision}, masks equal to the reference on "
                f"{info.mask_agreement:.3%} of pixels"
            )
        size = batch or default_batch(info.engine)
        settings = InferSettings(mode, mpp, force_mpp, tissue, size, overwrite)
        context = Context(bundle, session, settings)
        try:
            with make_reporter(quiet=quiet) as reporter:
                result = run_infer(source, out, session, context, reporter)
        except KeyboardInterrupt:
            say("interrupted; what is finished is kept, run the same command again to go on")
            raise typer.Exit(1) from None
    if result.stopped_by is not None:
        say(f"sshr-deploy: error: {result.stopped_by}; the run stopped here")
    if as_json:
        typer.echo(json.dumps(result.document, indent=2))
    elif not quiet:
        print_results(result.results, out)
    raise typer.Exit(result.exit_code)
