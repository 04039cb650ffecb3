"""What a recorder leaves on the disk, whenever it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sshr_deploy.benchmarks.report import recorder as recorder_module
from sshr_deploy.benchmarks.report.reading import read_document
from sshr_deploy.benchmarks.report.recorder import Recorder
from sshr_deploy.benchmarks.report.records import Row
from sshr_deploy.errors import OutputError

CLOCKS: dict[str, Any] = {
    "cpu_mhz": None, "governor": None, "gpu_sm_mhz": [], "gpu_memory_mhz": [],
}  # fmt: skip


def row(name: str, *samples: float) -> Row:
    return Row(name=name, unit="ms", better="lower", samples=samples)


def test_a_finished_one_is_complete_and_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    with Recorder("latency", None, {"seconds": 3}, file) as recorder:
        recorder.row(row("a", 1.5, 2.5))
        recorder.fact("ceiling", {"fp32": 100.0})
        recorder.note("no GPU")
        recorder.note("no GPU")
    document = read_document(file)
    assert document.complete
    assert document.row("a").samples == (1.5, 2.5)
    assert document.notes == ("no GPU",)
    assert document.facts == {"ceiling": {"fp32": 100.0}}
    assert document.settings == {"seconds": 3}
    assert document.environment.cores >= 1
    with pytest.raises(KeyError):
        document.row("b")


def test_ctrl_c_half_way_leaves_the_rows_so_far(tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    with pytest.raises(KeyboardInterrupt), Recorder("latency", None, {}, file) as recorder:
        recorder.row(row("a", 1.0))
        recorder.row(row("b", 2.0))
        raise KeyboardInterrupt
    document = read_document(file)
    assert not document.complete
    assert [found.name for found in document.rows] == ["a", "b"]


def test_one_that_is_interrupted_before_its_first_row_leaves_a_document(tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    with pytest.raises(KeyboardInterrupt), Recorder("latency", None, {}, file):
        raise KeyboardInterrupt
    assert read_document(file).rows == ()


def test_one_that_is_killed_leaves_the_rows_so_far(tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    with Recorder("latency", None, {}, file) as recorder:
        for count, name in enumerate("abc", 1):
            recorder.row(row(name, 1.0))
            document = read_document(file)  # what a kill at this place would leave
            assert len(document.rows) == count and not document.complete
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def test_a_row_of_the_same_name_takes_the_place_of_the_other() -> None:
    recorder = Recorder("latency", None, {})
    for one in (row("a", 1.0), row("b", 2.0), row("a", 1.0, 1.1)):
        recorder.row(one)
    rows = recorder.document.rows
    assert [found.name for found in rows] == ["a", "b"]
    assert rows[0].samples == (1.0, 1.1)


def test_a_file_that_cannot_be_written_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        Recorder("latency", None, {}, tmp_path / "file" / "r.json")


def test_load_is_of_the_time_inside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    loads = iter([0.25, 1.5, 1.5, 1.5])
    mhz = iter([2400.0, 3100.0])
    monkeypatch.setattr(recorder_module, "load_average", lambda: next(loads))

    class Busy:
        def share(self) -> float:
            return 0.4

    monkeypatch.setattr(recorder_module, "Neighbours", Busy)
    monkeypatch.setattr(recorder_module, "read_clocks", lambda: CLOCKS | {"cpu_mhz": next(mhz)})
    file = tmp_path / "r.json"
    with Recorder("latency", None, {}, file) as recorder:
        assert recorder.busy() == (
            "other work took 40% of the cores' time (at most 10%), so the machine was busy"
        )
        recorder.row(row("a", 1.0))
    assert json.loads(file.read_text("utf-8"))["load"] == {
        "before": 0.25,
        "after": 1.5,
        "other_work": 0.4,
        "clocks_before": CLOCKS | {"cpu_mhz": 2400.0},
        "clocks_after": CLOCKS | {"cpu_mhz": 3100.0},
    }


def test_reasons_of_refused_ratios_are_in_the_unit_of_the_samples() -> None:
    ratio = Recorder("slides", None, {}).ratio(("a", [9.4, 9.6] * 3), ("b", [9.5] * 6), "s")
    assert ratio.refused == "a and b overlap: 9.4 to 9.6 s and 9.5 to 9.5 s"
