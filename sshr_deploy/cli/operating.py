"""Options for what runs unattended: a log of events, health and metrics, hooks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sshr_deploy.runtime.operation.events import Events
    from sshr_deploy.runtime.operation.health import Health

LogJsonOption = Annotated[
    Path | None,
    typer.Option(
        "--log-json",
        help="Append events with stable codes to this file, one JSON object a line; - prints them "
        "on stdout.",
    ),
]
ServeOption = Annotated[
    str | None,
    typer.Option(
        "--serve",
        metavar="[HOST:]PORT",
        help="Answer /healthz and /metrics (Prometheus) over HTTP; to this machine alone, unless "
        "a host is given.",
    ),
]
OnDoneOption = Annotated[
    str | None,
    typer.Option(
        "--on-done",
        metavar="COMMAND",
        help="Start this for each slide that is done or has failed; no shell. {slide}, {folder}, "
        "{status} and {reason} in it are replaced.",
    ),
]
OnDoneUrlOption = Annotated[
    str | None,
    typer.Option("--on-done-url", metavar="URL", help="POST the same as JSON to this address."),
]


@dataclass(frozen=True)
class Operating:
    """What a command tells of its work."""

    events: Events
    health: Health


@contextmanager
def operating(
    *,
    log_json: Path | None = None,
    serve: str | None = None,
    on_done: str | None = None,
    on_done_url: str | None = None,
    quiet: bool = False,
) -> Iterator[Operating]:
    """Give events that are told as the options say.

    Raises:
        UsageError: an option cannot be used.
        OutputError: the log cannot be written.
    """
    from sshr_deploy.cli.console import say
    from sshr_deploy.runtime.operation.event_log import EventLog
    from sshr_deploy.runtime.operation.events import Events, Listener
    from sshr_deploy.runtime.operation.health import Health

    if serve or on_done or on_done_url or quiet:
        pass  # their listeners come with the next commits
    health = Health()
    listeners: list[Listener] = [health]
    if log_json is not None:
        listeners.append(EventLog(log_json, say))
    yield Operating(Events(*listeners), health)
