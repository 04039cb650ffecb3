from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sshr_deploy.benchmarks.contenders.judging import reference_of
from sshr_deploy.benchmarks.latency import cold_start
from sshr_deploy.benchmarks.latency.cold_start import measure_cold_starts, start_process
from sshr_deploy.benchmarks.latency.first_patch import MARK, FirstPatch, Start, first_patch
from sshr_deploy.benchmarks.latency.settings import LatencySettings
from sshr_deploy.benchmarks.report.recorder import Recorder
from sshr_deploy.benchmarks.report.records import BenchmarkDocument
from sshr_deploy.bundle import Bundle, load_bundle
from sshr_deploy.errors import SessionError
from sshr_deploy.runtime.contract import CamBatch
from sshr_deploy.runtime.engines import choosing
from tests.benchmarks.latency.stand_ins import AnswersSession, contender, never

SETTINGS = LatencySettings(batches=(1, 8), seconds=1, cold_starts=2, threads=1)
BUNDLE = Path("bundle")
BUILT = FirstPatch(1, 2, 30, 4, ("building the engine",))


class Machine:
    """Plays processes; an engine has to be built first, or always, or fails from a start on."""

    def __init__(self, builds: int = 0, fails_at: int = 100, misses: tuple[str, ...] = ()) -> None:
        self.starts: list[Start] = []
        self.agreement = {"masks": 0.5, "cam_error": 1.0, "misses": misses}
        self.builds, self.fails_at = builds, fails_at

    def launch(self, start: Start) -> FirstPatch:
        self.starts.append(start)
        number = len(self.starts)
        if number >= self.fails_at:
            raise SessionError("no memory")
        found = BUILT if number <= self.builds else FirstPatch(1, 2, 3 + number, 4, ())
        return replace(found, agreement=self.agreement if start.judges else None)


def _measured(machine: Machine, settings: LatencySettings = SETTINGS) -> BenchmarkDocument:
    way = contender("onnx-cpu fp32", never)
    with Recorder("latency", None, {}) as recorder:
        measure_cold_starts(BUNDLE, [way], settings, recorder, launch=machine.launch)
    return recorder.document


def test_a_start_that_builds_is_told_apart() -> None:
    machine = Machine(builds=1)
    (row,) = _measured(machine).rows
    assert (row.name, row.unit) == ("onnx-cpu fp32, cold start", "s")
    assert list(row.samples) == [1 + 2 + 5 + 4, 1 + 2 + 6 + 4]
    assert row.figures == {
        "start_s": 1, "load_s": 2, "open_s": 5.5, "first_patch_s": 4, "building_s": 30
    }  # fmt: skip
    assert row.facts["building"]["built"] == ("building the engine",)
    assert row.facts["failed"] is None
    first = machine.starts[0]
    assert (first.engine, first.precision, first.batch, first.threads) == ("onnx-cpu", "fp32", 8, 1)


def test_where_nothing_is_built_each_start_counts() -> None:
    machine = Machine()
    (row,) = _measured(machine).rows
    assert len(row.samples) == len(machine.starts) == 2
    assert row.figures["building_s"] is None


def test_starts_that_always_build_and_starts_that_fail_say_so() -> None:
    (built,) = _measured(Machine(builds=9)).rows
    assert built.samples == ()
    assert "each start had to build it" in str(built.not_measured)
    (failed,) = _measured(Machine(fails_at=1)).rows
    assert (failed.samples, failed.not_measured) == ((), "no memory")
    (half,) = _measured(Machine(fails_at=2)).rows
    assert len(half.samples) == 1
    assert (half.not_measured, half.facts["failed"]) == (None, "no memory")


def test_only_the_first_start_compares_the_masks() -> None:
    machine = Machine(builds=1)
    (row,) = _measured(machine).rows
    assert [start.judges for start in machine.starts] == [True, False, False]
    assert row.agreement is not None and row.agreement.masks == 0.5
    assert "unqualified" not in row.facts


