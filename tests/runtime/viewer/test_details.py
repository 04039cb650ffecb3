"""What the page is told of an input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sshr_deploy.runtime.viewer import details
from sshr_deploy.runtime.viewer.catalogue import Catalogue, Entry
from sshr_deploy.runtime.viewer.opened import OpenInput
from sshr_deploy.runtime.viewer.outlines import Box
from tests.runtime.viewer.results import add_image, add_slide, labels


def only_entry(out: Path) -> Entry:
    (entry,) = Catalogue(out).entries()
    return entry


def test_list_and_panel_count_the_same_warnings(tmp_path: Path) -> None:
    path = add_image(tmp_path, tmp_path / "a.png", labels(60, 70)) / "summary.json"
    summary = json.loads(path.read_text("utf-8")) | {"stain_concern": "hardly stained"}
    path.write_text(json.dumps(summary), "utf-8")
    with OpenInput(only_entry(tmp_path)) as opened:
        said = details.detail(opened)
    assert said["warnings_text"] == ["hardly stained"]
    assert said["warnings"] == 1


def test_a_stain_is_told_beside_other_warnings(tmp_path: Path) -> None:
    focus = {"code": "focus", "text": "out of focus"}
    source = tmp_path / "a.svs"
    changes: dict[str, Any] = {"stain_concern": "hardly stained", "warnings": [focus]}
    add_slide(tmp_path / "out", source, labels(60, 70), (70, 60), **changes)
    with OpenInput(only_entry(tmp_path / "out")) as opened:
        said = details.detail(opened)
    assert said["warnings_text"] == ["hardly stained", "out of focus"]
    assert said["warnings"] == 2


def test_an_agreement_that_is_not_whole_is_not_shown_as_whole(tmp_path: Path) -> None:
    path = add_slide(tmp_path, tmp_path / "a.svs", labels(60, 70), (70, 60)) / "summary.json"
    summary = json.loads(path.read_text("utf-8"))
    summary["engine"]["mask_agreement"] = 0.999998
    path.write_text(json.dumps(summary), "utf-8")
    with OpenInput(only_entry(tmp_path)) as opened:
        facts = dict(details.detail(opened)["facts"])
    assert facts["Agreement"] == "99.999 % of pixels"
    assert facts["Pixel size"] == "1 µm"
    assert facts["Finished"] == "2026-11-28 10:00 UTC"


def test_corners_are_sent_with_one_digit(tmp_path: Path) -> None:
    mask = labels(60, 70, cell=7)
    add_slide(tmp_path, tmp_path / "a.svs", mask, (70, 60), mask_mpp_um=1.23)
    with OpenInput(only_entry(tmp_path)) as opened:
        found = details.lines(opened, Box(0, 0, 200, 200))
    assert found["complete"] and not found["left_out"]
    corners = [number for line in found["lines"] for number in line["corners"]]
    assert any(number % 1 for number in corners)
    assert all(len(str(number)) <= 4 for number in corners)


def test_a_slide_that_may_not_be_looked_for(tmp_path: Path) -> None:
    source = tmp_path / ("long" * 100)  # longer than a name may be
    folder = add_slide(tmp_path / "out", tmp_path / "a.svs", labels(60, 70), (70, 60))
    path = folder / "summary.json"
    summary = json.loads(path.read_text("utf-8"))
    summary["input"]["path"] = str(source)
    path.write_text(json.dumps(summary), "utf-8")
    with OpenInput(only_entry(tmp_path / "out")) as opened:
        said = details.detail(opened)
    assert "cannot be read: File name too long" in said["picture"]["lack"]
    assert said["mask"]["lack"] == ""
