from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sshr_deploy.benchmarks.measuring.neighbours import Neighbours
from sshr_deploy.benchmarks.report.reading import read_document
from sshr_deploy.benchmarks.report.recorder import Recorder
from sshr_deploy.benchmarks.report.records import Row
from sshr_deploy.benchmarks.throughput import energy, soak
from sshr_deploy.benchmarks.throughput.soak import measure_soak
from sshr_deploy.bundle import Bundle, load_bundle
from sshr_deploy.runtime.machine.nvml import GpuLoad
from tests.benchmarks.throughput.stand_in_engine import DIFFERS, Clock, StandInEngine


@pytest.fixture(scope="module")
def bundle(small_bundle_dir: Path) -> Bundle:
    return load_bundle(small_bundle_dir)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Two GPUs, of which one is held back by its heat, and no other work."""
    clock = Clock(monkeypatch)
    monkeypatch.setattr(Neighbours, "share", lambda _: 0.0)

    def loads() -> list[GpuLoad]:
        joules = 100 * clock.now
        return [
            GpuLoad(0, 88, 900, 7000, 100.0, joules, ("heat (hardware)",)),
            GpuLoad(1, 50, 1500, 7000, None, None, ()),
        ]

    for module in (soak, energy):
        monkeypatch.setattr(module, "gpu_loads", loads)
    monkeypatch.setattr(energy, "POWERCAP", Path("none"))
    return clock


def _soaked(engine: StandInEngine, minutes: float, file: Path | None = None) -> tuple[Row, Any]:
    with Recorder("soak", None, {}, file) as recorder:
        measure_soak(
            engine, recorder, batch=2, streams=None, minutes=minutes, amount=lambda _: None
        )
    (row,) = recorder.document.rows
    return row, recorder.document


def test_windows_tell_rate_heat_clocks_and_power(bundle: Bundle, clock: Clock) -> None:
    row, document = _soaked(StandInEngine(bundle, clock, lambda *_: 0.5), 1)
    assert len(row.samples) == 6
    assert row.samples == pytest.approx([4.0] * 6)
    window = row.facts["windows"][-1]
    assert window["until_s"] == pytest.approx(60, abs=3)
    first, second = window["gpus"]
    assert (first["temperature_celsius"], first["sm_clock_mhz"]) == (88, 900)
    assert first["slowed_by"] == ("heat (hardware)",)
    assert second["slowed_by"] == ()
    assert window["watts"] == {"gpu": pytest.approx(100)}
    assert "energy: GPU 1 does not tell its energy" in document.notes
    assert row.figures["gpu_watts"] == pytest.approx(100)


def test_a_machine_that_becomes_slower_is_seen(bundle: Bundle, clock: Clock) -> None:
    slower = StandInEngine(bundle, clock, lambda *_: 0.5 if clock.now < 90 else 0.8)
    row, _ = _soaked(slower, 3)
    assert row.figures["last_over_first"] == pytest.approx(0.5 / 0.8, rel=0.05)
    steady, _ = _soaked(StandInEngine(bundle, clock, lambda *_: 0.5), 3)
    assert steady.figures["last_over_first"] is None
    assert "overlap" in steady.refused["last_over_first"]


def test_other_work_and_too_few_windows_allow_no_trend(
    bundle: Bundle, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    short, _ = _soaked(StandInEngine(bundle, clock, lambda *_: 0.5), 0.2)
    assert short.refused["last_over_first"] == "2 windows are too few for a trend"
    monkeypatch.setattr(Neighbours, "share", lambda _: 0.5)
    busy, _ = _soaked(StandInEngine(bundle, clock, lambda *_: 0.5), 1)
    assert "other work" in busy.refused["last_over_first"]


def test_an_interruption_leaves_the_windows(bundle: Bundle, clock: Clock, tmp_path: Path) -> None:
    def interrupted(*_: int) -> float:
        if clock.now > 35:
            raise KeyboardInterrupt
        return 0.5

    file = tmp_path / "found.json"
    with pytest.raises(KeyboardInterrupt):
        _soaked(StandInEngine(bundle, clock, interrupted), 10, file)
    kept = read_document(file)
    assert not kept.complete
    assert len(kept.row("soak").samples) == 3


def test_masks_that_disagree_are_not_soaked(bundle: Bundle, clock: Clock) -> None:
    row, _ = _soaked(StandInEngine(bundle, clock, lambda *_: 0.5, agreement=DIFFERS), 1)
    assert row.samples == ()
    assert (row.not_measured or "").startswith("its masks disagree")
