"""Blocks of the quick starts that are marked `<!-- runnable -->` run as they stand, in order."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.cli.command import run_here

pytest.importorskip("torch")

MARK = "<!-- runnable -->"
BLOCK = re.compile(rf"^{MARK}\n```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
DATASET = ["python", "-m", "sshr_deploy.train.demo_dataset"]


@pytest.fixture
def folder(tmp_path: Path, repo_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder `try` of the quick starts, still without a bundle."""
    shutil.copytree(repo_root / "demo" / "data", tmp_path / "slides")
    shutil.copy(repo_root / "demo" / "profile.toml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_page(page: Path) -> int:
    """Run the blocks; gives how many there were."""
    text = page.read_text("utf-8")
    blocks = BLOCK.findall(text)
    assert len(blocks) == text.count(MARK), "a mark without a block below it"
    for language, block in blocks:
        if language == "python":
            exec(compile(block, str(page), "exec"), {})
        else:
            assert language == "sh", language
            for line in block.replace("\\\n", " ").splitlines():
                run_line(shlex.split(line))
    return len(blocks)


def run_line(words: list[str]) -> None:
    if words[: len(DATASET)] == DATASET:
        from sshr_deploy.train.demo_dataset import main

        assert main(words[len(DATASET) :]) == 0
    else:
        assert words[0] == "sshr-deploy", words
        done = run_here(*words[1:])
        assert done.returncode == 0, (words, done.stderr)


@pytest.mark.parametrize("page", ["lab.md", "integrator.md"])
def test_pages_that_begin_with_a_bundle(
    page: str, folder: Path, repo_root: Path, small_bundle_dir: Path
) -> None:
    shutil.copytree(small_bundle_dir, folder / "bundle")
    assert run_page(repo_root / "docs" / page) >= 4
    assert (folder / "results" / "CMU-1-Small-Region.svs" / "mask.ome.tif").exists()


def test_the_page_from_patches_to_a_bundle(folder: Path, repo_root: Path) -> None:
    assert run_page(repo_root / "docs" / "ml-engineer.md") == 5
    assert (folder / "bundle" / "manifest.json").exists()
    assert (folder / "results" / "summary.csv").exists()


def test_every_marked_page_is_run(repo_root: Path) -> None:
    marked = {path.name for path in (repo_root / "docs").glob("*.md") if MARK in path.read_text()}
    assert marked == {"lab.md", "integrator.md", "ml-engineer.md"}
