from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from sshr_deploy.benchmarks.report.reading import read_document
from sshr_deploy.benchmarks.report.recorder import Recorder
from sshr_deploy.benchmarks.report.records import BenchmarkDocument
from sshr_deploy.benchmarks.slides import contenders, measure
from sshr_deploy.benchmarks.slides.contenders import SlideContender
from sshr_deploy.benchmarks.slides.job import SlideSettings
from sshr_deploy.bundle import load_bundle
from sshr_deploy.cli import app
from sshr_deploy.errors import SessionError, UsageError

AT_HALF = SlideSettings(mpp_um=0.5, force_mpp=True)
PROGRAM = """
import json, sys
job, out, wrong, work_s = json.load(open(sys.argv[1])), sys.argv[2], *map(float, sys.argv[3:])
tiles = len(job["places"])
labels = bytearray(tiles * 224 * 224)
labels[: int(wrong * len(labels))] = b"\\1" * int(wrong * len(labels))
head = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({tiles}, 224, 224)}}".ljust(117)
with open(out + "/labels.npy", "wb") as file:
    file.write(b"\\x93NUMPY\\1\\0v\\0" + head.encode() + b"\\n" + labels)
print(json.dumps({"work_s": work_s, "tiles": tiles, "version": "stand-in 1"}))
"""


@dataclass(frozen=True)
class StandIn(SlideContender):
    """A program that says it took `work_s`, and has so large a share of wrong labels."""

    wrong: float = 0.0
    work_s: float = 1.0
    code: str = PROGRAM

    def command(self, job: Path, out: Path) -> list[str]:
        given = [str(job), str(out), str(self.wrong), str(self.work_s)]
        return [sys.executable, "-I", "-S", "-c", self.code, *given]


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = StandIn("ours", "", needs_checkpoint=False, work_s=1.0)
    monkeypatch.setattr(measure, "OURS", stand_in)
    return stand_in


def peer(name: str, **options: Any) -> StandIn:
    return StandIn(name, "", needs_checkpoint=False, **options)


def measured(bundle: Path, slide: Path, peers: list[StandIn], rounds: int = 1) -> BenchmarkDocument:
    recorder = Recorder("slides", None, {"slide": slide.name})
    with recorder:
        measure.measure_slides(
            load_bundle(bundle), slide, None,
            peers=peers, rounds=rounds, recorder=recorder, settings=AT_HALF,
        )  # fmt: skip
    return recorder.document


def test_each_has_its_time_with_and_without_start_up(
    ours: StandIn, small_bundle_dir: Path, nine_tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Recorder, "busy", lambda _: None)
    document = measured(small_bundle_dir, nine_tiles, [peer("slow", work_s=3.0)], rounds=5)
    row = document.row("slow, without start-up")
    assert row.samples == (3.0,) * 5
    assert row.figures["times_ours"] == pytest.approx(3.0)
    assert row.agreement is not None
    assert row.agreement.masks == 1.0
    area = document.facts["tiles"] * 0.224**2
    assert row.figures["mm2_per_s"] == pytest.approx(area / 3.0)
    assert row.facts["version"] == "stand-in 1"
    assert row.facts["peak_memory_mib"] is not None
    whole = document.row("slow, whole process")
    assert len(whole.samples) == 5
    own = document.row("ours, without start-up")
    assert "times_ours" not in own.figures
    assert own.agreement is None  # it told none
    assert all("tiles alone" not in row.name for row in document.rows)


