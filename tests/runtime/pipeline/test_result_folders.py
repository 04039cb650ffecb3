"""Folders of results: where they are searched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sshr_deploy.runtime.pipeline.result_folders import result_folders_below


def test_chunks_of_masks_are_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.svs", "b/c.svs", "b/x.zarr/d.svs", ".hidden/e.svs", "a.svs/mask.ome.zarr/0"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "summary.json").touch()
    listed: list[str] = []
    scandir = os.scandir

    def noted(path: str) -> object:
        listed.append(Path(path).name)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", noted)
    found = {path.relative_to(tmp_path).as_posix() for path, _ in result_folders_below(tmp_path)}
    assert found == {"a.svs", "b/c.svs", "b/x.zarr/d.svs"}
    assert not {"mask.ome.zarr", "0", ".hidden", "e.svs"} & set(listed)


def test_a_folder_that_cannot_be_listed_is_told(tmp_path: Path) -> None:
    errors: list[OSError] = []
    assert not list(result_folders_below(tmp_path / "gone", errors.append))
    assert [type(error) for error in errors] == [FileNotFoundError]
