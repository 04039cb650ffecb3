"""Attacks: nothing but the page of this server, asked by its user, gets an answer."""

from __future__ import annotations

import socket
import stat
import threading
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from sshr_deploy.errors import UsageError
from sshr_deploy.runtime.viewer.app import _file_bytes
from sshr_deploy.runtime.viewer.opened import MAX_OPEN, OpenInput
from sshr_deploy.runtime.viewer.serving import Server, private_link
from tests.runtime.viewer.asking import ask, listed
from tests.runtime.viewer.conftest import EVIL

REFUSED = b"403: open the address that sshr-deploy view has printed\n"


def token_of(server: Server) -> str:
    return urllib.parse.urlsplit(server.url).path.strip("/")


@pytest.mark.parametrize(
    "path",
    ["/", "", "/inputs", "/static/main.js", "/inputs/1", "/inputs/1/picture/8/0_0", "/favicon.ico"],
)
@pytest.mark.parametrize("token", ["", "/x", "/" + "A" * 43, "/%00", "/%C3%A9"])
def test_without_the_token_there_is_nothing(server: Server, token: str, path: str) -> None:
    answer = ask(server, (token + path) or "/", raw=True)
    assert (answer.status, answer.body) == (403, REFUSED)


def test_part_of_the_token_is_not_enough(server: Server) -> None:
    token = token_of(server)
    for wrong in (token[:-1], token + "A", token.swapcase(), f"x/{token}"):
        assert ask(server, f"/{wrong}/inputs", raw=True).status == 403
    assert ask(server, f"/{token}/inputs", raw=True).status == 200


@pytest.mark.parametrize(
    "host", ["", "evil.example", "127.0.0.1", "127.0.0.1:1", "localhost", "127.0.0.1.evil.example"]
)
def test_another_host_gets_nothing(server: Server, host: str) -> None:
    assert ask(server, "inputs", Host=host).status in (400, 403)  # 400: no host is no HTTP/1.1


def test_a_name_of_this_machine_is_a_host(server: Server) -> None:
    port = urllib.parse.urlsplit(server.url).port
    assert ask(server, "inputs", Host=f"localhost:{port}").status == 200


@pytest.mark.parametrize(
    "origin", ["null", "https://evil.example", "http://127.0.0.1:1", "file://"]
)
def test_another_origin_gets_nothing(server: Server, origin: str) -> None:
    assert ask(server, "inputs", Origin=origin).status == 403


