"""Runs over many inputs: failures, resuming, and what stops them."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from sshr_deploy.atomic import partial_name
from sshr_deploy.errors import InputError, SessionError, UsageError
from sshr_deploy.runtime.masks import reference_mask
from sshr_deploy.runtime.patches import resize_to_patch
from sshr_deploy.runtime.pipeline import slide as slide_job
from sshr_deploy.runtime.pipeline.run_lock import SHARING_NAME
from sshr_deploy.runtime.results.findings import InputResult
from sshr_deploy.runtime.settings import TissueChoice
from tests.runtime.running import Recorder, Runner, patch_folder, read_summary


def test_patches_are_done_exactly_as_published(
    infer: Runner, demo_slide: Path, tmp_path: Path
) -> None:
    folder = patch_folder(tmp_path / "in", demo_slide)
    result = infer(folder, tmp_path / "out", batch=2)
    assert result.exit_code == 0
    profile = infer.bundle.manifest.profile
    for path in folder.iterdir():
        rgb = np.asarray(Image.open(path))
        expected = reference_mask(
            infer.session.infer(resize_to_patch(rgb)[None]),
            0,
            profile,
            height_px=rgb.shape[0],
            width_px=rgb.shape[1],
        )
        with Image.open(tmp_path / "out" / path.name / "mask.png") as mask:
            assert mask.mode == "P"
            assert (np.asarray(mask) == expected).mean() > 0.999
        summary = read_summary(tmp_path / "out" / path.name)
        assert sum(c["pixels"] for c in summary["classes"]) == expected.size
        assert summary["classes"][0]["area_mm2"] is None
        assert any(c["on"] for c in summary["classes"])


def test_one_bad_input_is_recorded_and_the_rest_goes_on(
    infer: Runner, demo_slide: Path, tmp_path: Path
) -> None:
    folder = patch_folder(tmp_path / "in", demo_slide, count=3)
    whole = demo_slide.read_bytes()
    (folder / "empty.svs").write_bytes(b"")
    (folder / "half.svs").write_bytes(whole[: len(whole) // 2])
    (folder / "text.svs").write_text("not a slide")
    (folder / "broken.png").write_bytes(b"not an image")
    recorder = Recorder()
    result = infer(folder, tmp_path / "out", reporter=recorder, batch=2)
    assert result.exit_code == 1
    status = {r.path.name: r.status for r in result.results}
    bad = {"empty.svs", "half.svs", "text.svs", "broken.png"}
    assert {name for name, s in status.items() if s == "failed"} == bad
    assert sum(s == "done" for s in status.values()) == 3
    for r in result.results:
        if r.status == "failed":
            assert r.path.name in r.reason
            assert "\n" not in r.reason
            assert "defect" not in r.reason
    with (tmp_path / "out" / "summary.csv").open(newline="", encoding="utf-8") as file:
        assert sum(row["status"] == "failed" for row in csv.DictReader(file)) == 4
    assert not list((tmp_path / "out").rglob("*.partial"))


def test_a_defect_is_recorded_with_its_traceback(
    infer: Runner, demo_slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(*args: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(slide_job, "begin_slide", defect)
    result = infer(demo_slide, tmp_path / "out")
    assert result.exit_code == 1
    assert "defect of sshr-deploy (ZeroDivisionError)" in result.results[0].reason
    assert "oops" in (tmp_path / "out" / demo_slide.name / "error.txt").read_text()


def test_a_second_run_does_only_what_is_left(
    infer: Runner, demo_slide: Path, tmp_path: Path
) -> None:
    folder, out = patch_folder(tmp_path / "in", demo_slide), tmp_path / "out"
    recorder = Recorder(interrupt_after=3)
    with pytest.raises(KeyboardInterrupt):
        infer(folder, out, reporter=recorder, batch=1)
    assert json.loads((out / "run.json").read_text())["interrupted"] is True

    second = infer(folder, out)
    assert [r.status for r in second.results] == ["skipped"] * 3 + ["done"] * 2
    third = infer(folder, out)
    assert [r.status for r in third.results] == ["skipped"] * 5
    assert third.exit_code == 0
    assert all(r.summary and r.summary.classes for r in third.results)


def test_results_are_computed_again_when_anything_changed(
    infer: Runner, demo_slide: Path, tmp_path: Path
) -> None:
    folder, out = patch_folder(tmp_path / "in", demo_slide, count=2), tmp_path / "out"
    infer(folder, out)
    names = sorted(p.name for p in folder.iterdir())
    Image.new("RGB", (224, 224), "pink").save(folder / names[0])
    (out / names[1] / "mask.png").unlink()
    assert [r.status for r in infer(folder, out).results] == ["done", "done"]
    assert [r.status for r in infer(folder, out, overwrite=True).results] == ["done", "done"]
    assert [r.status for r in infer(folder, out, tissue=TissueChoice.ALL).results] == [
        "done",
        "done",
    ]
    other = Runner(replace(infer.bundle, manifest_sha256="0" * 64), infer.session)
    assert [r.status for r in other(folder, out).results] == ["done", "done"]


def test_a_failing_engine_stops_the_run(
    infer: Runner, demo_slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(patches: object) -> None:
        raise SessionError("out of memory")

    monkeypatch.setattr(infer.session, "_compute", fail)
    with pytest.raises(SessionError, match="out of memory"):
        infer(demo_slide, tmp_path)
    document = json.loads((tmp_path / "run.json").read_text())
    assert document["stopped_by"] == "out of memory"
    assert document["counts"]["failed"] == 1


def test_out_must_be_a_folder(infer: Runner, demo_slide: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="cannot be made a folder"):
        infer(demo_slide, tmp_path / "file")


def test_a_result_that_cannot_be_written_stops_the_run(
    infer: Runner, demo_slide: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.svs", "b.svs"):
        shutil.copy(demo_slide, folder / name)
    out = tmp_path / "out"
    (out / "a.svs" / "mask.ome.tif" / "in the way").mkdir(parents=True)
    result = infer(folder, out)
    assert result.exit_code == 1
    assert result.stopped_by is not None
    assert "cannot write to" in str(result.stopped_by)
    assert [r.status for r in result.results] == ["failed"]
    assert result.document.stopped_by == str(result.stopped_by)


def test_another_input_of_the_same_name_is_not_replaced(
    infer: Runner, demo_slide: Path, tmp_path: Path
) -> None:
    first = patch_folder(tmp_path / "first", demo_slide, count=1)
    second = patch_folder(tmp_path / "second", demo_slide, count=2)
    Image.new("RGB", (224, 224), "pink").save(second / "[0] patch.png")
    out = tmp_path / "out"
    infer(first, out)
    before = (out / "[0] patch.png" / "mask.png").read_bytes()
    result = infer(second, out)
    assert [r.status for r in result.results] == ["failed", "done"]
    assert "would replace the result of" in result.results[0].reason
    assert (out / "[0] patch.png" / "mask.png").read_bytes() == before
    assert infer(second, out, overwrite=True).exit_code == 0


def test_equal_pixels_under_one_name_are_two_inputs(
    infer: Runner, demo_slide: Path, tmp_path: Path
) -> None:
    first = patch_folder(tmp_path / "first", demo_slide, count=1)
    out = tmp_path / "out"
    infer(first, out)
    shutil.copytree(first, tmp_path / "second")
    (result,) = infer(tmp_path / "second", out).results
    assert "would replace the result of" in result.reason
    assert read_summary(out / "[0] patch.png")["input"]["path"] == str(first / "[0] patch.png")


def test_a_moved_input_is_known_again_by_its_new_path(
    infer: Runner, demo_slide: Path, tmp_path: Path
) -> None:
    first, out = patch_folder(tmp_path / "first", demo_slide, count=1), tmp_path / "out"
    infer(first, out)
    moved = first.rename(tmp_path / "moved")
    assert [r.status for r in infer(moved, out).results] == ["skipped"]
    assert read_summary(out / "[0] patch.png")["input"]["path"] == str(moved / "[0] patch.png")


def test_what_a_failed_input_had_written_goes(
    infer: Runner, demo_slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_overlay(*_: object, **__: object) -> None:
        raise InputError("no overlay")

    monkeypatch.setattr("sshr_deploy.runtime.pipeline.patch.write_overlay", no_overlay)
    (result,) = infer(patch_folder(tmp_path / "in", demo_slide, count=1), tmp_path / "out").results
    assert result.status == "failed"
    assert not (tmp_path / "out" / "[0] patch.png").exists()


def test_naming_the_pixel_size_computes_only_what_lacked_it(
    infer: Runner, demo_slide: Path, tmp_path: Path
) -> None:
    folder, out = patch_folder(tmp_path / "in", demo_slide, count=1), tmp_path / "out"
    shutil.copy(demo_slide, folder / "a.svs")
    with openslide.OpenSlide(demo_slide) as slide:
        rgb = np.asarray(slide.read_region((800, 800), 0, (512, 512)).convert("RGB"))
    tifffile.imwrite(folder / "bare.tif", rgb, photometric="rgb", metadata=None)

    def statuses(**settings: Any) -> dict[str, str]:
        return {r.path.suffix: r.status for r in infer(folder, out, **settings).results}

    assert statuses() == {".png": "done", ".svs": "done", ".tif": "failed"}
    assert statuses(mpp_um=0.5) == {".png": "done", ".svs": "skipped", ".tif": "done"}
    assert statuses(mpp_um=0.5) == {".png": "skipped", ".svs": "skipped", ".tif": "skipped"}
    assert statuses(mpp_um=0.4) == {".png": "done", ".svs": "skipped", ".tif": "done"}
    forced = statuses(mpp_um=0.4, force_mpp=True)
    assert forced == {".png": "skipped", ".svs": "done", ".tif": "done"}
    assert statuses(mpp_um=0.4) == {".png": "skipped", ".svs": "done", ".tif": "done"}


@pytest.mark.parametrize("mpp_um", [0.0, -1.0, 1000.0, float("nan"), float("inf")])
def test_an_impossible_mpp_touches_nothing(
    infer: Runner, demo_slide: Path, tmp_path: Path, mpp_um: float
) -> None:
    with pytest.raises(UsageError, match="`mpp`"):
        infer(demo_slide, tmp_path / "out", mpp_um=mpp_um)
    assert not (tmp_path / "out").exists()


def test_results_are_never_put_over_the_inputs(
    infer: Runner, demo_slide: Path, tmp_path: Path
) -> None:
    shutil.copy(demo_slide, tmp_path / "a.svs")
    for source in (tmp_path, tmp_path / "a.svs"):
        with pytest.raises(UsageError, match="is where the inputs are"):
            infer(source, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.svs"]


def test_nothing_of_an_earlier_or_killed_run_stays_beside_a_failure(
    infer: Runner, demo_slide: Path, tmp_path: Path
) -> None:
    slide, out = tmp_path / "a.svs", tmp_path / "out"
    shutil.copy(demo_slide, slide)
    assert infer(slide, out).exit_code == 0
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    living = out / "a.svs" / partial_name("mask")
    killed = out / "a.svs" / living.name.replace(f"-{os.getpid()}-", f"-{ended.pid}-")
    for partial in (living, killed):
        partial.write_bytes(b"x")
    slide.write_bytes(slide.read_bytes()[:-1000])
    assert infer(slide, out).exit_code == 1
    assert list((out / "a.svs").iterdir()) == [living]


def test_a_patch_that_vanishes_does_not_stop_the_rest(
    infer: Runner, demo_slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = patch_folder(tmp_path / "in", demo_slide, count=4)
    session: Any = infer.session
    real = session._compute

    def infer_then_lose_a_file(patches: Any) -> Any:
        for path in sorted(folder.iterdir())[2:3]:
            path.unlink()
        return real(patches)

    monkeypatch.setattr(session, "_compute", infer_then_lose_a_file)
    result = infer(folder, tmp_path / "out", batch=2)
    assert [r.status for r in result.results] == ["done"] * 2 + ["failed", "done"]
    assert "cannot be read" in result.results[2].reason


@pytest.mark.parametrize(("after", "statuses"), [(1, ["done", "failed"]), (3, ["done"] * 3)])
def test_a_folder_that_another_run_has_taken_over_is_left_to_it(
    infer: Runner, demo_slide: Path, tmp_path: Path, after: int, statuses: list[str]
) -> None:
    folder, out = patch_folder(tmp_path / "in", demo_slide, count=3), tmp_path / "out"
    other = {"host": "h", "pid": 5, "started_utc": "2026-01-02T03:04:05+00:00", "token": "y"}
    presence = f"{SHARING_NAME}/run-y"
    theirs = {presence: json.dumps(other), "summary.csv": "a table", "run.json": "a run"}

    class TakenOver(Recorder):
        def input_finished(self, result: InputResult) -> None:
            super().input_finished(result)
            if len(self.finished) == after:
                (own,) = (out / SHARING_NAME).glob("run-*")
                own.unlink()
                for name, text in theirs.items():
                    (out / name).write_text(text, "utf-8")

    result = infer(folder, out, reporter=TakenOver(), batch=2)
    assert result.exit_code == 1
    assert "process 5 on h" in str(result.stopped_by)
    assert [r.status for r in result.results] == statuses
    assert {name: (out / name).read_text("utf-8") for name in theirs} == theirs
    assert len(list(out.rglob("summary.json"))) == statuses.count("done")
    (record,) = (out / "runs").iterdir()
    assert result.files == [record]
    assert json.loads(record.read_text("utf-8"))["stopped_by"] == str(result.stopped_by)
