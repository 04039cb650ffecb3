"""`sshr-deploy infer`."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sshr_deploy.cli.dry_run import dry_run
from sshr_deploy.cli.engine import open_engines
from sshr_deploy.cli.option_names import as_options
from sshr_deploy.cli.options import LargeOption
from sshr_deploy.cli.run_options import SharedOptions
from sshr_deploy.cli.stopping import stop_on_sigterm
from sshr_deploy.runtime.settings import LargeImages

if TYPE_CHECKING:
    from sshr_deploy.runtime.contract import SessionInfo
    from sshr_deploy.runtime.results.records import RunEffort


def infer(
    *,
    out: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER",
            help="Folder for the results; each input gets a folder of its own name.",
        ),
    ],
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="INPUT",
            help="Slides, images (PNG, JPEG), or folders of them, searched recursively.",
            show_default=False,
        ),
    ] = None,
    listed: Annotated[
        Path | None,
        typer.Option(
            "--list",
            metavar="FILE",
            help="Take the inputs from a file, a path a line, or from stdin with -; with a folder "
            "as INPUT they lie below it, and their results have the same places.",
        ),
    ] = None,
    chosen: SharedOptions,
    large: LargeOption = LargeImages.TILES,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Compute again what an earlier run finished.")
    ] = False,
    only_show: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Show what would be done and refused, how long it takes and how much disk, by "
            "trying a few inputs here; nothing is written into --out.",
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print run.json on stdout instead of the table.")
    ] = False,
) -> None:
    """Segment slides and images.

    Writes for each slide mask.ome.tif, overlay.png, regions.geojson (QuPath) and summary.json with
    areas in mm2; for each image (PNG, JPEG) mask.png, overlay.png and summary.json; for both the
    page report.html. A report.html of all, summary.csv and run.json cover what the folder holds,
    runs/ keeps the record of each run. A second run with the same settings does only what is left;
    two at once into one folder share the inputs, on several machines too, if model and settings are
    the same.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: keep what is done
    from sshr_deploy.bundle import read_manifest
    from sshr_deploy.cli.console import make_reporter, say
    from sshr_deploy.cli.inputs import given_sources, notes_on
    from sshr_deploy.cli.result_tables import print_results
    from sshr_deploy.runtime.operation.reporting import EventReporter, started
    from sshr_deploy.runtime.pipeline.stopping import StopRequest
    from sshr_deploy.runtime.pipeline.terms import terms_of
    from sshr_deploy.runtime.pipeline.work import prepare_run

    spec, quiet = chosen.spec(large=large, overwrite=overwrite), chosen.quiet
    stop, settings = StopRequest(), spec.settings
    sources = given_sources(inputs, listed)
    if only_show:
        dry_run(sources, out, spec, as_json=as_json, quiet=quiet)
    terms = terms_of(*read_manifest(spec.bundle), settings)
    with (
        chosen.operating() as (events, health),
        prepare_run(sources, out, settings, terms) as work,
    ):
        for line in () if quiet else notes_on(work.found, settings):
            say(line)
        slides = any(item.kind == "slide" for item in work.found.inputs)
        workers = chosen.workers(out, (work.source,), events)
        with open_engines(spec, workers, quiet=quiet, for_slides=slides) as opened:
            info = opened.info
            if not quiet and info.mask_agreement is not None:
                say(
                    f"engine: {info.engine} {info.precision}, "
                    f"{_threads(info)}masks equal to the reference on "
                    f"{info.mask_agreement:.3%} of pixels"
                )
            try:
                with make_reporter(quiet=quiet) as shown, started(events, health, info):
                    health.serves(out)
                    reporter = EventReporter(shown, events, health, out)
                    run = opened.start(work, opened.settings, reporter, as_options, stop)
                    stop_on_sigterm(stop)
                    for note in () if quiet else run.context.notes:
                        say(note)
                    for _ in run:  # the reporter tells how each input ended
                        pass
            except KeyboardInterrupt:
                say("interrupted; what is finished is kept, run the same command again to go on")
                raise typer.Exit(1) from None
    result = run.outcome
    if result.stopped_by is not None:
        early = "; the run stopped here" if result.document.stopped_by else ""
        say(f"sshr-deploy: error: {result.stopped_by}{early}")
    if as_json:
        typer.echo(json.dumps(result.document.model_dump(), indent=2))
    elif not quiet:
        print_results(result, out)
        if (effort := result.document.effort) is not None:
            say(_effort_line(effort))
    raise typer.Exit(result.exit_code)


def _effort_line(effort: RunEffort) -> str:
    """What limited a run, in one line."""
    from sshr_deploy.errors import counted

    computed, waited = effort.busy_s.get("infer", 0.0), effort.engine_waited_s
    waits = ", ".join(f"{cause} {seconds:.1f} s" for cause, seconds in waited.items())
    return (
        f"limited by: {effort.limited_by}; the engine computed {computed:.1f} s and waited "
        f"{sum(waited.values()):.1f} s{f' ({waits})' if waits else ''}; "
        f"{counted(effort.readers, 'reading thread')}"
    )


def _threads(info: SessionInfo) -> str:
    """ "2 streams, 2 threads, " before what follows; empty where the library chooses."""
    from sshr_deploy.errors import counted

    streams = f"{info.streams} streams, " if (info.streams or 1) > 1 else ""
    return streams + ("" if info.threads is None else f"{counted(info.threads, 'thread')}, ")
