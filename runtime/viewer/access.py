"""Who gets an answer: only requests with the token, from this machine's own page.

The token is the first part of every path. A cookie would keep it out of the paths, but browsers
send a cookie of 127.0.0.1 to every port there, so that the server of another user of the machine
could be handed it.
"""

from __future__ import annotations

import hmac
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost")
_STYLE_OF_OPENSEADRAGON = "'sha256-9xTiqzfwFaL2SGb1rmr8gysEwVVjIvqWAgmZgqFqpEE='"
"""The one rule that OpenSeadragon puts into the page by itself."""
_HEADERS = (
    (
        b"content-security-policy",
        (
            "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self' blob:; "
            f"style-src 'self' {_STYLE_OF_OPENSEADRAGON}; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'"
        ).encode(),
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),  # slides stay out of the browser's files
)


def new_token() -> str:
    """A secret of 256 bits that can stand in a URL."""
    return secrets.token_urlsafe(32)


class Guard:
    """Answers 403 to all that is not the page of this server, asked by its user.

    A page of another site can make the browser send requests here, but neither without an `Origin`
    or `Sec-Fetch-Site` that tells, nor, by a name that it lets point to this machine, with our
    `Host`.
    """

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        """Guard `app`, whose paths begin with the token."""
        self._app = app
        self._token = token.encode()
        self._hosts = frozenset(f"{host}:{port}".encode() for host in HOSTS)
        self._origins = frozenset(b"http://" + host for host in self._hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return  # nothing else is served

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        if not self._may_ask(scope):
            await _refuse(send_guarded)
            return
        await self._app(scope, receive, send_guarded)

    def _may_ask(self, scope: Scope) -> bool:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        if _values(headers, b"host") not in [[host] for host in self._hosts]:
            return False
        if any(origin not in self._origins for origin in _values(headers, b"origin")):
            return False
        token = scope["path"].split("/", 2)[1:2]
        if not hmac.compare_digest("".join(token).encode("utf-8", "replace"), self._token):
            return False
        return _is_own(headers) or _opens_page(scope, headers)


def _is_own(headers: list[tuple[bytes, bytes]]) -> bool:
    """By our page, by the user's hand, or by a program that is no browser."""
    return set(_values(headers, b"sec-fetch-site")) <= {b"same-origin", b"none"}


def _opens_page(scope: Scope, headers: list[tuple[bytes, bytes]]) -> bool:
    """A link with the token that another program opens, as the one of `sshr-deploy view`."""
    is_page = scope["path"].count("/") == 2 and scope["path"].endswith("/")
    kinds = _values(headers, b"sec-fetch-mode"), _values(headers, b"sec-fetch-dest")
    return is_page and scope["method"] == "GET" and kinds == ([b"navigate"], [b"document"])


def _values(headers: list[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value for key, value in headers if key == name]


async def _refuse(send: Send) -> None:
    body = b"403: open the address that sshr-deploy view has printed\n"
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),  # nobody without the token holds one of the few connections
    ]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})
