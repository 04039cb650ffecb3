from __future__ import annotations

import json
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from sshr_deploy.errors import UsageError
from sshr_deploy.runtime.operation import health as health_module
from sshr_deploy.runtime.operation.events import Code
from sshr_deploy.runtime.operation.health import Health
from sshr_deploy.runtime.operation.metrics import Metrics
from sshr_deploy.runtime.operation.server import Address, Server, parse_address
from tests.runtime.operation.events import SLIDE, event


@pytest.mark.parametrize(
    ("text", "address", "url"),
    [
        ("9469", Address("127.0.0.1", 9469), "http://127.0.0.1:9469"),
        (":80", Address("127.0.0.1", 80), "http://127.0.0.1:80"),
        ("0.0.0.0:0", Address("0.0.0.0", 0), "http://0.0.0.0:0"),
        ("[::1]:9469", Address("::1", 9469), "http://[::1]:9469"),
    ],
)
def test_addresses(text: str, address: Address, url: str) -> None:
    assert parse_address(text) == address
    assert address.url == url


@pytest.mark.parametrize("text", ["", "host", "host:", "1:65536", "1:-1", "1:²", "::1:9469"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="`serve`"):
        parse_address(text)


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
def server(health: Health) -> Iterator[Server]:
    with Server(Address("127.0.0.1", 0), health, Metrics(health)) as server:
        yield server


def ask(server: Server, path: str, method: str = "GET") -> tuple[int, str, str]:
    """Status, type and body of an answer."""
    connection = HTTPConnection("127.0.0.1", server.address.port, timeout=10)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.headers.get("Content-Type", ""), answer.read().decode()
    finally:
        connection.close()


def test_healthz(server: Server, health: Health, monkeypatch: pytest.MonkeyPatch) -> None:
    health.serves(Path(), lambda: {"waiting": 2})
    health(event(Code.SLIDE_STARTED))
    status, kind, body = ask(server, "/healthz?verbose")
    told = json.loads(body)
    assert (status, kind) == (200, "application/json")
    assert told["works"] is True and told["running"] == 1 and told["queue"] == {"waiting": 2}
    assert SLIDE.name not in body
    monkeypatch.setattr(health_module, "SILENT_S", 0.0)
    status, _, body = ask(server, "/healthz")
    assert status == 503 and json.loads(body)["works"] is False


def test_metrics(server: Server) -> None:
    status, kind, body = ask(server, "/metrics")
    assert status == 200 and kind.startswith("text/plain; version=0.0.4")
    assert "sshr_up 1.0" in body


def test_nothing_else_is_served(server: Server) -> None:
    assert ask(server, "/")[0] == ask(server, "/../etc/passwd")[0] == 404
    assert ask(server, "/metrics", "POST")[0] == 501


def test_a_port_that_is_taken_is_refused(server: Server, health: Health) -> None:
    with pytest.raises(UsageError, match=f"{server.address.port} cannot be listened on.*port"):
        Server(server.address, health, Metrics(health))


def test_it_is_gone_after_closing(health: Health) -> None:
    with Server(Address("127.0.0.1", 0), health, Metrics(health)) as server:
        assert ask(server, "/healthz")[0] == 200
    with pytest.raises(OSError):
        ask(server, "/healthz")
