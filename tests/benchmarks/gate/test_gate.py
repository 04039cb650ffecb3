"""The gate holds as things are, and is closed by work that is done several times."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sshr_deploy.benchmarks.gate import masks, reading, run, stitching
from sshr_deploy.benchmarks.gate.counting import Finding, cpu_ratio, peak_bytes, tallied
from sshr_deploy.benchmarks.report.reading import read_document
from sshr_deploy.errors import SshrDeployError
from sshr_deploy.geometry import PATCH_PX
from sshr_deploy.profiles import load_profile
from sshr_deploy.runtime.field_labels import labels_of
from sshr_deploy.runtime.masks import fused_cam, label_map
from sshr_deploy.runtime.pipeline import label_bands, units
from sshr_deploy.runtime.pipeline.unit_store import UnitStore
from sshr_deploy.runtime.slides.openslide_reader import OpenSlideReader
from sshr_deploy.runtime.slides.plan import survey_slide
from sshr_deploy.runtime.writers.bands import BAND_PX

PROFILE = load_profile("bcss")


@pytest.fixture(scope="module")
def slide(repo_root: Path) -> Path:
    return repo_root / "demo/data/CMU-1-Small-Region.svs"


@pytest.fixture
def two_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_TURNS", 2)
    monkeypatch.setattr(stitching, "_TURNS", 2)


def repeated(function: Callable[..., Any], times: int) -> Callable[..., Any]:
    def slow(*arguments: Any, **named: Any) -> Any:
        for _ in range(times - 1):
            function(*arguments, **named)
        return function(*arguments, **named)

    return slow


def six_times_as_slow(function: Callable[..., Any]) -> Callable[..., Any]:
    """It takes six times the processor time, and does nothing else than before."""

    def slow(*arguments: Any, **named: Any) -> Any:
        began = time.process_time()
        result = function(*arguments, **named)
        end = began + 6 * (time.process_time() - began)
        while time.process_time() < end:
            pass
        return result

    return slow


def hoarding(function: Callable[..., Any], held_bytes: int) -> Callable[..., Any]:
    """It holds so much memory meanwhile."""

    def greedy(*arguments: Any, **named: Any) -> Any:
        held = np.ones(held_bytes, np.uint8)
        result = function(*arguments, **named)
        return result if held.all() else None

    return greedy


def found(findings: Iterator[Finding], name: str) -> Finding:
    """The finding of that name; what comes after it is not measured."""
    return next(finding for finding in findings if finding.name == name)


def test_it_holds_and_is_kept_as_a_document(
    slide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "gate.json"
    assert run.main([str(slide), "--json", str(file)]) == 0
    document = read_document(file)
    assert document.complete and document.benchmark == "gate"
    assert all(row.facts["held"] and row.samples[0] > 0 for row in document.rows)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(document.rows) and all(line.startswith("ok") for line in lines)


def test_post_processing_six_times_as_slow_closes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "label_map", six_times_as_slow(label_map))
    assert not found(masks.check_masks(PROFILE), "masks: processor time").held


def test_cams_enlarged_twice_close_it(monkeypatch: pytest.MonkeyPatch) -> None:
    twice = repeated(fused_cam, 2)
    monkeypatch.setattr("sshr_deploy.runtime.masks.fused_cam", twice)
    assert not found(masks.check_masks(PROFILE), "masks: enlarged CAMs").held


def test_twice_the_memory_for_masks_closes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = found(masks.check_masks(PROFILE), "masks: memory")
    held = round(before.value * 4 * PATCH_PX**2)
    monkeypatch.setattr(masks, "label_map", hoarding(label_map, held))
    assert before.held and not found(masks.check_masks(PROFILE), "masks: memory").held


def test_a_survey_that_reads_twice_closes_it(slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "survey_slide", repeated(survey_slide, 2))
    assert not found(reading.check_reading(slide, PROFILE), "survey: pixels read").held


@pytest.mark.parametrize("what", ["pixels read", "calls of the reader"])
@pytest.mark.parametrize("kind", ["tiles", "fields"])
def test_doubled_reads_close_it(
    kind: str, what: str, slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for read in ("read_tile", "read_field"):
        monkeypatch.setattr(units, read, repeated(getattr(units, read), 2))
    assert not found(reading.check_reading(slide, PROFILE), f"{kind}: {what}").held


@pytest.mark.usefixtures("two_turns")
def test_a_reader_six_times_as_slow_closes_it(slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = six_times_as_slow(OpenSlideReader.read_region)
    monkeypatch.setattr(OpenSlideReader, "read_region", read)
    assert not found(reading.check_reading(slide, PROFILE), "tiles: processor time").held


@pytest.mark.usefixtures("two_turns")
@pytest.mark.parametrize("name", ["stitching: bytes read", "stitching: processor time"])
def test_stitching_six_times_closes_it(
    name: str, slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bands = units.FieldUnits.bands

    def again(self: units.FieldUnits, store: Any) -> Any:
        for _ in range(5):
            list(bands(self, store))
        return bands(self, store)

    monkeypatch.setattr(units.FieldUnits, "bands", again)
    assert not found(stitching.check_stitching(slide, PROFILE), name).held


def test_scores_enlarged_twice_close_it(slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    twice = repeated(labels_of, 2)
    monkeypatch.setattr(label_bands, "labels_of", twice)
    assert not found(stitching.check_stitching(slide, PROFILE), "stitching: enlarged maps").held


def test_twice_the_memory_for_stitching_closes_it(
    slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ten_bands = 10 * BAND_PX * 1000  # it is 1,100 px wide at that resolution
    monkeypatch.setattr(label_bands, "labels_of", hoarding(labels_of, ten_bands))
    assert not found(stitching.check_stitching(slide, PROFILE), "stitching: memory").held


def test_records_kept_twice_close_it(slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put = UnitStore.put

    def twice(self: Any, records: Any) -> None:
        put(self, {unit: np.concatenate([record] * 2) for unit, record in records.items()})

    monkeypatch.setattr(UnitStore, "put", twice)
    assert not found(stitching.check_stitching(slide, PROFILE), "store: bytes kept").held


def test_a_wrong_result_closes_it(
    slide: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(masks, "label_map", lambda *_, **__: np.zeros((224, 224), np.uint8))
    with pytest.raises(SshrDeployError, match="label maps agree with the plain ones on"):
        next(masks.check_masks(PROFILE))
    assert run.main([str(slide)]) == 1
    assert capsys.readouterr().err.startswith("gate: label maps agree")


def test_a_figure_above_its_limit_is_told_and_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    findings = [Finding("a", 1.0, 2.0, "each"), Finding("b", 3.0, 2.0, "each")]
    findings.append(Finding("c", 0.0, 2.0, "each"))
    monkeypatch.setattr(run, "check_all", lambda slide: iter(findings))
    assert run.main(["--json", str(tmp_path / "gate.json")]) == 1
    rows = json.loads((tmp_path / "gate.json").read_text())["rows"]
    assert [row["facts"]["held"] for row in rows] == [True, False, False]
    assert rows[2]["not_measured"] == "nothing was counted"
    told = capsys.readouterr()
    assert told.out.splitlines()[1] == "FAIL  b: 3 each, at most 2"
    assert told.err == "gate: 2 of its figures are nil or above their limits\n"


@pytest.mark.parametrize(
    ("value", "held"), [(0.5, True), (1.0, True), (1.1, False), (0.0, False), (float("nan"), False)]
)
def test_a_figure_is_held_up_to_its_limit_and_not_where_it_is_nil(value: float, held: bool) -> None:
    assert Finding("a", value, 1.0, "each").held is held


def test_calls_are_counted_and_results_stay() -> None:
    with tallied(np, "ones", lambda made: made.size) as tally:
        assert np.ones((2, 3)).sum() == 6 and np.ones(4).sum() == 4
    assert (tally.calls, tally.amount) == (2, 10)
    assert np.ones(1).tolist() == [1]
    assert tally.calls == 2, "only inside the block"


def test_the_peak_is_what_a_call_needs_at_a_time() -> None:
    kept = np.ones(1 << 20, np.uint8)

    def call() -> None:
        for _ in range(3):
            np.zeros(1 << 18, np.uint8)

    assert (1 << 18) <= peak_bytes(call) < (1 << 18) + 20_000
    assert kept.all()


def test_the_ratio_is_of_the_least_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0, 6, 6, 8, 8, 11, 11, 21])  # ours 6 and 3 s, plain 2 and 10
    monkeypatch.setattr("time.process_time", lambda: next(clock))
    assert cpu_ratio(lambda: None, lambda: None, turns=2) == 3 / 2