def test_the_own_origin_gets_an_answer_without_cors(server: Server) -> None:
    origin = server.url.removesuffix(f"/{token_of(server)}/")
    answer = ask(server, "inputs", Origin=origin)
    assert answer.status == 200
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_other_sites_may_open_the_page_alone(server: Server, site: str) -> None:
    visit: dict[str, Any] = {"Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    assert ask(server, "", Sec_Fetch_Site=site, **visit).status == 200
    assert ask(server, "inputs", Sec_Fetch_Site=site, **visit).status == 403
    assert ask(server, "", Sec_Fetch_Site=site, Sec_Fetch_Mode="no-cors").status == 403
    framed: dict[str, Any] = {"Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe"}
    assert ask(server, "", Sec_Fetch_Site=site, **framed).status == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_nothing_can_be_changed(server: Server, method: str) -> None:
    assert ask(server, "inputs", method=method).status == 405


@pytest.mark.parametrize(
    "path",
    [
        "../../../../etc/passwd",
        "static/../../app.py",
        "static/..%2f..%2fapp.py",
        "static/%2e%2e/%2e%2e/app.py",
        "static/....//app.py",
        "static//etc/passwd",
        "static/openseadragon/LICENSE.txt",
        "static/main.js%00.css",
        "inputs/..%2f..%2fetc/picture/1/0_0",
        "inputs/1/../../../etc/passwd",
        "inputs/-1",
        "inputs/1/picture/8/..%2f0_0",
        "inputs/1/thumbnail/../../summary.json",
        "inputs/99999999999999999999999999",
        f"inputs/{'9' * 5000}",
        f"inputs/1/picture/8/{'9' * 5000}_0",
    ],
)
def test_paths_lead_nowhere(server: Server, path: str) -> None:
    answer = ask(server, path)
    assert answer.status == 404
    assert b"root:" not in answer.body and b"import" not in answer.body


@pytest.mark.parametrize(
    "tail",
    [
        "picture/99/0_0",
        "picture/8/9999999999999999999_0",
        "mask/7/99/0_0",
        "mask/zz/4/0_0",
        f"mask/{'f' * 65}/4/0_0",
        "mask/-1/4/0_0",
        "nothing",
    ],
)
def test_tiles_that_are_not_there(server: Server, tail: str) -> None:
    number = listed(server)["a.tif"]["id"]
    assert ask(server, f"inputs/{number}/{tail}").status == 404


@pytest.mark.parametrize("query", ["", "x=1", "x=nan&y=1", "x=inf&y=0", "x=1e300&y=0", "x=a&y=b"])
def test_places_that_are_none(server: Server, query: str) -> None:
    number = listed(server)["a.tif"]["id"]
    assert ask(server, f"inputs/{number}/point?{query}").status == 400


@pytest.mark.parametrize("path", ["", "static/main.js", "inputs", "inputs/0"])
def test_every_answer_is_guarded(server: Server, path: str) -> None:
    headers = ask(server, path).headers
    assert "'unsafe" not in headers["content-security-policy"]
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers
    assert "set-cookie" not in headers


def test_a_thousand_tiles_at_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few are read at once, few wait; the others are told to come again."""
    viewer, lock, now = server._viewer, threading.Lock(), 0
    most = {"read": 0, "held": 0}
    read_tile = OpenInput.picture_tile

    def counted(one: OpenInput, *place: int) -> bytes:
        nonlocal now
        with lock:
            now += 1
            seen = {
                "read": now,
                "held": viewer._pictures._held,
            }
            most.update({name: max(most[name], number) for name, number in seen.items()})
        try:
            return read_tile(one, *place)
        finally:
            with lock:
                now -= 1

    monkeypatch.setattr(OpenInput, "picture_tile", counted)
    numbers = [listed(server)[name]["id"] for name in ("a.tif", EVIL)]
    url = urllib.parse.urlsplit(server.url)

    def ask_ten_times(number: int) -> list[int]:
        statuses = []
        with closing(HTTPConnection(url.netloc, timeout=30)) as connection:
            for _ in range(10):
                connection.request("GET", f"{url.path}inputs/{number}/picture/8/0_0")
                answer = connection.getresponse()
                answer.read()
                statuses.append(answer.status)
        return statuses

    with ThreadPoolExecutor(100) as pool:
        asked = pool.map(ask_ten_times, numbers * 50)
        statuses = [status for ten in asked for status in ten]
    assert len(statuses) == 1000
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= 60
    assert most["read"] <= 4
    assert most["held"] <= 4 + 64
    assert len(viewer._inputs._slots) <= MAX_OPEN
    assert ask(server, "inputs").status == 200


def test_this_machine_alone_is_listened_to(server: Server) -> None:
    port = urllib.parse.urlsplit(server.url).port
    assert server._socket.getsockname() == ("127.0.0.1", port)
    with pytest.raises(OSError):  # an address of this machine that is not listened on
        socket.create_connection(("127.0.0.2", port), timeout=2).close()


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHo"])
def test_silent_connections_shut_nobody_out(server: Server, said: bytes) -> None:
    place = ("127.0.0.1", urllib.parse.urlsplit(server.url).port)
    with ExitStack() as stack:
        for _ in range(150):
            silent = stack.enter_context(socket.create_connection(place, timeout=10))
            silent.sendall(said)
        for _ in range(3):
            assert ask(server, "inputs").status == 200


def test_a_connection_without_the_token_ends_with_its_answer(server: Server) -> None:
    place = ("127.0.0.1", urllib.parse.urlsplit(server.url).port)
    with socket.create_connection(place, timeout=10) as other:
        other.sendall(b"GET /inputs HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        with other.makefile("rb") as answer:
            assert answer.read().endswith(REFUSED)  # up to the end of the connection


def test_nobody_can_write_on_the_terminal(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    place = ("127.0.0.1", urllib.parse.urlsplit(server.url).port)
    for garbage in (b"\x16\x03\x01\n\n", b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"):
        with socket.create_connection(place, timeout=10) as other:
            other.sendall(garbage)
            assert other.recv(100).startswith(b"HTTP/1.1 400")
    assert not caplog.records


def test_a_link_shows_the_token_to_its_user_alone(server: Server) -> None:
    with private_link(server.url) as link:
        assert token_of(server) not in link
        page = Path(urllib.request.url2pathname(urllib.parse.urlsplit(link).path))
        assert stat.S_IMODE(page.parent.stat().st_mode) == 0o700
        assert server.url in page.read_text("utf-8")
    assert not page.exists()


def test_a_thumbnail_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "thumbnail.jpg").symlink_to(tmp_path / "secret")
    with pytest.raises(LookupError):
        _file_bytes(tmp_path / "thumbnail.jpg")
    assert _file_bytes(tmp_path / "secret") == b"secret"


def test_a_port_that_is_taken(server: Server, results: Path) -> None:
    port = urllib.parse.urlsplit(server.url).port
    assert port is not None
    with pytest.raises(UsageError, match=f"`port` {port} cannot be listened on"):
        Server(results, port)


def test_a_folder_without_results(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no results"):
        Server(tmp_path)
