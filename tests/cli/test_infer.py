"""`sshr-deploy infer` in this process: what is refused at once, and what is printed."""

from __future__ import annotations

import importlib
import json
import os
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sshr_deploy.cli import app
from sshr_deploy.cli.option_names import as_options
from sshr_deploy.cli.result_tables import print_results
from sshr_deploy.errors import DatasetError, UsageError
from sshr_deploy.runtime.pipeline.run import RunResult
from sshr_deploy.runtime.pipeline.run_lock import run_lock
from sshr_deploy.runtime.results.findings import InputResult, PatchClass, PatchSummary
from sshr_deploy.runtime.results.records import ResultsTable, RunDocument
from tests.runtime.running import patch_folder


def invoke(*args: object) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening an engine, which may build it for minutes, fails the test."""

    def opened(*args: object, **options: object) -> None:
        raise AssertionError("an engine was opened")

    for command in ("engine", "scored_model"):
        module = importlib.import_module(f"sshr_deploy.cli.{command}")
        monkeypatch.setattr(module, "open_model", opened)


@pytest.mark.usefixtures("no_engine")
@pytest.mark.parametrize(
    ("source", "options", "reason"),
    [
        ("none.svs", [], "none.svs cannot be read: No such file"),
        ("empty", [], "holds no slide or patch image"),
        ("in", ["--mpp", "0"], "--mpp 0 is no pixel size"),
        ("in", ["--force-mpp"], "give --mpp too"),
        ("in", ["--out", "{in}"], "is where the inputs are"),
        ("in", ["--out", "{in}/a.png"], "cannot be made a folder"),
    ],
)
def test_what_cannot_work_is_refused_before_an_engine_is_opened(
    small_bundle_dir: Path, tmp_path: Path, source: str, options: list[str], reason: str
) -> None:
    for folder in ("in", "empty"):
        (tmp_path / folder).mkdir()
    (tmp_path / "in" / "a.png").touch()
    filled = [option.format(**{"in": tmp_path / "in"}) for option in options]
    done = invoke(
        "infer", tmp_path / source, "--model", small_bundle_dir, "--out", tmp_path / "out", *filled
    )
    assert isinstance(done.exception, UsageError), done.output
    assert reason in as_options(str(done.exception))
    assert not (tmp_path / "out").exists()
    assert [p.name for p in (tmp_path / "in").iterdir()] == ["a.png"]


@pytest.mark.usefixtures("no_engine")
def test_a_second_run_is_told_before_an_engine_is_opened(
    small_bundle_dir: Path, demo_slide: Path, tmp_path: Path
) -> None:
    with run_lock(tmp_path / "out"):
        done = invoke("infer", demo_slide, "--model", small_bundle_dir, "--out", tmp_path / "out")
    assert isinstance(done.exception, UsageError), done.output
    assert f"process {os.getpid()} on " in str(done.exception)


@pytest.mark.usefixtures("no_engine")
def test_evaluate_refuses_a_missing_split_before_an_engine_is_opened(
    small_bundle_dir: Path, tmp_path: Path
) -> None:
    done = invoke("evaluate", tmp_path / "none", "--model", small_bundle_dir)
    assert isinstance(done.exception, DatasetError), done.output
    assert "has no folders img and mask" in str(done.exception)


def test_what_is_left_out_is_told_once_and_recorded(
    small_bundle_dir: Path, demo_slide: Path, tmp_path: Path
) -> None:
    folder, out = patch_folder(tmp_path / "in", demo_slide, count=1), tmp_path / "out"
    for name in ("a.bmp", "b.bmp", "c.jp2"):
        (folder / name).touch()
    (folder / "broken.png").write_bytes(b"no image")
    done = invoke("infer", folder, "--model", small_bundle_dir, "--out", out)
    assert done.exit_code == 1
    assert done.stderr.count("3 files left out: .bmp (2), .jp2\n") == 1
    assert json.loads((out / "run.json").read_text())["left_out"] == {".bmp": 2, ".jp2": 1}
    cells = [re.split("  +", line) for line in done.stdout.splitlines()]
    assert ["broken.png", "failed", "-", "-", "-"] in cells
    printed = [line for line in done.stdout.splitlines() if line.startswith(str(out))]
    assert all(Path(line).is_file() for line in printed)
    assert {Path(line).name for line in printed} >= {"mask.png", "summary.csv", "run.json"}


def test_inputs_of_one_name_are_told_apart_by_their_paths(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    tumour = PatchClass(
        label=0, name="tumour", pixels=5, share=0.5, area_mm2=None, probability=1.0, on=True
    )
    summary = PatchSummary.model_construct(
        classes=(tumour,), folder="f", files={"mask.png": 1}, stain_concern=None
    )
    results = [
        InputResult(Path("a/x.png"), "patch", "done", summary=summary),
        InputResult(Path("b/x.png"), "patch", "failed", "why"),
        InputResult(Path("b/y.png"), "patch", "skipped", summary=summary),
    ]
    folder = ResultsTable(done=5, failed=1, inputs=())
    document = RunDocument.model_construct(folder=folder)
    print_results(RunResult(results, document, [tmp_path / "run.json"]), tmp_path)
    out = capsys.readouterr().out
    table = out.splitlines()[1:4]  # below the headings
    rows = [re.split("  +", line)[:3] for line in table]
    assert rows == [
        ["a/x.png", "done", "tumour"],
        ["b/x.png", "failed", "-"],
        ["y.png", "done earlier", "tumour"],
    ]
    assert "1 done, 1 done earlier, 1 failed\n" in out
    assert f"{tmp_path} now holds 5 done, 1 failed\n" in out
    assert "summary.csv" not in out