@pytest.mark.parametrize("builds", [0, 1])
def test_wrong_masks_get_no_time_of_a_start(builds: int) -> None:
    machine = Machine(builds=builds, misses=("a gate differs",))
    (row,) = _measured(machine).rows
    assert (len(machine.starts), row.samples) == (1, ())
    assert row.not_measured == "its masks disagree: a gate differs"
    assert row.agreement is not None
    assert [value for value in row.figures.values() if value is not None] == []
    assert (row.facts["starts"], row.facts["building"]) == ([], None)


def test_wrong_masks_that_are_allowed_are_told_as_such() -> None:
    allowed = replace(SETTINGS, allow_unqualified=True)
    (row,) = _measured(Machine(misses=("a gate differs",)), allowed).rows
    assert len(row.samples) == 2
    assert row.facts["unqualified"] == "its masks disagree: a gate differs"


def _start(bundle: Path, engine: str) -> Start:
    return Start(str(bundle), engine, "fp32", 1, 1, False, time.monotonic())


def test_the_parts_follow_one_another_from_the_start(small_bundle_dir: Path) -> None:
    start = _start(small_bundle_dir, "onnx-cpu")
    found = first_patch(start)
    parts = (found.start_s, found.load_s, found.open_s, found.first_patch_s)
    assert min(parts) >= 0
    assert sum(parts) <= time.monotonic() - start.started


def test_a_start_computes_a_field_where_slides_do(small_bundle_dir: Path) -> None:
    machine, geometry = Machine(), load_bundle(small_bundle_dir).on_fields().geometry
    with Recorder("latency", None, {}) as recorder:
        ways = [contender("onnx-cpu fp32", never)]
        measure_cold_starts(
            BUNDLE, ways, SETTINGS, recorder, launch=machine.launch, geometry=geometry
        )
    assert [row.name for row in recorder.document.rows] == ["onnx-cpu fp32, cold start on fields"]
    start = machine.starts[0]
    assert start.fields
    assert start.batch * 224**2 >= 8 * geometry.side_px**2
    found = first_patch(replace(start, bundle=str(small_bundle_dir), batch=1))
    qualification = load_bundle(small_bundle_dir).on_fields().artifacts("onnx-cpu")[0].qualification
    assert found.agreement is not None and qualification is not None
    assert found.agreement["masks"] == qualification.mask_agreement


def test_a_process_that_fails_gives_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(SessionError, match=r"is not a bundle: it has no manifest\.json"):
        start_process(_start(tmp_path, "onnx-cpu"))


class Reversed(AnswersSession):
    """Takes a blank patch too; all its classes are wrong."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle, wrong=True)
        self.info = replace(self.info, engine="onnx-cpu")
        self._some = reference_of(bundle).patches[:1]

    def _compute(self, patches: NDArray[np.uint8]) -> CamBatch:
        return super()._compute(patches if patches.any() else self._some)


@pytest.mark.parametrize("wrong", [False, True])
def test_a_start_compares_the_masks_of_its_own_session(
    small_bundle_dir: Path, monkeypatch: pytest.MonkeyPatch, *, wrong: bool
) -> None:
    if wrong:
        monkeypatch.setattr(choosing, "open_session", lambda bundle, *_, **__: Reversed(bundle))
    once = replace(SETTINGS, cold_starts=1, batches=(1,))
    with Recorder("latency", None, {}) as recorder:
        ways = [contender("onnx-cpu fp32", never)]
        measure_cold_starts(small_bundle_dir, ways, once, recorder, launch=first_patch)
    (row,) = recorder.document.rows
    assert row.agreement is not None
    assert bool(row.agreement.misses) is wrong
    assert len(row.samples) == (not wrong)
    assert (row.not_measured or "").startswith("its masks disagree" if wrong else "")


@pytest.mark.parametrize(
    ("out", "says"), [("times\n{}\nbye", None), ("hello\nbye", "its process told no times: bye")]
)
def test_lines_of_libraries_are_passed_over(
    monkeypatch: pytest.MonkeyPatch, out: str, says: str | None
) -> None:
    told = out.replace("{}", MARK + json.dumps(asdict(BUILT)))
    monkeypatch.setattr(cold_start, "run_child", lambda *_: (0, told, ""))
    if says is None:
        assert start_process(_start(BUNDLE, "onnx-cpu")) == BUILT
        return
    with pytest.raises(SessionError, match=says):
        start_process(_start(BUNDLE, "onnx-cpu"))
