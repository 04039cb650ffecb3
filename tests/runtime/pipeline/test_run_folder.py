"""What a results folder says after several runs: `summary.csv`, `run.json`, `runs/`."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from sshr_deploy.atomic import write_json
from sshr_deploy.errors import InputError, OutputError
from sshr_deploy.runtime.pipeline import patch as patch_job
from sshr_deploy.runtime.pipeline import run_folder
from tests.runtime.running import Recorder, Runner, patch_folder, read_summary


def table(out: Path) -> dict[str, dict[str, str]]:
    """Rows of `summary.csv` by input; each input is there once."""
    with (out / "summary.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    by_input = {row["input"]: row for row in rows}
    assert len(by_input) == len(rows)
    return by_input


def statuses(out: Path) -> dict[str, str]:
    document = json.loads((out / "run.json").read_text("utf-8"))
    entries = {entry["path"]: entry["status"] for entry in document["folder"]["inputs"]}
    written = {path.encode(errors="backslashreplace").decode(): s for path, s in entries.items()}
    assert written == {path: row["status"] for path, row in table(out).items()}
    return {os.path.relpath(path, out.parent): status for path, status in entries.items()}


@pytest.fixture
def inputs(tmp_path: Path, demo_slide: Path) -> Path:
    """Folders `a` with two patches, `b` with one that has the name of one in `a`."""
    patch_folder(tmp_path / "a", demo_slide, count=2)
    (tmp_path / "b" / "deep").mkdir(parents=True)
    shutil.copy(tmp_path / "a" / "[0] patch.png", tmp_path / "b" / "deep")
    return tmp_path


def test_the_table_covers_all_runs_and_each_run_has_its_record(
    infer: Runner, inputs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    infer(inputs / "a", out)
    (inputs / "b" / "broken.png").write_bytes(b"no image")
    result = infer(inputs / "b", out)
    assert statuses(out) == {
        "a/[0] patch.png": "done",
        "a/[1] patch.png": "done",
        "b/broken.png": "failed",
        "b/deep/[0] patch.png": "done",
    }
    rows = table(out)
    row = rows[str(inputs / "b" / "deep" / "[0] patch.png")]
    assert row["folder"] == "deep/[0] patch.png"
    assert float(row["tumour share"]) == pytest.approx(
        read_summary(out / row["folder"])["classes"][0]["share"]
    )
    assert "broken.png" in rows[str(inputs / "b" / "broken.png")]["reason"]

    document = json.loads((out / "run.json").read_text("utf-8"))
    assert document == json.loads(json.dumps(result.document.model_dump()))
    assert document["counts"] == {"done": 1, "skipped": 0, "failed": 1}
    assert [entry["status"] for entry in document["inputs"]] == ["failed", "done"]
    assert (document["folder"]["done"], document["folder"]["failed"]) == (3, 1)
    records = [json.loads(p.read_text("utf-8")) for p in sorted((out / "runs").iterdir())]
    assert [record["source"] for record in records] == [str(inputs / "a"), str(inputs / "b")]
    assert records[1] == {k: v for k, v in document.items() if k != "folder"}
    assert set(result.files) == {
        out / "summary.csv",
        out / "run.json",
        out / "report.html",
        max((out / "runs").iterdir()),
    }


def test_the_table_is_read_from_the_folder(infer: Runner, inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    infer(inputs / "a", out)
    for path in (out / "summary.csv", out / "run.json", *(out / "runs").iterdir()):
        path.unlink()
    shutil.rmtree(out / "[1] patch.png")
    infer(inputs / "b", out)
    assert statuses(out) == {"a/[0] patch.png": "done", "b/deep/[0] patch.png": "done"}


def test_a_failure_stands_until_its_input_is_done_or_gone(
    infer: Runner, inputs: Path, tmp_path: Path
) -> None:
    out, one, two = tmp_path / "out", inputs / "a" / "1.png", inputs / "a" / "2.png"
    for path in (one, two):
        path.write_bytes(b"no image")
    infer(inputs / "a", out)
    infer(inputs / "b", out)
    two.unlink()
    (out / "runs" / "29990101T000000.000Z-abcdef.json").write_text("{}")  # no record
    infer(inputs / "b", out)
    assert (statuses(out)["a/1.png"], statuses(out)["a/2.png"]) == ("failed", "failed")
    shutil.copy(inputs / "a" / "[0] patch.png", one)
    infer(one, out)
    assert (statuses(out)["a/1.png"], statuses(out)["a/2.png"]) == ("done", "failed")
    infer(inputs / "a", out)
    assert "failed" not in statuses(out).values()


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file name that is not UTF-8")
def test_names_that_are_not_utf_8_are_known_again(
    infer: Runner, inputs: Path, tmp_path: Path
) -> None:
    out, folder = tmp_path / "out", inputs / "b" / "deep"
    (folder / "[0] patch.png").rename(folder / os.fsdecode(b"\xff.png"))
    (folder / os.fsdecode(b"\xfe.png")).write_bytes(b"no image")
    assert [r.status for r in infer(folder, out).results] == ["failed", "done"]
    assert [r.status for r in infer(folder, out).results] == ["failed", "skipped"]
    infer(inputs / "a", out)
    assert sorted(statuses(out).values()) == ["done", "done", "done", "failed"]


def test_an_interrupted_run_says_nothing_of_what_it_did_not_reach(
    infer: Runner, inputs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (inputs / "a" / "z.png").write_bytes(b"no image")
    infer(inputs / "a", out)
    with pytest.raises(KeyboardInterrupt):
        infer(inputs / "a", out, reporter=Recorder(interrupt_after=1), batch=1)
    assert statuses(out)["a/z.png"] == "failed"


def test_a_failed_input_does_not_show_an_older_result(
    infer: Runner, inputs: Path, tmp_path: Path
) -> None:
    out, path = tmp_path / "out", inputs / "a" / "[0] patch.png"
    infer(inputs / "a", out)
    path.write_bytes(b"no image")
    infer(inputs / "a", out)
    assert statuses(out) == {"a/[0] patch.png": "failed", "a/[1] patch.png": "done"}
    assert table(out)[str(path)]["tumour share"] == ""


def test_classes_of_other_bundles_get_columns(infer: Runner, inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    infer(inputs / "a", out)
    summary = read_summary(out / "[0] patch.png")
    summary["classes"] = [{"name": "necrosis", "share": 1.0, "area_mm2": 0.25}]
    (out / "[0] patch.png" / "summary.json").write_text(json.dumps(summary))
    infer(inputs / "b", out)
    with (out / "summary.csv").open(encoding="utf-8") as file:
        columns = next(csv.reader(file))
    assert columns[4:] == [
        "tissue_mm2", "tumour mm2", "stroma mm2", "normal mm2", "necrosis mm2",
        "tumour share", "stroma share", "normal share", "necrosis share",
        "seconds", "folder", "profile", "fit", "warnings",
    ]  # fmt: skip
    rows = table(out)
    assert rows[str(inputs / "a" / "[0] patch.png")]["necrosis mm2"] == "0.25"
    assert rows[str(inputs / "a" / "[1] patch.png")]["necrosis mm2"] == ""


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"key": {}, "input": [], "files": 5}', b"\xff", b"[" * 100_000]
)
def test_a_summary_that_is_not_ours_is_no_result(
    infer: Runner, inputs: Path, tmp_path: Path, content: bytes
) -> None:
    out = tmp_path / "out"
    for folder in ("elsewhere", "deep/[0] patch.png"):
        (out / folder).mkdir(parents=True)
        (out / folder / "summary.json").write_bytes(content)
    assert [r.status for r in infer(inputs / "b", out).results] == ["done"]
    assert statuses(out) == {"b/deep/[0] patch.png": "done"}


@pytest.mark.parametrize("name", ["summary.csv", "run.json", "report.html", "runs"])
def test_what_could_not_be_written_is_not_named(
    infer: Runner, inputs: Path, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "out"
    if name == "runs":
        out.mkdir()
        (out / name).touch()
    else:
        (out / name).mkdir(parents=True)
    result = infer(inputs / "b", out)
    assert result.exit_code == 1
    assert name in str(result.stopped_by)
    assert len(result.files) == 3
    assert all(path.is_file() for path in result.files)


def test_a_disk_that_fills_up_costs_no_failure(
    infer: Runner, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    (inputs / "a" / "z.png").write_bytes(b"no image")
    infer(inputs / "b", out)

    written: list[Path] = []

    def full_after_one(path: Path, **content: object) -> None:
        if written:
            raise OutputError(f"cannot write {path}: No space left on device")
        written.append(path)
        write_json(path, content.get("obj"))

    for write in ("write_json", "write_csv"):
        monkeypatch.setattr(run_folder, write, full_after_one)
    assert "No space left" in str(infer(inputs / "a", out).stopped_by)
    monkeypatch.undo()
    infer(inputs / "b", out)
    assert statuses(out)["a/z.png"] == "failed"


def test_results_that_cannot_be_read_are_said_to_be_missing(
    infer: Runner, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, scandir = tmp_path / "out", os.scandir
    infer(inputs / "a", out)

    def refuse(path: Any) -> Any:
        if Path(path).name == "[1] patch.png":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    result = infer(inputs / "b", out)
    assert "the table lacks what is there" in str(result.stopped_by)
    assert statuses(out) == {"a/[0] patch.png": "done", "b/deep/[0] patch.png": "done"}


def test_failures_leave_no_empty_folders(
    infer: Runner, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slides = tmp_path / "slides"
    for name in ("x/y/bad.svs", "mine/bad.svs"):
        (slides / name).parent.mkdir(parents=True)
        (slides / name).write_bytes(b"no slide")
    out = tmp_path / "out"
    (out / "mine").mkdir(parents=True)
    assert infer(slides, out).exit_code == 1
    folders = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_dir()}
    assert folders == {"mine", "runs"}

    def lose(*args: object) -> None:
        raise InputError("it vanished")

    infer(inputs / "b", out)
    monkeypatch.setattr(patch_job, "finish_patch", lose)
    infer(inputs / "b", out, overwrite=True)
    assert not (out / "deep").exists()


@pytest.mark.parametrize("name", ["mask.png", "overlay.png", "overlay-small.jpg", "thumbnail.jpg"])
def test_a_cut_result_is_computed_again(
    infer: Runner, inputs: Path, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "out"
    infer(inputs / "b", out)
    path = out / "deep" / "[0] patch.png" / name
    whole = path.read_bytes()
    assert read_summary(path.parent)["files"][name] == len(whole)
    path.write_bytes(whole[:-1])
    assert [r.status for r in infer(inputs / "b", out).results] == ["done"]
    assert path.read_bytes() == whole
    assert [r.status for r in infer(inputs / "b", out).results] == ["skipped"]


def test_a_result_of_an_older_format_is_computed_again(
    infer: Runner, inputs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    infer(inputs / "b", out)
    folder = out / "deep" / "[0] patch.png"
    summary = read_summary(folder)
    (folder / "summary.json").write_text(json.dumps({**summary, "files": list(summary["files"])}))
    assert [r.status for r in infer(inputs / "b", out).results] == ["done"]
    assert read_summary(folder)["files"] == summary["files"]
