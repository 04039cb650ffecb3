"""The viewer's server: this machine alone can reach it, until it is told to stop."""

from __future__ import annotations

import asyncio
import html
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from sshr_deploy.closing import Closing
from sshr_deploy.errors import UsageError
from sshr_deploy.runtime.viewer.access import HOSTS, new_token
from sshr_deploy.runtime.viewer.app import Viewer
from sshr_deploy.runtime.viewer.catalogue import Catalogue

_MAX_CONNECTIONS, _BACKLOG = 128, 64
"""A browser opens six. Together fewer than the files that a process may have open."""
_IDLE_S, _STOP_S = 30, 1


class Server(Closing):
    """Listens from the start, answers while `run` runs."""

    def __init__(self, results: Path, port: int = 0) -> None:
        """Serve the results of runs in a folder; port 0 lets the system choose a free one.

        Raises:
            UsageError: the folder holds no results, or the port cannot be had.
        """
        catalogue = Catalogue(results)
        if not catalogue.entries():
            raise UsageError(
                f"{results} holds no results that can be shown; give the folder that `out` of "
                "infer or watch named"
            )
        self._socket = _listen(port)
        port = self._socket.getsockname()[1]
        token = new_token()
        self.url = f"http://{HOSTS[0]}:{port}/{token}/"
        """Whoever knows it sees the results."""
        self.inputs = len(catalogue.entries())
        self._viewer = Viewer(catalogue, token, port)
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._viewer.app,
                http=_FewConnections,
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                log_level="error",  # anybody can send what is no HTTP; it would fill the terminal
                access_log=False,  # it would have the token
                server_header=False,
                proxy_headers=False,
                backlog=_BACKLOG,
                timeout_keep_alive=_IDLE_S,
                timeout_graceful_shutdown=_STOP_S,
            )
        )

    def run(self) -> None:
        """Answer until `stop`, or in the main thread until Ctrl-C or a signal to end."""
        self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        """Let `run` end soon."""
        self._server.should_exit = True

    def close(self) -> None:
        """Give the port and all files back, once `run` has ended; a second call does nothing."""
        self._socket.close()
        self._viewer.close()


class _FewConnections(H11Protocol):
    """Keeps connections few, so that slides can always be opened and the user always be answered.

    At the limit a new connection takes the place of the one that has waited longest without a whole
    request. Without the token a connection ends with its first answer (`Guard`), so that nobody
    else can hold a place for long.
    """

    _is_taken = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or end it where all others are the user's."""
        if len(self.connections) >= _MAX_CONNECTIONS and not self._end_idle():
            transport.abort()
            return
        self._is_taken = True
        self._made_s = self.loop.time()
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection that was taken."""
        if self._is_taken:
            super().connection_lost(exc)

    def _end_idle(self) -> bool:
        idle = [
            one
            for one in self.connections
            if isinstance(one, _FewConnections) and one.cycle is None
        ]
        if not idle:
            return False
        oldest = min(idle, key=lambda one: one._made_s)
        self.connections.discard(oldest)
        oldest.transport.abort()
        return True


@contextmanager
def private_link(url: str) -> Iterator[str]:
    """Address of a page that leads to `url` and that only this user can read.

    A browser's command line, which every user of the machine can see, then does not show the token.
    """
    with tempfile.TemporaryDirectory(prefix="sshr-deploy-view-") as folder:  # of mode 0700
        page = Path(folder) / "open.html"
        refresh = f'<meta http-equiv="refresh" content="0; url={html.escape(url)}">'
        page.write_text(f"<!doctype html><title>sshr-deploy view</title>{refresh}", "utf-8")
        yield page.as_uri()


def _listen(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # on Windows, two could listen on one port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOSTS[0], port))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise UsageError(
            f"`port` {port} cannot be listened on: {error.strerror or error}; choose another one, "
            "or leave it out"
        ) from error
    return listening
