"""Events for tests, and a listener that remembers them."""

from __future__ import annotations

from pathlib import Path

from sshr_deploy.runtime.operation.events import Code, Event, Fact

SLIDE = Path("/scanner/a b.svs")
DONE: dict[str, Fact] = {
    "folder": "/results/a b.svs", "seconds": 40.0, "tissue_mm2": 12.5, "turnaround_s": 200.0
}  # fmt: skip


def event(code: Code, slide: Path | None = SLIDE, **facts: Fact) -> Event:
    return Event(code, slide, facts, "2026-01-31T23:59:59+00:00")
