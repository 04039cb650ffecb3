"""`sshr-deploy watch`."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sshr_deploy.cli.engine import RayChoice, open_engines
from sshr_deploy.cli.operating import Operating
from sshr_deploy.cli.option_names import as_options
from sshr_deploy.cli.options import QUEUE_NAME, QueueOption
from sshr_deploy.cli.run_options import SharedOptions
from sshr_deploy.cli.stopping import stop_on_sigterm
from sshr_deploy.runtime.watch.order import Order

if TYPE_CHECKING:
    from sshr_deploy.runtime.pipeline.spec import RunSpec
    from sshr_deploy.runtime.watch.service import WatchSettings


def watch(
    *,
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="FOLDER", help="Folders where scanners put slides."),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER",
            help="Folder for the results; each slide gets a folder by its path below FOLDER, of "
            "several ones below the name of its own.",
        ),
    ],
    queue: QueueOption = None,
    settle: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=0,
            help="Seconds without a change after which a slide is complete.",
        ),
    ] = 60,
    poll: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=0.1,
            help="Seconds between looks at the folders; with the extra [watch] installed, the "
            "system tells of most changes at once.",
        ),
    ] = 10,
    order: Annotated[
        Order, typer.Option(help="Which slide is next, by the time it was written.")
    ] = Order.OLDEST,
    attempts: Annotated[
        int,
        typer.Option(
            min=1,
            max=100,
            help="A slide that failed so often is put into quarantine; it is tried again after 1, "
            "2, 4 ... minutes.",
        ),
    ] = 3,
    min_free_gib: Annotated[
        float,
        typer.Option(
            metavar="GIB", min=0, help="Begin no slide with less free on the disk of the results."
        ),
    ] = 5,
    once: Annotated[
        bool, typer.Option("--once", help="End when nothing is left that can be done.")
    ] = False,
    chosen: SharedOptions,
) -> None:
    """Segment slides as a scanner writes them.

    Runs until it is ended (Ctrl-C, SIGTERM), for months. A slide is taken once it has not changed
    for a while, and is done as infer does it; images (PNG, JPEG) are left alone. Ended in whatever
    way, even by a power cut, it goes on where it was when it is started again. The queue command
    shows the slides and how they fare, report.html and summary.csv the results.

    Exit codes: 0 ended as asked; 1 with --once, slides failed, or wait for a lost folder or for
    space on the disk; 1 or 2 it cannot go on, see its last line: a service manager starts it again.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    from sshr_deploy.runtime.watch.service import WatchSettings

    spec = chosen.spec()
    watching = WatchSettings(
        settle, poll, order, attempts, min_free_bytes=int(min_free_gib * 2**30), once=once
    )
    with chosen.operating() as operation:
        workers = chosen.workers(out, folders, operation.events)
        failures = _watch(
            spec, folders, out, queue, watching, operation, workers, quiet=chosen.quiet
        )
    raise typer.Exit(1 if once and failures else 0)


def _watch(
    spec: RunSpec,
    folders: Sequence[Path],
    out: Path,
    queue_path: Path | None,
    watching: WatchSettings,
    operation: Operating,
    workers: RayChoice | None,
    *,
    quiet: bool,
) -> int:
    """Watch until it ends; the number of attempts that failed, and of folders that are lost."""
    from sshr_deploy.bundle import read_manifest
    from sshr_deploy.cli.console import say
    from sshr_deploy.cli.watch_view import watch_view
    from sshr_deploy.runtime.operation.reporting import TakeoverReporter, started
    from sshr_deploy.runtime.pipeline.run_lock import run_lock
    from sshr_deploy.runtime.pipeline.stopping import StopRequest
    from sshr_deploy.runtime.pipeline.terms import terms_of
    from sshr_deploy.runtime.slides import check_mpp
    from sshr_deploy.runtime.watch.arrivals import Arrivals
    from sshr_deploy.runtime.watch.ownership import own_queue
    from sshr_deploy.runtime.watch.scanning import watched_folders
    from sshr_deploy.runtime.watch.service import Watch
    from sshr_deploy.runtime.watch.table import SummaryTable
    from sshr_deploy.runtime.watch.wake import Wake

    chosen = spec.settings
    check_mpp(chosen.mpp_um, force=chosen.force_mpp and chosen.mpp_table is None)
    watched, stop = watched_folders(folders, out), StopRequest()
    with (
        run_lock(out, terms_of(*read_manifest(spec.bundle), spec.settings)) as lock,
        own_queue(queue_path or out / QUEUE_NAME) as queue,
        open_engines(spec, workers, quiet=quiet, for_slides=True) as opened,
        watch_view(queue, watched, out, opened.info, quiet=quiet) as view,
        Wake([folder.path for folder in watched], watching.poll_s) as wake,
    ):
        events, health = operation.events.beside(view.on_event), operation.health
        context = opened.context(opened.settings, as_options)
        for note in () if quiet else context.notes:
            say(note)
        arrivals = Arrivals(queue, watched, out, events, spec.settings, settle_s=watching.settle_s)
        service = Watch(
            queue,
            arrivals,
            opened.workforce(out, lock, context, TakeoverReporter(view, events), stop),
            wake,
            out=out,
            table=SummaryTable(out, context.profile),
            events=events,
            settings=watching,
            stop=stop,
            is_lost=lock.is_lost,
            on_beat=health.alive,
        )
        health.serves(out, service.counts)
        stop_on_sigterm(stop)
        try:
            with started(events, health, opened.info):
                service.run()
        except KeyboardInterrupt:
            pass
    if not quiet:
        say("ended; start it again to go on")
    return service.failures + len(arrivals.lost)
