from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sshr_deploy.benchmarks.contenders.judging import reference_of
from sshr_deploy.benchmarks.measuring.neighbours import Neighbours
from sshr_deploy.benchmarks.report.reading import read_document
from sshr_deploy.benchmarks.report.recorder import Recorder
from sshr_deploy.benchmarks.report.records import BenchmarkDocument
from sshr_deploy.benchmarks.throughput.energy import EnergyMeter
from sshr_deploy.benchmarks.throughput.measure import measure_throughput
from sshr_deploy.benchmarks.throughput.slide_amount import SlideAmount
from sshr_deploy.bundle import Bundle, load_bundle
from tests.benchmarks.throughput.stand_in_engine import DIFFERS, Clock, Cost, StandInEngine

SLIDE = SlideAmount("a slide", 3600.0, 180.0)
SIZES = (1, 2, 4, 8, 16, 32)


@pytest.fixture(scope="module")
def bundle(small_bundle_dir: Path) -> Bundle:
    return load_bundle(small_bundle_dir)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(Neighbours, "share", lambda _: 0.0)
    return Clock(monkeypatch)


def _up_to_four(batch: int, streams: int) -> float:
    """A call costs 0.2 s, and 0.05 s a patch from the fourth on; two streams share it."""
    return (0.2 + 0.05 * max(0, batch - 4)) / streams


def _measured(engine: StandInEngine, file: Path | None = None, **changes: Any) -> BenchmarkDocument:
    with Recorder("throughput", None, {}, file) as recorder:
        options: dict[str, Any] = {"batches": SIZES, "streams": (1, 2), "seconds": 2.0}
        options |= {"amount": lambda _: SLIDE, "settle_s": 0.0, **changes}
        measure_throughput(engine, recorder, **options)
    return recorder.document


def test_the_knee_is_the_smallest_setting_near_the_best(bundle: Bundle, clock: Clock) -> None:
    found = _measured(StandInEngine(bundle, clock, _up_to_four))
    rates = {row.name: row.figures["inputs_per_s"] for row in found.rows}
    assert rates["batch 1, streams 1"] == pytest.approx(5)
    assert rates["batch 4, streams 2"] == pytest.approx(40)
    assert rates["batch 8, streams 2"] == pytest.approx(40)
    assert found.facts["knee"]["name"] == "batch 4, streams 2"
    assert all(row.unit == "patches/s" and row.better == "higher" for row in found.rows)
    assert "batch 32, streams 1" not in rates, "eight and sixteen gained nothing"


def test_a_slide_is_told_for_its_inputs(bundle: Bundle, clock: Clock) -> None:
    found = _measured(StandInEngine(bundle, clock, _up_to_four))
    row = found.row("batch 4, streams 2")
    assert row.figures["slides_per_h"] == pytest.approx(40)
    assert row.figures["mm2_per_s"] == pytest.approx(2)
    assert found.facts["slide"] == {"about": "a slide", "inputs": 3600.0, "mm2": 180.0}
    none = _measured(StandInEngine(bundle, clock, _up_to_four), amount=lambda _: None)
    assert "slides_per_h" not in none.rows[0].figures


def test_an_engine_without_that_choice_has_no_streams(bundle: Bundle, clock: Clock) -> None:
    found = _measured(StandInEngine(bundle, clock, _up_to_four, has_streams=False))
    assert [row.name for row in found.rows][:2] == ["batch 1", "batch 2"]
    assert found.facts["knee"]["name"] == "batch 4"


def test_what_does_not_fit_is_a_row_that_says_so(bundle: Bundle, clock: Clock) -> None:
    grows: Cost = lambda batch, streams: 0.2 / streams  # noqa: E731
    found = _measured(StandInEngine(bundle, clock, grows, most=4))
    assert found.row("batch 8, streams 1").not_measured == "out of memory"
    assert found.row("batch 4, streams 2").samples
    assert found.facts["knee"]["batch"] == 4


