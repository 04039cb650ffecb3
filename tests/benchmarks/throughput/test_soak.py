from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from sshr_deploy.benchmarks.measuring.neighbours import Neighbours
from sshr_deploy.benchmarks.report.reading import read_document
from sshr_deploy.benchmarks.report.recorder import Recorder
from sshr_deploy.benchmarks.report.records import Row
from sshr_deploy.benchmarks.throughput import energy, machine_watch
from sshr_deploy.benchmarks.throughput.soak import measure_soak
from sshr_deploy.bundle import Bundle, load_bundle
from sshr_deploy.runtime.machine.nvml import GpuLoad
from sshr_deploy.runtime.settings import CPU_BATCH
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

    for module in (machine_watch, energy):
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
    row, document = _soaked(StandInEngine(bundle, clock, lambda *_: 0.5, gpu_index=0), 1)
    assert len(row.samples) == 6
    assert row.samples == pytest.approx([4.0] * 6)
    window = row.facts["windows"][-1]
    assert window["until_s"] == pytest.approx(60, abs=3)
    first, second = window["gpus"]
    assert (first["temperature_celsius"], first["sm_clock_mhz"]) == (88, 900)
    assert first["slowed_by"] == ("heat (hardware)",)
    assert second["slowed_by"] == ()
    assert window["watts"] == {"gpu": pytest.approx(100)}
    assert any(note.startswith("energy: no RAPL") for note in document.notes)
    assert row.figures["gpu_watts"] == pytest.approx(100)


def test_a_gpu_is_read_while_it_computes(
    bundle: Bundle, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way, was_read = threading.Event(), threading.Event()

    def loads() -> list[GpuLoad]:
        if not under_way.is_set():
            return [GpuLoad(0, 70, 1500, 7000, 60.0, None, ())]
        was_read.set()
        return [GpuLoad(0, 90, 800, 7000, 300.0, None, ("heat (hardware)",))]

    def computes(*_: int) -> float:
        was_read.clear()
        under_way.set()
        assert was_read.wait(10), "nobody looks while it computes"
        under_way.clear()
        return 5.0

    monkeypatch.setattr(machine_watch, "EVERY_S", 0.001)
    monkeypatch.setattr(machine_watch, "gpu_loads", loads)
    row, _ = _soaked(StandInEngine(bundle, clock, computes), 1)
    for window in row.facts["windows"]:
        (gpu,) = window["gpus"]
        assert gpu["slowed_by"] == ("heat (hardware)",)
        assert 0 < gpu["slowed_share"]["heat (hardware)"] <= 1
        assert (gpu["temperature_celsius"], gpu["sm_clock_min_mhz"]) == (90, 800)
        assert window["readings"] >= 1


def test_a_machine_that_becomes_slower_is_seen(bundle: Bundle, clock: Clock) -> None:
    slower = StandInEngine(bundle, clock, lambda *_: 0.5 if clock.now < 90 else 0.8)
    row, _ = _soaked(slower, 3)
    assert row.figures["last_over_first"] == pytest.approx(0.5 / 0.8, rel=0.05)
    assert (row.figures["last_over_first_high"] or 1.0) < 1
    steady, _ = _soaked(StandInEngine(bundle, clock, lambda *_: 0.5), 3)
    figures = steady.figures
    assert figures["last_over_first"] == pytest.approx(1)
    low, high = figures["last_over_first_low"], figures["last_over_first_high"]
    assert low is not None and high is not None and low <= 1 <= high
    assert steady.refused == {}


def test_other_work_and_too_few_windows_allow_no_trend(
    bundle: Bundle, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    short, _ = _soaked(StandInEngine(bundle, clock, lambda *_: 0.5), 0.2)
    assert short.refused["last_over_first"] == "2 windows are too few for a trend"
    monkeypatch.setattr(Neighbours, "share", lambda _: 0.5)
    busy, _ = _soaked(StandInEngine(bundle, clock, lambda *_: 0.5), 1)
    assert "other work" in busy.refused["last_over_first"]


def test_a_gpu_that_is_silent_for_a_while_ends_nothing(
    bundle: Bundle, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loads() -> list[GpuLoad]:
        told = GpuLoad(0, 60, 1500, 7000, 100.0, 100 * clock.now, ())
        return [] if 18 < clock.now < 25 else [told]

    monkeypatch.setattr(energy, "gpu_loads", loads)
    engine = StandInEngine(bundle, clock, lambda *_: 0.5, gpu_index=0)
    row, document = _soaked(engine, 1)
    watts = [window["watts"] for window in row.facts["windows"]]
    assert watts.count({}) >= 1
    assert all(found == {"gpu": pytest.approx(100)} for found in watts if found)
    assert row.figures["gpu_watts"] == pytest.approx(100)
    assert "energy: GPU 0 did not tell its energy for a while" in document.notes


def test_without_a_batch_it_is_that_of_a_run(bundle: Bundle, clock: Clock) -> None:
    engine = StandInEngine(bundle, clock, lambda *_: 0.5)
    with Recorder("soak", None, {}) as recorder:
        measure_soak(engine, recorder, batch=None, streams=None, minutes=0.1, amount=lambda _: None)
    (row,) = recorder.document.rows
    assert engine.opened == [(None, None)]
    assert row.facts["batch"] == CPU_BATCH
    assert row.samples[0] == pytest.approx(CPU_BATCH / 0.5)


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
