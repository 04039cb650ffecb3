"""Who watches a run, and what it is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from sshr_deploy.runtime.results.findings import InputResult
from sshr_deploy.runtime.settings import RunOptions

OnTiles = Callable[[Path, int, int], None]
"""Told how far an input is: its path, the tiles done, all its tiles."""


def no_tiles(_path: Path, _done: int, _tiles: int) -> None:
    """An `OnTiles` for those who need not know."""


class Options(RunOptions, total=False):
    """Options of a run, and who watches it."""

    on_tiles: OnTiles


class Reporter(Protocol):
    """Watches a run, of which several inputs may be under way at a time."""

    def run_started(self, inputs: int) -> None:
        """`inputs` slides and images were found."""

    def input_started(self, path: Path, tiles: int, tile_mm2: float | None = None) -> None:
        """A slide begins, with so many tiles or fields left to compute, each of `tile_mm2`; or an
        image, whose parts count as tiles and have no known area."""

    def taken_over(self, path: Path, holder: str) -> None:
        """An input was that of another run, which gave no sign of life: `holder` is who it was.

        May come from another thread than the rest.
        """

    def tiles_done(self, path: Path, tiles: int) -> None:
        """So many more tiles of an input that has begun are computed."""

    def input_finished(self, result: InputResult) -> None:
        """An input ended; it may not have begun."""


class PartsProgress:
    """Tells a reporter how many parts are done of images that come one after the other."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._path: Path | None = None
        self._done = 0

    def __call__(self, path: Path, done: int, parts: int) -> None:
        """`done` of the `parts` of the image at `path` are computed."""
        if path != self._path:
            self._path, self._done = path, 0
            self._reporter.input_started(path, parts)
        self._reporter.tiles_done(path, done - self._done)
        self._done = done


class WatcherError(BaseException):
    """An error of `on_tiles`; no failure of an input, so it ends a run as Ctrl-C does."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class TileCounter:
    """A reporter that tells `on_tiles` how far each input is, and nothing else."""

    def __init__(self, on_tiles: OnTiles) -> None:
        self._on_tiles = on_tiles
        self._counts: dict[Path, tuple[int, int]] = {}

    def run_started(self, inputs: int) -> None:
        """See `Reporter`."""

    def input_started(self, path: Path, tiles: int, tile_mm2: float | None = None) -> None:  # noqa: ARG002
        """See `Reporter`."""
        self._tell(path, 0, tiles)

    def taken_over(self, path: Path, holder: str) -> None:
        """See `Reporter`."""

    def tiles_done(self, path: Path, tiles: int) -> None:
        """See `Reporter`."""
        done, total = self._counts[path]
        self._tell(path, done + tiles, total)

    def input_finished(self, result: InputResult) -> None:
        """See `Reporter`."""
        self._counts.pop(result.path, None)

    def _tell(self, path: Path, done: int, tiles: int) -> None:
        self._counts[path] = done, tiles
        try:
            self._on_tiles(path, done, tiles)
        except Exception as error:
            raise WatcherError(error) from error
