"""What a run tells whoever watches it, and how long its stages take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

Kind = Literal["slide", "patch"]
Status = Literal["done", "skipped", "failed"]
OnStep = Callable[[str], None]
"""Told in a few words what is being done."""


@dataclass(frozen=True)
class InputResult:
    """How one slide or patch ended."""

    path: Path
    kind: Kind | None
    status: Status
    """"skipped": an earlier run did it with the same settings."""
    reason: str = ""
    """Why it failed; one line."""
    summary: dict[str, Any] = field(default_factory=dict)
    """Content of its `summary.json`; empty if it failed."""


class Reporter(Protocol):
    """Watches a run."""

    def run_started(self, inputs: int) -> None:
        """`inputs` slides and patches were found."""

    def input_started(self, path: Path, tiles: int) -> None:
        """A slide begins, with so many tiles to compute; the parts of an image count as
        tiles."""

    def tiles_done(self, tiles: int) -> None:
        """So many more tiles of the current input are computed."""

    def input_finished(self, result: InputResult) -> None:
        """An input ended."""


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
        self._reporter.tiles_done(done - self._done)
        self._done = done


class Stages:
    """Seconds by stage, of one thread; a stage within a stage counts as the inner one alone."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._seconds: dict[str, float] = {}
        self._inner = 0.0  # seconds of finished stages

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the block's time to stage `name`."""
        start, inner_before = time.perf_counter(), self._inner
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            own = elapsed - (self._inner - inner_before)
            self._inner = inner_before + elapsed
            self._seconds[name] = self._seconds.get(name, 0.0) + own

    def seconds(self) -> dict[str, float]:
        """Seconds by stage, in the order of first use, and "total" since the beginning."""
        total = time.perf_counter() - self._started
        return {k: round(v, 4) for k, v in {**self._seconds, "total": total}.items()}


class Sparse:
    """Passes a line on only where some seconds have gone since the last that it passed on."""

    def __init__(self, say: Callable[[str], None], every_s: float = 5.0) -> None:
        self._say, self._every_s = say, every_s
        self._said = time.monotonic()

    def __call__(self, text: str) -> None:
        """Say it, or not."""
        if time.monotonic() - self._said >= self._every_s:
            self._said = time.monotonic()
            self._say(text)
