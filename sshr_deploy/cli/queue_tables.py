"""Tables of a queue for people."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from sshr_deploy.cli.option_names import as_options
from sshr_deploy.cli.tables import print_table
from sshr_deploy.cli.terminal import stdout_console
from sshr_deploy.cli.watch_view import STATE_STYLES, span, states_line
from sshr_deploy.errors import one_line
from sshr_deploy.runtime.watch.ownership import is_alive
from sshr_deploy.runtime.watch.queue import QueuedSlide, State, Watcher
from sshr_deploy.runtime.watch.report import Day, FailureCount

_SHOWN_DONE = 10
_ORDER = (
    *(State.RUNNING, State.FAILED, State.QUARANTINED),
    *(State.WAITING, State.SETTLING, State.SKIPPED, State.DONE),
)


def print_slides(
    path: Path, slides: Sequence[QueuedSlide], watcher: Watcher | None, *, everything: bool
) -> None:
    """Print who watches, how many slides there are in which state, and each of them."""
    console, now_s = stdout_console(), time.time()
    console.print(f"{path}: {_watched(watcher, now_s)}", markup=False)
    counts = Counter(slide.state for slide in slides)
    console.print(states_line({state: counts[state] for state in _ORDER}))
    done = sorted((s for s in slides if s.state is State.DONE), key=lambda s: s.ended_s or 0.0)
    hidden = 0 if everything else max(0, len(done) - _SHOWN_DONE)
    rest = sorted(
        (s for s in slides if s.state is not State.DONE),
        key=lambda s: (_ORDER.index(s.state), s.written_s, s.path),
    )
    shown = [*rest, *done[hidden:]]
    if not shown:
        return
    table = Table("slide", "state", "size", "when", "failed", "why")
    for column in (table.columns[2], table.columns[4]):
        column.justify = "right"
    for slide in shown:
        table.add_row(
            escape(one_line(str(slide.relative))),
            Text(slide.state.value, style=STATE_STYLES.get(slide.state, "")),
            _size(slide.bytes),
            _when(slide, now_s),
            f"{slide.attempts}×" if slide.attempts else "",
            escape(as_options(slide.reason.removeprefix(f"{slide.path} "))),
        )
    print_table(console, table)
    if hidden:
        console.print(f"and {hidden} more that are done; --all shows them")


def print_report(
    counts: Mapping[State, int], days: Sequence[Day], failures: Sequence[FailureCount]
) -> None:
    """Print slides by state, turnaround by day and failures by reason."""
    console = stdout_console()
    console.print(states_line(counts))
    if not days:
        console.print("no slide has ended in this time")
        return
    table = Table("day", "done", "failed", "quarantined", "p50", "p95", "longest")
    for column in table.columns[1:]:
        column.justify = "right"
    for day in days:
        took = (day.turnaround_p50_s, day.turnaround_p95_s, day.turnaround_max_s)
        spans = ["" if seconds is None else span(seconds) for seconds in took]
        table.add_row(day.day, str(day.done), str(day.failed), str(day.quarantined), *spans)
    print_table(console, table)
    console.print("p50, p95, longest: from the last change of a slide's file to its results")
    if failures:
        table = Table("failures", "attempts", "slides", "the last one")
        for column in table.columns[1:3]:
            column.justify = "right"
        for failure in failures:
            reason = escape(as_options(failure.last_reason))
            table.add_row(failure.code, str(failure.attempts), str(failure.slides), reason)
        print_table(console, table)


def _watched(watcher: Watcher | None, now_s: float) -> str:
    if watcher is None:
        return "never watched"
    who = f"process {watcher.pid} on {watcher.host}"
    if watcher.beat_s == 0:
        return f"not watched; {who} ended as it was asked to"
    silent = span(max(0.0, now_s - watcher.beat_s))
    if is_alive(watcher):
        return f"watched by {who}, last sign of life {silent} ago"
    return f"not watched: {who} gave its last sign of life {silent} ago; start it again"


def _when(slide: QueuedSlide, now_s: float) -> str:
    def ago(time_s: float | None) -> str:
        return span(max(0.0, now_s - (time_s or now_s)))

    match slide.state:
        case State.RUNNING:
            return f"for {ago(slide.started_s)}"
        case State.DONE:
            took = span((slide.ended_s or now_s) - slide.written_s)
            return f"{_clock(slide.ended_s or now_s, now_s)}, after {took}"
        case State.FAILED:
            left_s = (slide.again_s or now_s) - now_s
            return f"again in {span(left_s)}" if left_s > 0 else "again soon"
        case State.QUARANTINED:
            return f"{ago(slide.ended_s)} ago"
        case State.SKIPPED:
            return ""
    return f"written {ago(slide.written_s)} ago"


def _clock(time_s: float, now_s: float) -> str:
    """A time of today, else with its day."""
    then, now = datetime.fromtimestamp(time_s), datetime.fromtimestamp(now_s)
    return f"{then:%H:%M}" if then.date() == now.date() else f"{then:%Y-%m-%d %H:%M}"


def _size(size: int) -> str:
    if size < 10**6:
        return f"{size / 1e3:.0f} kB" if size else "0"
    return f"{size / 1e9:.1f} GB" if size >= 10**9 else f"{size / 1e6:.0f} MB"
