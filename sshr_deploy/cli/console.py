"""Output of the commands: progress and messages on stderr, results on stdout."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from sshr_deploy.cli.option_names import as_options
from sshr_deploy.cli.terminal import stderr_console
from sshr_deploy.errors import one_line
from sshr_deploy.runtime.machine.clock import Stopwatch

if TYPE_CHECKING:
    from sshr_deploy.runtime.pipeline.reporting import Reporter
    from sshr_deploy.runtime.results.findings import InputResult

_PLAIN_EVERY_S = 10.0


def say(text: str) -> None:
    """One line on stderr, settings named by their options."""
    stderr_console().print(as_options(text), markup=False)


@contextmanager
def make_reporter(*, quiet: bool) -> Iterator[Reporter]:
    """A progress bar on a terminal, plain lines elsewhere, failures only when quiet."""
    console = stderr_console()
    if quiet:
        yield QuietReporter(console)
    elif console.is_terminal:
        with _progress(console) as progress:
            yield BarReporter(progress)
    else:
        yield PlainReporter(console)


@contextmanager
def counting(total: int, unit: str, *, quiet: bool) -> Iterator[Callable[[], None]]:
    """Give what to call after each of `total` items: a bar on a terminal, sparse lines elsewhere.

    `unit` is the items' name in the plural.
    """
    console = stderr_console()
    if not quiet and console.is_terminal:
        with _progress(console) as progress:
            task = progress.add_task(unit, total=total, unit=unit)
            yield lambda: progress.advance(task)
        return
    done, said = 0, time.monotonic()

    def advance() -> None:
        nonlocal done, said
        done += 1
        if not quiet and (done == total or time.monotonic() - said >= _PLAIN_EVERY_S):
            said = time.monotonic()
            console.print(f"{done}/{total} {unit}", markup=False)

    yield advance


class QuietReporter:
    """Tells of failures only."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def run_started(self, inputs: int) -> None:
        """Nothing to say."""

    def input_started(self, path: Path, tiles: int, tile_mm2: float | None = None) -> None:
        """Nothing to say."""

    def tiles_done(self, path: Path, tiles: int) -> None:
        """Nothing to say."""

    def taken_over(self, path: Path, holder: str) -> None:
        """Say which run has ended unasked."""
        line = f"{path}: taken over from {holder}, which gave no sign of life"
        self.console.print(line, markup=False)

    def input_finished(self, result: InputResult) -> None:
        """Say why an input failed."""
        if result.status == "failed":
            self.console.print(as_options(f"failed: {result.reason}"), markup=False)

    def _say_warnings(self, result: InputResult) -> None:
        """Say why to look at a slide before its result is used."""
        for warning in result.warnings:
            line = f"warning: {result.path.name}: {warning.text}"
            self.console.print(as_options(line), markup=False)


@dataclass
class _UnderWay:
    """An input that has begun."""

    tiles: int
    tile_mm2: float | None
    """None where the area is not known."""
    watch: Stopwatch
    done: int = 0
    said_s: float = 0.0
    """When it was last spoken of, in seconds since it began."""

    def progress(self, now_s: float) -> str:
        """How far it is, how fast, and how long it will still take."""
        rate = self.done / now_s
        left = f"{(self.tiles - self.done) / rate:.0f} s left"
        if self.tile_mm2 is None:
            return f"{self.done}/{self.tiles} tiles, {rate:.1f} tiles/s, {left}"
        done, whole, speed = (n * self.tile_mm2 for n in (self.done, self.tiles, rate))
        return f"{done:.2f}/{whole:.2f} mm2, {speed:.3g} mm2/s, {left}"


