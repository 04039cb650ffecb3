"""The terminal of a watch: a picture of how it fares, or a line for each event."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sshr_deploy.cli.option_names import as_options
from sshr_deploy.cli.terminal import stderr_console
from sshr_deploy.errors import OutputError
from sshr_deploy.runtime.operation.events import Code, Event

if TYPE_CHECKING:
    from sshr_deploy.runtime.contract import SessionInfo
    from sshr_deploy.runtime.results.findings import InputResult
    from sshr_deploy.runtime.watch.queue import Queue, State
    from sshr_deploy.runtime.watch.scanning import WatchedFolder

_SHOWN = 8
_BAR_WIDTH = 30
_GOOD, _BAD, _CALM = "green", "red", "dim"
_LINES = {
    Code.SLIDE_FOUND: ("found", _CALM),
    Code.SLIDE_READY: ("complete", _CALM),
    Code.SLIDE_CHANGED: ("changed; waits until it is complete", "yellow"),
    Code.SLIDE_GONE: ("gone", "yellow"),
    Code.SLIDE_STARTED: ("begun", _CALM),
    Code.SLIDE_DONE: ("done", _GOOD),
    Code.SLIDE_FAILED: ("failed", _BAD),
    Code.SLIDE_QUARANTINED: ("in quarantine", _BAD),
    Code.FOLDER_LOST: ("cannot be read", _BAD),
    Code.FOLDER_BACK: ("can be read again", _GOOD),
    Code.DISK_LOW: ("no slide is begun", _BAD),
    Code.DISK_OK: ("slides are begun again", _GOOD),
    Code.TAKEN_OVER: ("taken over", "yellow"),
    Code.WORKER_LOST: ("a worker was lost", _BAD),
}
_TROUBLE = (Code.SLIDE_FAILED, Code.SLIDE_QUARANTINED, Code.FOLDER_LOST, Code.DISK_LOW)
STATE_STYLES = {"running": "bold cyan", "done": _GOOD, "failed": _BAD, "quarantined": _BAD}


class WatchView:
    """Prints a line for each event; a `Reporter` that has nothing to say of tiles."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        """With `quiet` of trouble only."""
        self._console, self._quiet = console, quiet

    def run_started(self, inputs: int) -> None:
        """Nothing to say."""

    def input_started(self, path: Path, tiles: int, tile_mm2: float | None = None) -> None:
        """Nothing to say."""

    def taken_over(self, path: Path, holder: str) -> None:
        """Nothing to say: an event tells of it."""

    def tiles_done(self, path: Path, tiles: int) -> None:
        """Nothing to say."""

    def input_finished(self, result: InputResult) -> None:
        """Nothing to say: the watch tells of it by an event, once it is in the queue."""

    def on_event(self, event: Event) -> None:
        """Print it."""
        if event.code in _LINES and (not self._quiet or event.code in _TROUBLE):
            where = "" if event.slide is None else f"{event.slide}: "
            self._console.print(f"{_clock()}  {where}{words_of(event)}", markup=False)


@dataclass
class _UnderWay:
    tiles: int
    done: int = 0


class LiveView(WatchView):
    """Shows the queue, what runs, and what happened last."""

    def __init__(
        self,
        console: Console,
        queue: Queue,
        folders: Sequence[WatchedFolder],
        out: Path,
        engine: SessionInfo,
    ) -> None:
        super().__init__(console)
        self._queue = queue
        places = ", ".join(str(folder.path) for folder in folders)
        self._heading = f"{places} → {out}"
        self._engine = f"{engine.engine} {engine.precision}, since {_clock()}"
        self._running: dict[Path, _UnderWay] = {}
        self._last: deque[tuple[str, Event]] = deque(maxlen=_SHOWN)
        self._trouble: dict[tuple[str, Path | None], str] = {}
        self._counts: Mapping[State, int] = {}

    def input_started(self, path: Path, tiles: int, tile_mm2: float | None = None) -> None:  # noqa: ARG002
        """Show its bar."""
        self._running[path] = _UnderWay(tiles)

    def tiles_done(self, path: Path, tiles: int) -> None:
        """Move its bar."""
        if path in self._running:
            self._running[path].done += tiles

    def input_finished(self, result: InputResult) -> None:
        """Take its bar away."""
        self._running.pop(result.path, None)

    def on_event(self, event: Event) -> None:
        """Remember it."""
        if event.code in (Code.FOLDER_LOST, Code.DISK_LOW):
            where = f"{event.slide}: " if event.slide else ""
            self._trouble[event.code.value, event.slide] = where + words_of(event)
        elif event.code is Code.FOLDER_BACK:
            self._trouble.pop((Code.FOLDER_LOST.value, event.slide), None)
        elif event.code is Code.DISK_OK:
            self._trouble.pop((Code.DISK_LOW.value, None), None)
        if event.code in _LINES and event.code is not Code.SLIDE_STARTED:
            self._last.append((_clock(), event))

    def render(self) -> RenderableType:
        """The picture."""
        parts: list[RenderableType] = [
            Text(self._heading, style="bold", overflow="ellipsis", no_wrap=True),
            Text(self._engine, style=_CALM),
            Text(),
            self._counted(),
            *(Text(text, style=f"bold {_BAD}") for text in list(self._trouble.values())),
            Text(),
        ]
        if self._running:
            parts += [self._bars(), Text()]
        if self._last:
            parts += [self._history(), Text()]
        parts.append(Text("Ctrl-C ends it; nothing that is done is lost", style=_CALM))
        return Group(*parts)

    def _counted(self) -> Text:
        with suppress(OutputError):  # the watch tells of it
            self._counts = self._queue.counts()
        return states_line(self._counts)

    def _bars(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for path, state in list(self._running.items()):
            whole = max(state.tiles, 1)
            share = state.done / whole if state.tiles else 1.0
            bar = ProgressBar(total=whole, completed=share * whole, width=_BAR_WIDTH)
            table.add_row(escape(path.name), bar, f"{share:.0%}")
        return table

    def _history(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for clock, event in list(self._last):
            name = "" if event.slide is None else event.slide.name or str(event.slide)
            words = Text(words_of(event), style=_LINES[event.code][1])
            table.add_row(Text(clock, style=_CALM), escape(name), words)
        return table


@contextmanager
def watch_view(
    queue: Queue, folders: Sequence[WatchedFolder], out: Path, engine: SessionInfo, *, quiet: bool
) -> Iterator[WatchView]:
    """A picture on a terminal, lines elsewhere, trouble only when quiet."""
    console = stderr_console()
    if quiet or not console.is_terminal:
        yield WatchView(console, quiet=quiet)
        return
    view = LiveView(console, queue, folders, out, engine)
    with Live(get_renderable=view.render, console=console, refresh_per_second=2):
        yield view


def states_line(counts: Mapping[State, int]) -> Text:
    """How many slides are in which state."""
    parts = [
        Text.assemble((str(count), f"bold {STATE_STYLES.get(state, '')}"), f" {state}")
        for state, count in counts.items()
        if count
    ]
    return Text(", ").join(parts) if parts else Text("no slide so far")


def words_of(event: Event) -> str:
    """What happened, in a few words."""
    facts, words = event.facts, _LINES[event.code][0]
    if event.code is Code.SLIDE_DONE:
        if facts.get("earlier"):
            return "done earlier"
        words += f" in {span(facts.get('seconds'))}"
        return f"{words}, {span(facts.get('turnaround_s'))} after it was written"
    if event.code is Code.SLIDE_QUARANTINED and facts.get("attempts"):
        words += f" after {facts['attempts']} failures"
    reason = str(facts.get("reason") or "").removeprefix(f"{event.slide} ")
    words += f": {as_options(reason)}" if reason else ""
    again = facts.get("again_at_utc")
    if again:
        words += f"; again at {datetime.fromisoformat(str(again)).astimezone():%H:%M}"
    return words


def span(seconds: object) -> str:
    """A time span as people say it: "42 s", "3 min", "5.2 h", "3.1 days"."""
    if not isinstance(seconds, int | float):
        return "?"
    for size, unit in ((86400, "days"), (3600, "h")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"


def _clock() -> str:
    return time.strftime("%H:%M:%S")