def test_where_the_largest_does_not_open_the_smaller_do(bundle: Bundle, clock: Clock) -> None:
    engine = StandInEngine(bundle, clock, _up_to_four, opens_up_to=4)
    found = _measured(engine, streams=(1,))
    assert [row.name for row in found.rows if row.samples] == [
        f"batch {batch}, streams 1" for batch in (1, 2, 4)
    ]
    assert found.row("batch 8, streams 1").not_measured == "no memory to open it"
    assert engine.opened.count((32, 1)) == 1


def test_engines_made_for_a_batch_size_are_not_made_for_the_largest(
    bundle: Bundle, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StandInEngine, "has_static_batches", True)
    engine = StandInEngine(bundle, clock, _up_to_four)
    _measured(engine, streams=(1,))
    assert engine.opened == [(batch, 1) for batch in (1, 2, 4, 8, 16)]


def test_sizes_that_were_not_tried_are_told(bundle: Bundle, clock: Clock) -> None:
    found = _measured(StandInEngine(bundle, clock, _up_to_four), batches=(*SIZES, 64))
    said = "not tried with streams 1: batch 32, 64, as 2 in a row gained nothing"
    assert said in found.notes


def test_inputs_are_those_of_the_reference(bundle: Bundle, clock: Clock) -> None:
    engine = StandInEngine(bundle, clock, _up_to_four)
    _measured(engine, batches=(2,), streams=(1,))
    (session,) = engine.sessions
    assert session.seen == {int(reference_of(bundle).patches[:2].sum())}


def test_joules_beside_other_work_are_not_told_of_the_processor(
    bundle: Bundle, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = lambda _: {"cpu": 60 * clock.now, "gpu": 200 * clock.now}  # noqa: E731
    monkeypatch.setattr(EnergyMeter, "joules", both)
    quiet = _measured(StandInEngine(bundle, clock, _up_to_four)).row("batch 4, streams 2")
    assert quiet.figures["cpu_joules_per_slide"] == pytest.approx(60 * 90)
    monkeypatch.setattr(Neighbours, "share", lambda _: 0.5)
    busy = _measured(StandInEngine(bundle, clock, _up_to_four)).row("batch 4, streams 2")
    assert busy.figures["cpu_joules_per_slide"] is None
    assert busy.refused["cpu_joules_per_slide"].startswith("other work")
    assert busy.figures["gpu_joules_per_slide"] == pytest.approx(200 * 90)


def test_masks_that_disagree_get_no_speed_unless_it_is_allowed(
    bundle: Bundle, clock: Clock
) -> None:
    refused = _measured(StandInEngine(bundle, clock, _up_to_four, agreement=DIFFERS))
    assert not any(row.samples for row in refused.rows)
    assert all((row.not_measured or "").startswith("its masks disag") for row in refused.rows)
    allowed = {"agreement": DIFFERS, "allow_unqualified": True}
    taken = _measured(StandInEngine(bundle, clock, _up_to_four, **allowed))
    assert all(row.samples and row.facts["unqualified"] for row in taken.rows)


def test_a_busy_machine_has_no_knee(
    bundle: Bundle, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Neighbours, "share", lambda _: 0.5)
    found = _measured(StandInEngine(bundle, clock, _up_to_four))
    assert found.facts["knee"] is None
    assert any(note.startswith("the knee is not told: other work") for note in found.notes)


def test_an_interruption_leaves_the_rows_that_were_taken(
    bundle: Bundle, clock: Clock, tmp_path: Path
) -> None:
    calls, file = 0, tmp_path / "found.json"

    def interrupted(batch: int, streams: int) -> float:
        nonlocal calls
        calls += 1
        if calls > 60:
            raise KeyboardInterrupt
        return _up_to_four(batch, streams)

    with pytest.raises(KeyboardInterrupt):
        _measured(StandInEngine(bundle, clock, interrupted), file, batches=(1, 2), seconds=500)
    kept = read_document(file)
    assert not kept.complete
    assert 1 <= len(kept.rows) < 4
    assert all(row.samples for row in kept.rows)
