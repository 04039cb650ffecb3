"""Inputs by numbers, while others write to the folder."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from sshr_deploy.runtime.viewer import catalogue as module
from sshr_deploy.runtime.viewer.catalogue import Catalogue
from tests.runtime.viewer.results import add_failure, add_slide, labels


@pytest.fixture(autouse=True)
def _always_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FRESH_S", 0.0)


def names(catalogue: Catalogue) -> dict[str, int]:
    return {entry.source.name: entry.id for entry in catalogue.entries()}


def add(out: Path, name: str) -> Path:
    return add_slide(out, Path("/slides") / name, labels(60, 70), (70, 60))


def test_numbers_stay(tmp_path: Path) -> None:
    add(tmp_path, "b.svs")
    catalogue = Catalogue(tmp_path)
    before = names(catalogue)
    add(tmp_path, "a.svs")
    catalogue.refresh()
    assert list(names(catalogue)) == ["a.svs", "b.svs"]
    assert names(catalogue)["b.svs"] == before["b.svs"]
    shutil.rmtree(tmp_path / "b.svs")
    catalogue.refresh()
    assert list(names(catalogue)) == ["a.svs"]
    with pytest.raises(LookupError):
        catalogue.entry(before["b.svs"])


def test_keys_are_the_same_in_every_run_and_tell_no_name(tmp_path: Path) -> None:
    add(tmp_path, "patient.svs")
    (one,), (other,) = (Catalogue(tmp_path).entries() for _ in range(2))
    assert one.key == other.key
    assert "patient" not in one.key


def test_a_result_that_is_computed_again_has_another_version(tmp_path: Path) -> None:
    folder = add(tmp_path, "a.svs")
    catalogue = Catalogue(tmp_path)
    (before,) = catalogue.entries()
    os.utime(folder / "summary.json", ns=(1, 1))
    catalogue.refresh()
    (after,) = catalogue.entries()
    assert after.id == before.id
    assert after.version != before.version


def test_summaries_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(tmp_path, "a.svs")
    catalogue = Catalogue(tmp_path)
    monkeypatch.setattr(module, "read_summary", None)  # fails when it is called
    catalogue.refresh()
    assert list(names(catalogue)) == ["a.svs"]


def test_failures_that_still_stand(tmp_path: Path) -> None:
    add_failure(tmp_path, Path("/slides/a.svs"), "no pixel size")
    catalogue = Catalogue(tmp_path)
    assert [item.reason for item in catalogue.not_shown()] == ["no pixel size"]
    add(tmp_path, "a.svs")
    catalogue.refresh()
    assert not catalogue.not_shown()


def test_results_of_another_release(tmp_path: Path) -> None:
    path = add(tmp_path, "a.svs") / "summary.json"
    summary = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(summary | {"schema_version": 2}), "utf-8")
    catalogue = Catalogue(tmp_path)
    assert not catalogue.entries()
    assert "another release" in catalogue.not_shown()[0].reason


@pytest.mark.parametrize("um", [0, -1])
def test_one_that_is_wrong_does_not_hide_the_others(tmp_path: Path, um: float) -> None:
    add(tmp_path, "a.svs")
    path = add(tmp_path, "b.svs") / "summary.json"
    summary = json.loads(path.read_text("utf-8"))
    summary["mpp"]["x_um"] = um
    path.write_text(json.dumps(summary), "utf-8")
    catalogue = Catalogue(tmp_path)
    assert list(names(catalogue)) == ["a.svs"]
    assert "states no pixel size" in catalogue.not_shown()[0].reason


def test_damaged_files_are_passed_over(tmp_path: Path) -> None:
    (add(tmp_path, "a.svs") / "summary.json").write_text("{", "utf-8")
    (tmp_path / "run.json").write_text("[1", "utf-8")
    catalogue = Catalogue(tmp_path)
    assert not catalogue.entries()
    assert not catalogue.not_shown()
