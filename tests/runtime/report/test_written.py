"""When runs write the pages, and what it costs where they cannot."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sshr_deploy.errors import OutputError
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.pipeline.pages import write_pages
from sshr_deploy.runtime.pipeline.result_folders import write_summary
from sshr_deploy.runtime.report import single
from sshr_deploy.runtime.results.table import ResultRow
from tests.runtime.report.found import row_of, slide_summary
from tests.runtime.report.reading import Page
from tests.runtime.running import Runner, patch_folder, read_summary

NAME = "[0] patch.png"


def report(folder: Path) -> str:
    return (folder / "report.html").read_text("utf-8")


def test_a_run_writes_pages_and_says_where_an_input_is_now(
    infer: Runner, demo_slide: Path, tmp_path: Path
) -> None:
    images, out = patch_folder(tmp_path / "in", demo_slide, count=1), tmp_path / "out"
    result = infer(images, out)
    assert out / "report.html" in result.files
    first = Page(report(out))
    for address in first.addresses():
        assert (out / address.replace("%5B0%5D%20", "[0] ")).is_file()
    assert str(images / NAME) in report(out / NAME)
    assert "report.html" not in read_summary(out / NAME)["files"]

    images.rename(tmp_path / "moved")
    assert [r.status for r in infer(tmp_path / "moved", out).results] == ["skipped"]
    assert str(images / NAME) not in report(out / NAME)
    assert str(tmp_path / "moved" / NAME) in report(out / NAME)

    (out / NAME / "report.html").unlink()
    assert [r.status for r in infer(tmp_path / "moved", out).results] == ["skipped"]
    assert (out / NAME / "report.html").exists(), "the end of a run writes what is missing"


@pytest.mark.parametrize("error", [OutputError("no space"), TypeError("a defect")])
def test_a_page_that_fails_costs_no_result(
    infer: Runner,
    demo_slide: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    images, out = patch_folder(tmp_path / "in", demo_slide, count=2), tmp_path / "out"

    def fail(*_: object) -> str:
        raise error

    monkeypatch.setattr(single, "input_page", fail)
    result = infer(images, out)
    assert [r.status for r in result.results] == ["done", "done"]
    assert result.exit_code == 1
    assert isinstance(result.stopped_by, OutputError)
    assert str(error) in str(result.stopped_by)
    assert (out / NAME / "summary.json").is_file()
    assert {"summary.csv", "run.json"} < {path.name for path in result.files}
    monkeypatch.undo()
    assert [r.status for r in infer(images, out).results] == ["skipped", "skipped"]
    assert (out / NAME / "report.html").is_file()


def test_pages_that_are_there_are_left(
    profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[ResultRow] = []
    for name in ("1.svs", "2.svs", "3.svs"):
        summary = slide_summary(name)
        write_summary(tmp_path / name, summary)
        rows.append(row_of(summary, *(["report.html"] if name == "2.svs" else [])))
    (tmp_path / "3.svs" / "report.html").touch()
    write_pages(tmp_path, profile, rows)
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.html")}
    assert found == {"report.html", "1.svs/report.html", "3.svs/report.html"}
    assert not (tmp_path / "3.svs" / "report.html").stat().st_size
    shutil.rmtree(tmp_path / "1.svs")
    write_pages(tmp_path, profile, rows)
