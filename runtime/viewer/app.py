"""The routes of the viewer; everything is read, nothing written."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.convertors import IntegerConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sshr_deploy.closing import Closing
from sshr_deploy.errors import InputError
from sshr_deploy.runtime.results.file_names import THUMBNAIL_NAME
from sshr_deploy.runtime.viewer import details
from sshr_deploy.runtime.viewer.access import Guard
from sshr_deploy.runtime.viewer.catalogue import Catalogue
from sshr_deploy.runtime.viewer.opened import OpenInput, OpenInputs
from sshr_deploy.runtime.viewer.outlines import Box
from sshr_deploy.runtime.viewer.workers import TooBusyError, Workers

T = TypeVar("T")

_TILE_THREADS, _OTHER_THREADS, _WAITING = 4, 2, 64
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_PAGE = "index.html"
_CLASSES = re.compile("[0-9a-f]{1,64}")


class _BadQueryError(Exception):
    """A request that the page does not make."""


_STATUS: dict[Any, int] = {
    LookupError: 404,
    _BadQueryError: 400,
    InputError: 422,
    TooBusyError: 503,
}


class _ShortNumber(IntegerConvertor):
    """Numbers in paths; Python refuses to read those of thousands of digits."""

    regex = "[0-9]{1,9}"


register_url_convertor("number", _ShortNumber())


class Viewer(Closing):
    """The pages and tiles of one results folder, as an ASGI application `app`."""

    def __init__(self, catalogue: Catalogue, token: str, port: int) -> None:
        """Serve them below `/token/` on `port` of this machine."""
        self._catalogue = catalogue
        self._inputs = OpenInputs()
        self._pictures = Workers(_TILE_THREADS, _WAITING)
        self._masks = Workers(_OTHER_THREADS, _WAITING)  # they do not wait for slow slides
        self._regions = Workers(_OTHER_THREADS, _WAITING)  # nor others for an index of regions
        self._others = Workers(_OTHER_THREADS, _WAITING)
        self._static = _static_files()
        one = f"/{token}/inputs/{{id:number}}"
        tile = "{level:number}/{column:number}_{row:number}"
        routes = {
            f"/{token}/": self._page,
            f"/{token}/static/{{name}}": self._file,
            f"/{token}/inputs": self._listing,
            one: self._detail,
            f"{one}/thumbnail": self._thumbnail,
            f"{one}/picture/{tile}": self._picture_tile,
            f"{one}/mask/{{shown}}/{tile}": self._mask_tile,
            f"{one}/regions": self._lines,
            f"{one}/point": self._point,
        }
        starlette = Starlette(
            routes=[Route(path, answer, methods=["GET"]) for path, answer in routes.items()],
            exception_handlers=dict.fromkeys(_STATUS, _refused),
        )
        starlette.router.redirect_slashes = False
        self.app = Guard(starlette, token, port)

    async def _page(self, _: Request) -> Response:
        return self._static_answer(_PAGE)

    async def _file(self, request: Request) -> Response:
        return self._static_answer(request.path_params["name"])

    def _static_answer(self, name: str) -> Response:
        if name not in self._static:  # a name, not a path: nothing is looked up on the disk
            raise LookupError("there is no such file")
        suffix = name[name.rindex(".") :]
        return Response(self._static[name], media_type=_MEDIA_TYPES[suffix])

    async def _listing(self, request: Request) -> Response:
        def work() -> details.Document:
            self._catalogue.refresh()
            return details.listing(self._catalogue)

        return _json(await self._others.run(work, request.is_disconnected))

    async def _detail(self, request: Request) -> Response:
        entry = self._catalogue.entry(request.path_params["id"])

        def work() -> details.Document:
            self._inputs.retry(entry)
            with self._inputs.use(entry) as opened:
                return details.detail(opened)

        return _json(await self._others.run(work, request.is_disconnected))

    async def _thumbnail(self, request: Request) -> Response:
        entry = self._catalogue.entry(request.path_params["id"])
        if THUMBNAIL_NAME not in entry.files:
            raise LookupError("there is no thumbnail")
        path = entry.folder / THUMBNAIL_NAME
        try:
            body = await self._others.run(lambda: _file_bytes(path), request.is_disconnected)
        except OSError as error:
            raise LookupError("there is no thumbnail any more") from error
        return Response(body, media_type="image/jpeg")

    async def _picture_tile(self, request: Request) -> Response:
        place = _tile_place(request)

        def tile(one: OpenInput) -> bytes:
            try:
                return one.picture_tile(*place)
            except InputError:
                self._inputs.forget(one.entry)
                raise

        return Response(await self._ask(request, self._pictures, tile), media_type="image/jpeg")

    async def _mask_tile(self, request: Request) -> Response:
        place, shown = _tile_place(request), _shown(request)
        body = await self._ask(request, self._masks, lambda one: one.mask_tile(*place, shown))
        return Response(body, media_type="image/png")

    async def _lines(self, request: Request) -> Response:
        box = Box(*_numbers(request, "x0", "y0", "x1", "y1"))
        return _json(await self._ask(request, self._regions, lambda one: details.lines(one, box)))

    async def _point(self, request: Request) -> Response:
        x, y = _numbers(request, "x", "y")
        return _json(await self._ask(request, self._others, lambda one: details.point(one, x, y)))

    async def _ask(
        self, request: Request, workers: Workers, question: Callable[[OpenInput], T]
    ) -> T:
        """Ask the open input that the path names, in a thread."""
        entry = self._catalogue.entry(request.path_params["id"])

        def work() -> T:
            with self._inputs.use(entry) as opened:
                return question(opened)

        return await workers.run(work, request.is_disconnected)

    def close(self) -> None:
        """Close all files; requests have ended."""
        self._inputs.close()


def _file_bytes(path: Path) -> bytes:
    """Content of a file that lies there itself: a link may lead anywhere, a pipe never ends."""
    if not stat.S_ISREG(path.lstat().st_mode):
        raise LookupError("there is no such file")
    return path.read_bytes()


def _static_files() -> Mapping[str, bytes]:
    """Content by name of all that the page loads."""
    package = resources.files("sshr_deploy.runtime")
    folder = package / "viewer" / "static"
    vendored = folder / "openseadragon" / "openseadragon.min.js"
    files = [*folder.iterdir(), package / "report" / "tokens.css", vendored]
    return {file.name: file.read_bytes() for file in files if file.is_file()}


def _tile_place(request: Request) -> tuple[int, int, int]:
    part = request.path_params
    return part["level"], part["column"], part["row"]


def _shown(request: Request) -> int:
    """Bits of the classes to show, written as a hexadecimal number."""
    text: str = request.path_params["shown"]
    if _CLASSES.fullmatch(text) is None:
        raise LookupError("there are no such classes")
    return int(text, 16)


def _numbers(request: Request, *names: str) -> list[float]:
    try:
        numbers = [float(request.query_params[name]) for name in names]
    except (KeyError, ValueError) as error:
        raise _BadQueryError(f"give {', '.join(names)}") from error
    if not all(abs(number) < 1e9 for number in numbers):  # neither is NaN
        raise _BadQueryError("these are no places on a slide")
    return numbers


def _json(document: Any) -> Response:
    # ASCII alone: names of files may hold what is no UTF-8
    body = json.dumps(document, allow_nan=False, separators=(",", ":"))
    return Response(body.encode("ascii"), media_type="application/json")


async def _refused(_: Request, error: Exception) -> Response:
    status = next(code for kind, code in _STATUS.items() if isinstance(error, kind))
    text = str(error.args[0]) if error.args else ""
    line = f"{text}\n".encode("utf-8", "backslashreplace")
    headers = {"retry-after": "1"} if status == 503 else None
    return Response(line, status, headers, "text/plain; charset=utf-8")
