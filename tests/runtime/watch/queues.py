"""Queues for tests, and slides in them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sshr_deploy.runtime.watch import queue_file
from sshr_deploy.runtime.watch.queue import Queue, QueuedSlide, State

SLIDE = QueuedSlide(
    path=Path("/scans/a.svs"),
    folder=Path("/scans"),
    relative=Path("a.svs"),
    state=State.WAITING,
    signature="one",
    bytes=10,
    attempts=0,
    crashes=0,
    reason="",
    code="",
    found_s=100.0,
    written_s=100.0,
)
HOST = "here"


def new_queue(path: Path) -> Queue:
    queue_file.make(path)
    return Queue(path)


def slide(name: str, state: State = State.WAITING, **changes: object) -> QueuedSlide:
    path = Path("/scans") / name
    return replace(SLIDE, path=path, relative=Path(name), state=state, **changes)  # type: ignore[arg-type]


def states(queue: Queue) -> dict[str, str]:
    return {str(s.relative): s.state.value for s in queue.slides()}
