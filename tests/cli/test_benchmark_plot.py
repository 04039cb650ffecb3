"""`sshr-deploy benchmark plot` as a person runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from sshr_deploy.atomic import write_json
from tests.benchmarks.report.documents import make_document, make_row
from tests.benchmarks.roofline.documents import roofline_document
from tests.cli.command import run_here


def test_each_file_has_its_pictures_and_a_table(tmp_path: Path) -> None:
    file, out = tmp_path / "mine.json", tmp_path / "out"
    row = make_row("fp32", [10.0, 10.1, 10.2], figures={"patches_per_s": 99.0})
    write_json(file, make_document([row], "int8").model_dump(mode="json"))
    done = run_here("benchmark", "plot", file, "--out", out)
    assert done.returncode == 0, done.stderr
    names = ["mine.png", "mine.svg", "mine.md"]
    assert done.stdout.splitlines() == [str(out / name) for name in names]
    assert "| fp32 | 10.1 ms | 10.05-10.15 | 3 | 100.000% | 99 |" in (out / "mine.md").read_text()


def test_a_roofline_is_drawn_as_one(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    write_json(file, roofline_document().model_dump(mode="json"))
    done = run_here("benchmark", "plot", file, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "fp32 product, 100" in (tmp_path / "out" / "mine.svg").read_text()


def test_two_files_of_one_name_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    files = []
    for folder in "ab":
        (tmp_path / folder).mkdir()
        files.append(tmp_path / folder / "x.json")
        write_json(files[-1], make_document([]).model_dump(mode="json"))
    done = run_here("benchmark", "plot", *files, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "two files are named x" in done.stderr
    assert not (tmp_path / "out").exists()
