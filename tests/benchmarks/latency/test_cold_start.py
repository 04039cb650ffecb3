from __future__ import annotations

import time
from pathlib import Path

import pytest

from sshr_deploy.benchmarks.latency.cold_start import measure_cold_starts, start_process
from sshr_deploy.benchmarks.latency.first_patch import FirstPatch, Start, first_patch
from sshr_deploy.benchmarks.latency.settings import LatencySettings
from sshr_deploy.benchmarks.report.recorder import Recorder
from sshr_deploy.benchmarks.report.records import BenchmarkDocument
from sshr_deploy.errors import SessionError
from tests.benchmarks.latency.stand_ins import contender, never

SETTINGS = LatencySettings(batches=(1, 8), seconds=1, cold_starts=2, threads=1)
BUNDLE = Path("bundle")
BUILT = FirstPatch(1, 2, 30, 4, ("building the engine",))


class Machine:
    """Plays processes; an engine has to be built first, or always, or fails from a start on."""

    def __init__(self, builds: int = 0, fails_at: int = 100) -> None:
        self.starts: list[Start] = []
        self.builds, self.fails_at = builds, fails_at

    def launch(self, start: Start) -> FirstPatch:
        self.starts.append(start)
        number = len(self.starts)
        if number >= self.fails_at:
            raise SessionError("no memory")
        return BUILT if number <= self.builds else FirstPatch(1, 2, 3 + number, 4, ())


def _measured(machine: Machine) -> BenchmarkDocument:
    way = contender("onnx-cpu fp32", never)
    with Recorder("latency", None, {}) as recorder:
        measure_cold_starts(BUNDLE, [way], SETTINGS, recorder, launch=machine.launch)
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


def _start(bundle: Path, engine: str) -> Start:
    return Start(str(bundle), engine, "fp32", 1, 1, False, time.monotonic())


def test_the_parts_follow_one_another_from_the_start(small_bundle_dir: Path) -> None:
    start = _start(small_bundle_dir, "onnx-cpu")
    found = first_patch(start)
    parts = (found.start_s, found.load_s, found.open_s, found.first_patch_s)
    assert min(parts) >= 0
    assert sum(parts) <= time.monotonic() - start.started


def test_a_process_that_fails_gives_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(SessionError, match=r"is not a bundle: it has no manifest\.json"):
        start_process(_start(tmp_path, "onnx-cpu"))
