"""`sshr-deploy infer`: which inputs it takes, and what it says of the others."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from tests.cli.command import run_here
from tests.runtime.running import patch_folder


@pytest.fixture
def folder(tmp_path: Path, demo_slide: Path) -> Path:
    """`a/[0] patch.png`, `a/[1] patch.png`, `b/[0] patch.png`, `b/[1] patch.png`."""
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        patch_folder(tmp_path / "in" / name, demo_slide, count=2)
    return tmp_path / "in"


def results(out: Path) -> list[str]:
    return sorted(p.parent.relative_to(out).as_posix() for p in out.rglob("summary.json"))


def test_a_list_from_stdin_and_patterns(
    small_bundle_dir: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    listed = io.TextIOWrapper(io.BytesIO(b"a\nb/[1] patch.png\n"), "utf-8")
    monkeypatch.setattr(sys, "stdin", listed)
    done = run_here(
        "infer", folder, "--list", "-", "--exclude", "a/*1*", "--model", small_bundle_dir,
        "--out", out,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert results(out) == ["a/[0] patch.png", "b/[1] patch.png"]
    assert "left out by --include and --exclude (inputs, and whole folders): 1\n" in done.stderr
    run = json.loads((out / "run.json").read_text("utf-8"))
    assert (run["source"], run["settings"]["exclude"]) == (str(folder), ["a/*1*"])


def test_a_failure_stands_where_its_input_was_not_chosen(
    small_bundle_dir: Path, folder: Path, tmp_path: Path
) -> None:
    (folder / "a" / "[0] patch.png").write_bytes(b"no image")
    (folder / "b" / "[1] patch.png").write_bytes(b"no image")
    out = tmp_path / "out"
    fixed = ("--model", small_bundle_dir, "--out", out, "--quiet")
    assert run_here("infer", folder, "--include", "*[01]*", *fixed).returncode == 1
    assert (
        run_here("infer", folder, "--exclude", "a/", "--exclude", "*[[]1*", *fixed).returncode == 0
    )
    table = json.loads((out / "run.json").read_text("utf-8"))["folder"]
    assert (table["done"], table["failed"]) == (2, 2)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "give a slide, an image or a folder, or a list of them with --list"),
        ("{in} {in} --list {list}", "with --list, give no INPUT or one folder"),
        ("--list {in}/none", "--list {in}/none cannot be read: No such file"),
        ("--list {list}", "(and 1 other problem)"),
        ("{in} --include *.svs", "--include and --exclude leave no input"),
        ("{in}/a {in}/b", "give the folder that holds both"),
    ],
)
def test_what_cannot_be_taken_is_refused_in_one_line(
    small_bundle_dir: Path, folder: Path, tmp_path: Path, words: str, says: str
) -> None:
    (tmp_path / "list").write_text(f"{folder}/a\nlost.svs\n{folder}/lost.png\n")
    names = {"in": folder, "list": tmp_path / "list"}
    done = run_here(
        "infer", *(word.format(**names) for word in words.split()), "--model", small_bundle_dir,
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert done.returncode == 2
    assert says.format(**names) in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_table_of_pixel_sizes(small_bundle_dir: Path, folder: Path, tmp_path: Path) -> None:
    out, table = tmp_path / "out", tmp_path / "sizes.csv"
    table.write_text("pattern;mpp\n[[]1*;0,9\nb/*;0,8\nold/*;0,7\nb/[[]1*;0,8\n")
    words = ("infer", folder, "--exclude", "a/*1*", "--mpp-table", table, "--out", out)
    done = run_here(*words, "--model", small_bundle_dir)
    assert done.returncode == 2
    assert f"--mpp-table {table}: b/[1] patch.png has several pixel sizes" in done.stderr
    table.write_text("pattern;mpp\nb/*;0,8\nold/*;0,7\n")
    done = run_here(*words, "--model", small_bundle_dir)
    assert done.returncode == 0, done.stderr
    assert "--mpp-table has rows of no input here: old/*\n" in done.stderr
    run = json.loads((out / "run.json").read_text("utf-8"))
    assert [e["mpp"] and e["mpp"]["x_um"] for e in run["folder"]["inputs"]] == [None, 0.8, 0.8]
    assert run["settings"]["mpp_table"]["rows"][0] == {
        "name": "b/*", "mpp_um": 0.8, "is_pattern": True,
    }  # fmt: skip


def test_all_that_is_wrong_with_a_table_is_listed(
    small_bundle_dir: Path, folder: Path, tmp_path: Path
) -> None:
    table = tmp_path / "sizes.csv"
    table.write_text("name,mpp\na.png,0\nb.png,900\n")
    done = run_here(
        "infer", folder, "--mpp-table", table, "--out", tmp_path / "out", "--model",
        small_bundle_dir,
    )  # fmt: skip
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert [line.split(":")[0] for line in lines] == ["line 2", "line 3", "sshr-deploy"]
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="such names are none there")
def test_names_of_inputs_forge_no_lines(
    small_bundle_dir: Path, folder: Path, tmp_path: Path
) -> None:
    name = "x\nfailed: y\x1b[2J.png"
    (folder / "a" / "[0] patch.png").rename(folder / "a" / name)
    (folder / "b" / name).write_bytes(b"no image")
    done = run_here("infer", folder, "--model", small_bundle_dir, "--out", tmp_path / "out")
    assert done.returncode == 1
    lines = (done.stdout + done.stderr).splitlines()
    assert len([line for line in lines if line.startswith("failed: ")]) == 1
    assert not any("\x1b" in line or line.startswith("y") for line in lines)
    assert str(tmp_path / "out" / "a" / r"x\nfailed: y\x1b[2J.png" / "mask.png") in lines
