"""Options for what runs unattended: a log of events, health and metrics, hooks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from sshr_deploy.cli.options import UNATTENDED

if TYPE_CHECKING:
    from sshr_deploy.runtime.operation.events import Events
    from sshr_deploy.runtime.operation.health import Health
    from sshr_deploy.runtime.operation.metrics import Metrics

LogJsonOption = Annotated[
    Path | None,
    typer.Option(
        "--log-json",
        metavar="FILE",
        help="Append events with stable codes to this file, one JSON object a line; - prints them "
        "on stdout.",
        rich_help_panel=UNATTENDED,
    ),
]
ServeOption = Annotated[
    str | None,
    typer.Option(
        "--serve",
        metavar="[HOST:]PORT",
        help="Answer /healthz and /metrics (Prometheus) over HTTP; to this machine alone, unless "
        "a host is given.",
        rich_help_panel=UNATTENDED,
    ),
]
OnDoneOption = Annotated[
    str | None,
    typer.Option(
        "--on-done",
        metavar="COMMAND",
        help="Start this for each slide that is done or has failed; no shell. {slide}, {folder}, "
        "{status} and {reason} in it are replaced.",
        rich_help_panel=UNATTENDED,
    ),
]
OnDoneUrlOption = Annotated[
    str | None,
    typer.Option(
        "--on-done-url",
        metavar="URL",
        help="POST the same as JSON to this address.",
        rich_help_panel=UNATTENDED,
    ),
]


class Operating(NamedTuple):
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
    """Give events and health that are told as the options say; `quiet` says errors only.

    Raises:
        UsageError: an option cannot be used.
        OutputError: the log cannot be written.
        MissingExtraError: a package of [watch] is not installed.
    """
    from sshr_deploy.cli.console import say
    from sshr_deploy.runtime.operation.event_log import EventLog
    from sshr_deploy.runtime.operation.events import Events, Listener
    from sshr_deploy.runtime.operation.health import Health
    from sshr_deploy.runtime.operation.hook import Command, Hook, Post

    health = Health()
    listeners: list[Listener] = [health]
    with ExitStack() as stack:
        if log_json is not None:
            listeners.append(EventLog(log_json, say))
        if serve is not None:
            metrics, url = stack.enter_context(_serving(serve, health))
            listeners.append(metrics)
            if not quiet:
                say(f"{url}/healthz tells how this fares, {url}/metrics is for Prometheus")
        told = Events(*listeners)
        if on_done is not None:
            listeners.append(stack.enter_context(Hook(Command(on_done), told, say)))
        if on_done_url is not None:
            listeners.append(stack.enter_context(Hook(Post(on_done_url), told, say)))
        yield Operating(Events(*listeners), health)


@contextmanager
def _serving(text: str, health: Health) -> Iterator[tuple[Metrics, str]]:
    """Serve what is counted by the metrics that it gives, at the URL that it gives."""
    from sshr_deploy.errors import MissingExtraError
    from sshr_deploy.runtime.operation.server import Server, parse_address

    address = parse_address(text)
    try:
        from sshr_deploy.runtime.operation.metrics import Metrics
    except ImportError as error:
        raise MissingExtraError("prometheus-client", "watch") from error
    metrics = Metrics(health)
    with Server(address, health, metrics) as server:
        yield metrics, server.address.url
