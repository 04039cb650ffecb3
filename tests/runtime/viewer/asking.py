"""Requests as they are, without the tidying that clients do to paths and headers."""

from __future__ import annotations

import json
from http.client import HTTPConnection
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from sshr_deploy.runtime.viewer.serving import Server


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def ask(
    server: Server, path: str, *, method: str = "GET", raw: bool = False, **headers: str
) -> Answer:
    """Ask for a path below the token, or with `raw` for the path as it is given.

    Headers are named with underscores; an empty one is not sent.
    """
    url = urlsplit(server.url)
    sent = {"Host": url.netloc} | {k.replace("_", "-"): v for k, v in headers.items()}
    connection = HTTPConnection(url.hostname or "", url.port, timeout=30)
    try:
        connection.putrequest(method, path if raw else url.path + path, skip_host=True)
        for name, value in sent.items():
            if value:
                connection.putheader(name, value)
        connection.endheaders()
        got = connection.getresponse()
        return Answer(got.status, {k.lower(): v for k, v in got.getheaders()}, got.read())
    finally:
        connection.close()


def listed(server: Server) -> dict[str, dict[str, Any]]:
    """Inputs by name."""
    answer = ask(server, "inputs")
    assert answer.status == 200
    return {one["name"]: one for one in json.loads(answer.body)["inputs"]}
