"""What reporters print."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress

from sshr_deploy.cli.console import BarReporter, PlainReporter, _DoneColumn, _progress
from sshr_deploy.runtime.results.findings import InputResult, SlideSummary, SlideWarning, Tiles

A, B = Path("a.svs"), Path("deep/b.svs")


FAR = (SlideWarning(code="unlike", text="stained far lighter"),)


def done(path: Path, tiles: int = 40, warnings: tuple[SlideWarning, ...] = ()) -> InputResult:
    summary = SlideSummary.model_construct(
        seconds={"total": 12.34},
        tiles=Tiles(computed=tiles, total=50),
        stain_concern=None,
        fit=None,
        warnings=warnings,
    )
    return InputResult(path, "slide", "done", summary=summary)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


@pytest.fixture
def plain() -> PlainReporter:
    return PlainReporter(Console(file=io.StringIO(), width=200))


def lines(reporter: PlainReporter) -> list[str]:
    assert isinstance(reporter.console.file, io.StringIO)
    return reporter.console.file.getvalue().splitlines()


def test_plain_lines_of_one_slide_after_the_other(plain: PlainReporter, clock: list[float]) -> None:
    plain.run_started(3)
    plain.input_started(A, 40)
    for seconds in (4, 6, 4, 7):
        clock[0] += seconds
        plain.tiles_done(A, 10)
    plain.input_finished(done(A))
    plain.input_finished(InputResult(Path("c.png"), "patch", "failed", "it is broken"))
    plain.input_started(B, 1)
    plain.input_finished(done(B, tiles=0))
    assert lines(plain) == [
        "3 inputs",
        "[1/3] a.svs: 40 tiles",
        "  20/40 tiles, 2.0 tiles/s, 10 s left",
        "  a.svs: done in 12.3 s",
        "failed: it is broken",
        "[3/3] deep/b.svs: 1 tile",
        "  deep/b.svs: done in 12.3 s, no tissue found (--tissue all computes every tile)",
    ]


def test_plain_lines_name_the_slide_where_several_are_under_way(
    plain: PlainReporter, clock: list[float]
) -> None:
    plain.run_started(2)
    plain.input_started(A, 40)
    clock[0] += 5
    plain.input_started(B, 30)
    clock[0] += 10
    plain.tiles_done(B, 20)
    plain.tiles_done(A, 30)
    plain.input_finished(done(B))
    clock[0] += 11
    plain.tiles_done(A, 5)
    assert lines(plain) == [
        "2 inputs",
        "[1/2] a.svs: 40 tiles",
        "[2/2] deep/b.svs: 30 tiles",
        "  deep/b.svs: 20/30 tiles, 2.0 tiles/s, 5 s left",
        "  a.svs: 30/40 tiles, 2.0 tiles/s, 5 s left",
        "  deep/b.svs: done in 12.3 s",
        "  35/40 tiles, 1.3 tiles/s, 4 s left",
    ]


def bars(progress: Progress) -> list[tuple[str, float, float | None]]:
    return [(t.description, t.completed, t.total) for t in progress.tasks if t.visible]


def test_slides_one_after_the_other_share_a_bar() -> None:
    progress = Progress(console=Console(file=io.StringIO()))
    reporter = BarReporter(progress)
    reporter.run_started(2)
    reporter.input_started(A, 40)
    reporter.tiles_done(A, 15)
    assert bars(progress) == [("inputs", 0, 2), ("a.svs", 15, 40)]
    reporter.input_finished(done(A))
    assert bars(progress) == [("inputs", 1, 2), ("a.svs", 15, 40)]
    reporter.input_started(B, 0)
    assert bars(progress) == [("inputs", 1, 2), ("b.svs", 0, 1)]


def test_slides_that_are_under_way_together_have_a_bar_each() -> None:
    progress = Progress(console=Console(file=io.StringIO()))
    reporter = BarReporter(progress)
    reporter.run_started(3)
    reporter.input_started(A, 40)
    reporter.input_started(B, 30)
    reporter.tiles_done(B, 8)
    reporter.tiles_done(A, 5)
    assert bars(progress) == [("inputs", 0, 3), ("a.svs", 5, 40), ("b.svs", 8, 30)]
    reporter.input_finished(done(A))
    reporter.input_started(Path("c.svs"), 20)
    assert bars(progress) == [("inputs", 1, 3), ("c.svs", 0, 20), ("b.svs", 8, 30)]


def test_slides_are_told_by_their_area(plain: PlainReporter, clock: list[float]) -> None:
    plain.run_started(1)
    plain.input_started(A, 40, 0.25)
    clock[0] += 10
    plain.tiles_done(A, 10)
    assert lines(plain) == [
        "1 input",
        "[1/1] a.svs: 10.00 mm2 to compute",
        "  2.50/10.00 mm2, 0.25 mm2/s, 30 s left",
    ]


def test_a_bar_shows_areas_of_slides_and_counts_of_inputs() -> None:
    console = Console(file=io.StringIO(), width=200, force_terminal=True)
    with _progress(console) as progress:
        reporter = BarReporter(progress)
        reporter.run_started(3)
        reporter.input_started(A, 40, 0.25)
        reporter.tiles_done(A, 10)
        texts = [str(_DoneColumn().render(task)) for task in progress.tasks]
    assert texts == ["0/3", "2.50/10.00"]


def test_a_slide_to_look_at_is_warned_of_by_name(plain: PlainReporter) -> None:
    plain.run_started(2)
    border = SlideWarning(code="border", text="tissue is cut off")
    for path, found in ((A, (*FAR, border)), (Path("c.svs"), ())):
        plain.input_started(path, 40)
        plain.input_finished(done(path, warnings=found))
    warnings = [line for line in lines(plain) if "warning" in line]
    assert warnings == ["warning: a.svs: stained far lighter", "warning: a.svs: tissue is cut off"]


def test_a_bar_warns_of_such_a_slide_too() -> None:
    console = Console(file=io.StringIO(), width=200)
    with _progress(console) as progress:
        reporter = BarReporter(progress)
        reporter.run_started(1)
        reporter.input_started(A, 40)
        reporter.input_finished(done(A, warnings=FAR))
    assert isinstance(console.file, io.StringIO)
    assert "warning: a.svs: stained far lighter" in console.file.getvalue()