def test_loops_are_compared_with_our_tiles_alone_too(
    small_bundle_dir: Path, nine_tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = '"work_s": work_s, "tiles_s": work_s / 4, "mask_agreement": 0.9990, "tiles"'
    code = PROGRAM.replace('"work_s": work_s, "tiles"', more)
    monkeypatch.setattr(measure, "OURS", peer("ours", work_s=4.0, code=code))
    monkeypatch.setattr(Recorder, "busy", lambda _: None)
    peers = [peer("loop", work_s=3.0, maps_alone=True), peer("more", work_s=3.0)]
    document = measured(small_bundle_dir, nine_tiles, peers, rounds=5)
    row = document.row("ours, tiles alone")
    assert row.samples == (1.0,) * 5
    assert row.facts["form"] == "without start-up"
    assert row.agreement is not None
    assert row.agreement.masks == 0.9990
    loop = document.row("loop, without start-up")
    assert loop.figures["times_ours"] == pytest.approx(0.75)
    assert loop.figures["times_our_tiles"] == pytest.approx(3.0)
    for other in ("loop, whole process", "more, without start-up", "ours, without start-up"):
        assert "times_our_tiles" not in document.row(other).figures


def test_other_masks_have_no_speed(ours: StandIn, small_bundle_dir: Path, nine_tiles: Path) -> None:
    peers = [peer("nearly", wrong=0.005), peer("wrong", wrong=0.5)]
    document = measured(small_bundle_dir, nine_tiles, peers)
    assert document.row("nearly, whole process").samples
    row = document.row("wrong, whole process")
    assert row.samples == ()
    assert row.agreement is not None
    assert row.agreement.masks == pytest.approx(0.5, abs=0.01)
    assert "its masks disagree: 50" in str(row.not_measured)


def test_ratios_need_rounds_and_a_quiet_machine(
    ours: StandIn, small_bundle_dir: Path, nine_tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = measured(small_bundle_dir, nine_tiles, [peer("p")]).row("p, without start-up")
    assert row.figures["times_ours"] is None
    assert row.refused["times_ours"]
    monkeypatch.setattr(Recorder, "busy", lambda _: "others were at work")
    row = measured(small_bundle_dir, nine_tiles, [peer("p")]).row("p, without start-up")
    assert row.refused == {"times_ours": "others were at work"}


def test_peers_that_cannot_run_say_why(
    ours: StandIn, small_bundle_dir: Path, nine_tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/nowhere")
    fails = "import sys; sys.exit('no zarr here')"
    fewer = 'print(\'{"work_s": 1, "tiles": 1, "version": ""}\')'
    peers = [
        StandIn("torch", ""),
        peer("venv", venv="wsinfer"),
        peer("fails", code=fails),
        peer("fewer", code=fewer, has_masks=False),
        peer("maps", code=PROGRAM.replace("/labels", "/other")),
        peer("good"),
    ]
    document = measured(small_bundle_dir, nine_tiles, peers)
    why = {row.facts["contender"]: row.not_measured or "" for row in document.rows}
    assert "give `checkpoint`" in why["torch"]
    assert "python -m sshr_deploy.benchmarks.peers.set_up wsinfer" in why["venv"]
    assert why["fails"] == "it failed: no zarr here"
    assert "did 1 tiles instead of" in why["fewer"]
    assert "labels.npy" in why["maps"]
    assert not why["good"]


def test_one_without_label_maps_is_timed_but_not_compared(
    ours: StandIn, small_bundle_dir: Path, nine_tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Recorder, "busy", lambda _: None)
    code = PROGRAM.replace("labels.npy", "other")
    peers = [peer("classifier", code=code, has_masks=False)]
    document = measured(small_bundle_dir, nine_tiles, peers, rounds=5)
    row = document.row("classifier, whole process")
    assert row.samples
    assert row.agreement is None
    assert row.refused == {"times_ours": "classifier makes no masks"}


def test_where_ours_fails_nothing_is_measured(
    small_bundle_dir: Path, nine_tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "OURS", peer("ours", code="raise SystemExit('broken')"))
    with pytest.raises(SessionError, match="broken"):
        measured(small_bundle_dir, nine_tiles, [])


def test_the_command_prints_both_tables(
    ours: StandIn,
    small_bundle_dir: Path,
    nine_tiles: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    peers = (peer("Loop one", lacks="areas"), peer("Loop two", wrong=0.5), peer("other"))
    monkeypatch.setattr(contenders, "PEERS", peers)
    file = tmp_path / "slides.json"
    given = [str(small_bundle_dir), str(nine_tiles), "--peers", "loop", "--rounds", "1"]
    given += ["--mpp", "0.5", "--force-mpp", "--json", str(file)]
    done = CliRunner().invoke(app, ["benchmark", "slides", *given])
    assert done.exit_code == 0, done.output
    for text in ("whole process", "without start-up", "Loop one", "without areas", "100.00%"):
        assert text in done.output
    assert "Loop two: not measured: its masks disagree" in done.output
    document = read_document(file)
    assert document.complete
    assert {row.facts["contender"] for row in document.rows} == {"ours", "Loop one", "Loop two"}
    assert json.loads(file.read_text())["settings"]["mpp_um"] == 0.5
    refused = CliRunner().invoke(app, ["benchmark", "slides", *given, "--peers", "nobody"])
    assert "`peers` 'nobody' is in no name" in str(refused.exception)


def test_timed_runs_keep_to_the_cores_and_write_nothing_for_the_judge(
    ours: StandIn, small_bundle_dir: Path, nine_tiles: Path, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    looks = (
        "import json, os, sys\njob = json.load(open(sys.argv[1]))\n"
        "cores = len(os.sched_getaffinity(0))\n"
        "found = job['keeps_labels'], cores, job['streams'], job['workers']\n"
        f"open({str(seen)!r}, 'a').write(json.dumps(found) + chr(10))\n"
    )
    recorder = Recorder("slides", None, {})
    with recorder:
        measure.measure_slides(
            load_bundle(small_bundle_dir), nine_tiles, None,
            peers=[peer("p", code=looks + PROGRAM)], rounds=1, recorder=recorder,
            settings=SlideSettings(mpp_um=0.5, force_mpp=True, threads=1, streams=3),
        )  # fmt: skip
    found = [json.loads(line) for line in seen.read_text().splitlines()]
    assert found == [[True, 1, 3, 1], [False, 1, 3, 1]]


def test_cores_are_not_limited_where_the_system_cannot(
    small_bundle_dir: Path, nine_tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "CAN_LIMIT_CORES", False)
    with pytest.raises(UsageError, match="`threads`"):
        measure.measure_slides(
            load_bundle(small_bundle_dir), nine_tiles, None,
            recorder=Recorder("slides", None, {}), settings=SlideSettings(threads=1),
        )  # fmt: skip


def test_an_interruption_keeps_the_rows(
    ours: StandIn, small_bundle_dir: Path, nine_tiles: Path, tmp_path: Path
) -> None:
    file = tmp_path / "slides.json"

    def stop(step: str) -> None:
        if step.startswith("round 2"):
            raise KeyboardInterrupt

    recorder = Recorder("slides", None, {}, file)
    with pytest.raises(KeyboardInterrupt), recorder:
        measure.measure_slides(
            load_bundle(small_bundle_dir), nine_tiles, None,
            peers=[peer("p")], rounds=9, recorder=recorder, settings=AT_HALF, on_step=stop,
        )  # fmt: skip
    document = read_document(file)
    assert not document.complete
    assert len(document.row("p, whole process").samples) == 1


def test_after_an_interruption_ratios_are_judged_by_all_that_ran_beside(
    ours: StandIn, small_bundle_dir: Path, nine_tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str | None] = [None]

    def stop(step: str) -> None:
        if step.startswith("round 6"):
            said[0] = "others were at work"
            raise KeyboardInterrupt

    monkeypatch.setattr(Recorder, "busy", lambda _: said[0])
    recorder = Recorder("slides", None, {})
    with pytest.raises(KeyboardInterrupt), recorder:
        measure.measure_slides(
            load_bundle(small_bundle_dir), nine_tiles, None,
            peers=[peer("p", work_s=3.0)], rounds=9, recorder=recorder, settings=AT_HALF,
            on_step=stop,
        )  # fmt: skip
    row = recorder.document.row("p, without start-up")
    assert row.refused == {"times_ours": "others were at work"}


def test_a_failure_keeps_the_runs_before(
    ours: StandIn, small_bundle_dir: Path, nine_tiles: Path, tmp_path: Path
) -> None:
    count = tmp_path / "count"
    fails = f"open({str(count)!r}, 'a').write('x'); len(open({str(count)!r}).read()) > 3 and fail\n"
    document = measured(
        small_bundle_dir, nine_tiles, [peer("fails", code=fails + PROGRAM)], rounds=4
    )
    row = document.row("fails, whole process")
    assert len(row.samples) == 2  # after the one that is judged
    assert row.not_measured is None
    assert str(row.facts["stopped"]).startswith("after 2 runs: it failed: NameError")
    assert len(document.row("ours, whole process").samples) == 4


def test_each_round_begins_with_the_next(
    ours: StandIn, small_bundle_dir: Path, nine_tiles: Path
) -> None:
    steps: list[str] = []
    recorder = Recorder("slides", None, {})
    with recorder:
        measure.measure_slides(
            load_bundle(small_bundle_dir), nine_tiles, None,
            peers=[peer("p")], rounds=3, recorder=recorder, settings=AT_HALF,
            on_step=steps.append,
        )  # fmt: skip
    order = [step.split(": ")[1] for step in steps if step.startswith("round")]
    assert order == ["ours", "p", "p", "ours", "ours", "p"]


def test_agreement_counts_where_our_mask_has_tissue() -> None:
    mine = np.array([[[0, 1, 2, 3]]], np.uint8)
    theirs = np.array([[[0, 1, 0, 0]]], np.uint8)
    found = measure._agreement(theirs, mine, 3)
    assert found.masks == pytest.approx(2 / 3)
    assert len(found.misses) == 1
    assert measure._agreement(mine[:, :, :1], mine, 3).misses
    assert measure._agreement(theirs, np.full_like(mine, 3), 3).misses
