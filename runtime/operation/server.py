"""`/healthz` and `/metrics` over HTTP."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET, AF_INET6
from socketserver import TCPServer
from threading import Thread
from typing import TYPE_CHECKING, NamedTuple

from sshr_deploy.closing import Closing
from sshr_deploy.errors import UsageError
from sshr_deploy.runtime.operation.health import Health

if TYPE_CHECKING:
    from sshr_deploy.runtime.operation.metrics import Metrics

LOOPBACK = "127.0.0.1"
_CLIENT_S = 10.0
"""A client that says nothing for so long is let go."""

_STOP_S = 0.1
"""Closing takes so long at most."""


class Address(NamedTuple):
    """Where to listen."""

    host: str
    port: int
    """0 lets the system choose a free one."""

    @property
    def url(self) -> str:
        """The address as it is typed into a browser."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


def parse_address(text: str) -> Address:
    """The address of "9469", "0.0.0.0:9469" or "[::1]:9469"; loopback where no host is given.

    Raises:
        UsageError: it is none of those.
    """
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not port.isascii() or not port.isdecimal() or int(port) > 0xFFFF:
        raise UsageError(f"`serve` {text!r} has no port from 0 to 65535; give PORT or HOST:PORT")
    if (":" in host) != bracketed:
        raise UsageError(f"`serve` {text!r}: write the host of IPv6 in brackets, as in [::1]:9469")
    return Address(host.strip("[]") or LOOPBACK, int(port))


class Server(Closing):
    """Answers in threads of its own until it is closed.

    Nothing of what it tells names a slide: names of slides may tell who a patient is.
    """

    def __init__(self, address: Address, health: Health, metrics: Metrics) -> None:
        """Begin to answer.

        Raises:
            UsageError: the address cannot be had.
        """
        try:
            self._server = _HttpServer(address, health, metrics)
        except OSError as error:
            raise UsageError(
                f"`serve`: {address.host}:{address.port} cannot be listened on: "
                f"{error.strerror or error}; choose another port, or a host of this machine"
            ) from error
        self.address = Address(address.host, self._server.server_address[1])
        """With the port that the system chose."""
        serve = partial(self._server.serve_forever, poll_interval=_STOP_S)
        self._thread = Thread(target=serve, name="server", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop to listen."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = os.name == "posix"  # on Windows, two could listen on one port

    def __init__(self, address: Address, health: Health, metrics: Metrics) -> None:
        self.address_family = AF_INET6 if ":" in address.host else AF_INET
        self.address, self.health, self.metrics = address, health, metrics
        super().__init__((address.host, address.port), _Handler)

    def server_bind(self) -> None:
        """Bind without asking name servers for this machine's name, as `HTTPServer` would."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.address


class _Handler(BaseHTTPRequestHandler):
    timeout = _CLIENT_S
    server: _HttpServer
    server_version, sys_version = "sshr-deploy", ""

    def do_GET(self) -> None:
        """Answer one request."""
        path = self.path.partition("?")[0]
        if path == "/healthz":
            self._send(*_health(self.server.health), "application/json")
        elif path == "/metrics":
            text = self.server.metrics.text()
            self._send(HTTPStatus.OK, text, "text/plain; version=0.0.4; charset=utf-8")
        else:
            self._send(HTTPStatus.NOT_FOUND, b"ask for /healthz or /metrics\n", "text/plain")

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged."""


def _health(health: Health) -> tuple[HTTPStatus, bytes]:
    report = health.report()
    status = HTTPStatus.OK if report.works else HTTPStatus.SERVICE_UNAVAILABLE
    return status, json.dumps(asdict(report), indent=2).encode() + b"\n"
