"""`sshr-deploy view`."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer


def view(
    results: Annotated[
        Path,
        typer.Argument(
            metavar="RESULTS",
            help="Folder that --out of infer or watch named.",
            show_default=False,
        ),
    ],
    port: Annotated[
        int,
        typer.Option(min=0, max=65535, help="Port to listen on.", show_default="a free one"),
    ] = 0,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Only print the address.")
    ] = False,
) -> None:
    """Show slides with their results in a browser: zoom, classes, regions, probabilities.

    Answers this machine alone, and only who has the address, which is another one each time.
    Nothing is written, and nothing fetched from elsewhere. Ctrl-C ends it.
    """
    from sshr_deploy.cli.console import say
    from sshr_deploy.errors import MissingExtraError, UsageError, counted

    if not results.is_dir():
        raise UsageError(f"{results} is not a folder; give the one that --out of infer named")
    try:
        from sshr_deploy.runtime.viewer.serving import Server, private_link
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn", "anyio"):
            raise
        raise MissingExtraError(error.name, "view") from error

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    with Server(results, port) as server, private_link(server.url) as link:
        typer.echo(server.url)
        say(f"{counted(server.inputs, 'input')} to look at; Ctrl-C ends the viewer")
        if not no_browser and _has_display():
            import webbrowser

            webbrowser.open(link)
            say("if no page opens, or one that says that a file is not there, open that address")
        try:
            server.run()
        except KeyboardInterrupt:  # the way to end it
            return


def _has_display() -> bool:
    """Whether a browser can show itself; in a terminal it would take the terminal."""
    import os
    import sys

    return sys.platform != "linux" or bool({"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys())