class PlainReporter(QuietReporter):
    """One line when an input begins and ends, and every ten seconds in between."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._under_way: dict[Path, _UnderWay] = {}

    def run_started(self, inputs: int) -> None:
        """Say how many inputs there are."""
        self.inputs = inputs
        self.finished = 0
        self.console.print("1 input" if inputs == 1 else f"{inputs} inputs")

    def input_started(self, path: Path, tiles: int, tile_mm2: float | None = None) -> None:
        """Say which input begins."""
        number = self.finished + len(self._under_way) + 1
        self._under_way[path] = _UnderWay(tiles, tile_mm2, Stopwatch())
        size = "1 tile" if tiles == 1 else f"{tiles} tiles"
        if tile_mm2 is not None:
            size = f"{tiles * tile_mm2:.2f} mm2 to compute"
        self.console.print(f"[{number}/{self.inputs}] {path}: {size}", markup=False)

    def tiles_done(self, path: Path, tiles: int) -> None:
        """Say how far it is, at most every ten seconds; and which, where several are under way."""
        state = self._under_way[path]
        state.done += tiles
        now_s = state.watch.seconds()
        if now_s - state.said_s >= _PLAIN_EVERY_S and state.done < state.tiles:
            state.said_s = now_s
            name = f"{path}: " if len(self._under_way) > 1 else ""
            self.console.print(f"  {name}{state.progress(now_s)}", markup=False)

    def input_finished(self, result: InputResult) -> None:
        """Say how it ended."""
        self.finished += 1
        self._under_way.pop(result.path, None)
        summary = result.summary
        if summary is None:
            super().input_finished(result)
            return
        seconds = summary.seconds.get("total", 0.0)
        took = "done earlier" if result.status == "skipped" else f"done in {seconds:.1f} s"
        if summary.tiles is not None and summary.tiles.computed == 0:
            took += ", no tissue found (--tissue all computes every tile)"
        self.console.print(f"  {result.path}: {took}", markup=False)
        self._say_warnings(result)


class _DoneColumn(ProgressColumn):
    """How much is done of how much: areas with decimals, all else counted."""

    def render(self, task: Task) -> Text:
        decimals = 2 if task.fields["unit"] == "mm2" else 0
        whole = "?" if task.total is None else f"{task.total:.{decimals}f}"
        return Text(f"{task.completed:.{decimals}f}/{whole}", style="progress.download")


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        unit = task.fields["unit"]
        return Text("" if speed is None else f"{speed:.{3 if unit == 'mm2' else 1}f} {unit}/s")


class BarReporter(QuietReporter):
    """A bar for the inputs of the run, and one for the area or tiles of each that is under way."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(progress.console)
        self.progress = progress
        self.run = progress.add_task("inputs", total=None, unit="inputs")
        self._bars: dict[Path, TaskID] = {}
        self._mm2: dict[Path, float] = {}  # of a tile; 1 where tiles are counted
        self._idle = [self._add_bar()]

    def run_started(self, inputs: int) -> None:
        """Set the length of the first bar."""
        self.progress.update(self.run, total=inputs)

    def input_started(self, path: Path, tiles: int, tile_mm2: float | None = None) -> None:
        """Begin a bar: that of an input which has ended, or another."""
        bar = self._idle.pop() if self._idle else self._add_bar()
        self._bars[path] = bar
        self._mm2[path] = tile_mm2 or 1.0
        self.progress.reset(
            bar,
            total=max(tiles, 1) * self._mm2[path],
            description=escape(one_line(path.name)),
            visible=True,
            unit="tiles" if tile_mm2 is None else "mm2",
        )

    def tiles_done(self, path: Path, tiles: int) -> None:
        """Move the input's bar."""
        self.progress.advance(self._bars[path], tiles * self._mm2[path])

    def input_finished(self, result: InputResult) -> None:
        """Move the first bar; the input's own stays as it is until another input takes it."""
        super().input_finished(result)
        self._say_warnings(result)
        self.progress.advance(self.run)
        if result.path in self._bars:
            self._idle.append(self._bars.pop(result.path))

    def _add_bar(self) -> TaskID:
        return self.progress.add_task("", total=None, visible=False, unit="tiles")


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        _DoneColumn(),
        _RateColumn(),
        TimeRemainingColumn(),
        console=console,
    )
