"""`sshr-deploy queue list|retry|skip|report`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sshr_deploy.cli.commands import command
from sshr_deploy.cli.help import Group
from sshr_deploy.cli.options import QUEUE_NAME

if TYPE_CHECKING:
    from sshr_deploy.runtime.watch.queue import Queue, QueuedSlide, State, Watcher

queue_app = typer.Typer(
    cls=Group,
    name="queue",
    help="Slides of a watched folder, and how each fares: list, retry, skip, report.",
    no_args_is_help=True,
)

_QueueArgument = Annotated[
    Path,
    typer.Argument(
        metavar="OUT",
        help="Folder of the results of a watch, or the file that its --queue names.",
        show_default=False,
    ),
]
_PatternsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="PATTERN",
        help="Name or path of slides below the watched folder; * stands for anything.",
        show_default=False,
    ),
]
_JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
_DAYS = 14


@command(queue_app, "list")
def list_slides(
    out: _QueueArgument,
    everything: Annotated[
        bool, typer.Option("--all", help="All slides that are done, not the latest ones only.")
    ] = False,
    as_json: _JsonOption = False,
) -> None:
    """Every slide: its state, since when, and why it failed.

    Settling: it may still be written. Waiting: for its turn. Failed: it will be tried again.
    Quarantined: it failed too often, and waits for a retry or a new file. Skipped: a person said
    so.
    """
    from sshr_deploy.cli.queue_tables import print_slides

    with _open(out) as queue:
        slides, watcher = queue.slides(), queue.watcher()
        if as_json:
            document = {
                "watcher": watcher and _document(watcher),
                "slides": [_document(slide) for slide in slides],
            }
            typer.echo(json.dumps(document, indent=2))
        else:
            print_slides(queue.path, slides, watcher, everything=everything)


@command(queue_app)
def retry(out: _QueueArgument, patterns: _PatternsArgument) -> None:
    """Try slides again that failed, are in quarantine or were skipped; all with '*'."""
    from sshr_deploy.runtime.watch.queue import State

    from_states = (State.FAILED, State.QUARANTINED, State.SKIPPED)
    afresh = {"attempts": 0, "crashes": 0, "again_s": None, "reason": "", "code": ""}
    with _open(out) as queue:
        _move(queue, patterns, from_states, State.WAITING, "will be tried again", **afresh)


@command(queue_app)
def skip(out: _QueueArgument, patterns: _PatternsArgument) -> None:
    """Leave slides out that are not done, until they are retried; all with '*'."""
    from sshr_deploy.runtime.watch.queue import State

    from_states = (State.SETTLING, State.WAITING, State.FAILED, State.QUARANTINED)
    with _open(out) as queue:
        _move(queue, patterns, from_states, State.SKIPPED, "skipped")


@command(queue_app)
def report(
    out: _QueueArgument,
    days: Annotated[int, typer.Option(min=1, help="How many days to look back.")] = _DAYS,
    as_json: _JsonOption = False,
) -> None:
    """How long slides took, day by day, and why some failed.

    Turnaround: from the last change of a slide's file to its results, with all waiting.
    """
    from dataclasses import asdict

    from sshr_deploy.cli.queue_tables import print_report
    from sshr_deploy.runtime.watch import report as reports

    with _open(out) as queue:
        endings, counts = queue.endings(time.time() - days * 86400), queue.counts()
    by_day, failures = reports.days(endings), reports.failures(endings)
    if as_json:
        document = {
            "slides": {state.value: count for state, count in counts.items()},
            "days": [asdict(day) for day in by_day],
            "failures": [asdict(failure) for failure in failures],
        }
        typer.echo(json.dumps(document, indent=2))
    else:
        print_report(counts, by_day, failures)


def _open(out: Path) -> Queue:
    from sshr_deploy.runtime.watch.queue import Queue

    return Queue(out / QUEUE_NAME if out.is_dir() else out)


def _move(
    queue: Queue,
    patterns: list[str],
    from_states: tuple[State, ...],
    to: State,
    words: str,
    **changes: object,
) -> None:
    """Move the slides that match.

    Raises:
        UsageError: a pattern matches none, or none that can be moved.
    """
    from sshr_deploy.errors import UsageError, one_line
    from sshr_deploy.runtime.name_patterns import matches

    moved: list[QueuedSlide] = []
    with queue.writing():
        slides = queue.slides()
        for pattern in patterns:
            found = [s for s in slides if matches(pattern, s.relative) or str(s.path) == pattern]
            fit = [slide for slide in found if slide.state in from_states]
            if not found:
                raise UsageError(f"no slide in the queue matches {pattern}; see the list")
            if not fit:
                raise UsageError(
                    f"{found[0].path} is {found[0].state}, not {' or '.join(from_states)}"
                )
            moved += [slide for slide in fit if slide not in moved]
        for slide in moved:
            queue.move(slide.path, to, **changes)
    for slide in moved:
        typer.echo(one_line(f"{slide.path}: {words}"))


def _document(record: QueuedSlide | Watcher) -> dict[str, object]:
    """With times as ISO 8601, in UTC."""
    from dataclasses import asdict

    from sshr_deploy.runtime.machine.clock import iso_utc

    document: dict[str, object] = {}
    for name, value in asdict(record).items():
        if not name.endswith("_s"):
            document[name] = str(value) if isinstance(value, Path) else value
            continue
        document[f"{name.removesuffix('_s')}_utc"] = iso_utc(value) if value else None
    return document
