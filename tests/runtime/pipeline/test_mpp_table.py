"""Runs whose pixel sizes stand in a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest

from sshr_deploy.errors import SourceError
from sshr_deploy.runtime.pixel_sizes import MppRow, MppTable
from tests.runtime.running import Runner, patch_folder, read_summary
from tests.runtime.slides.synthetic import write_svs


def table(**sizes: float) -> MppTable:
    return MppTable("t.csv", tuple(MppRow(name, um) for name, um in sizes.items()))


def names_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_each_image_has_its_size(infer: Runner, demo_slide: Path, tmp_path: Path) -> None:
    images = patch_folder(tmp_path / "in", demo_slide, count=4)
    names = names_of(images)
    sizes = {names[0]: 0.8, names[1]: 0.8, names[2]: 1.25}
    result = infer(images, tmp_path / "out", mpp_table=table(**sizes), mpp_um=1.0)
    assert [r.status for r in result.results] == ["done"] * 4
    sources = [read_summary(tmp_path / "out" / name)["mpp"] for name in names]
    assert [(mpp["x_um"], mpp["source"]) for mpp in sources] == [
        (0.8, "--mpp-table (images state none)"),
        (0.8, "--mpp-table (images state none)"),
        (1.25, "--mpp-table (images state none)"),
        (1.0, "--mpp (images state none)"),
    ]
    for name, mpp_um in [*sizes.items(), (names[3], 1.0)]:
        infer(images / name, tmp_path / "alone", mpp_um=mpp_um)
        for file in ("mask.png", "overlay.png"):
            one, other = (tmp_path / out / name / file for out in ("out", "alone"))
            assert one.read_bytes() == other.read_bytes(), name


def test_a_slide_and_what_counts_as_done(infer: Runner, demo_slide: Path, tmp_path: Path) -> None:
    out, slide = tmp_path / "out", tmp_path / "a.svs"
    with openslide.OpenSlide(demo_slide) as whole:
        piece = np.asarray(whole.read_region((600, 300), 0, (600, 600)).convert("RGB"))
    write_svs(slide, [piece], mpp_um=0.5)

    def status(**settings: Any) -> str:
        return infer(slide, out, **settings).results[0].status

    sized = table(**{"a.svs": 0.6})
    assert status(mpp_table=sized) == "done"
    assert read_summary(out / "a.svs")["mpp"]["source"] == "file"
    assert status(mpp_um=0.5) == "skipped", "no size was used"
    assert status(mpp_table=sized, force_mpp=True) == "done"
    assert read_summary(out / "a.svs")["mpp"]["source"] == "--mpp-table (forced)"
    assert status(mpp_um=0.6, force_mpp=True) == "skipped", "the same size by another option"
    assert status(mpp_table=table(**{"a.svs": 0.7}), force_mpp=True) == "done"
    assert status(mpp_table=table(**{"b.svs": 0.7}), force_mpp=True) == "done", "by its file again"
    assert read_summary(out / "a.svs")["mpp"]["source"] == "file"


def test_a_contradiction_is_told_before_the_first_input(
    infer: Runner, demo_slide: Path, tmp_path: Path
) -> None:
    images = patch_folder(tmp_path / "in", demo_slide, count=2)
    both = MppTable("t.csv", (MppRow("[[]0*", 0.5, True), MppRow("*.png", 0.6, True)))
    with pytest.raises(SourceError, match=r"\[0\] patch\.png has several pixel sizes"):
        infer(images, tmp_path / "out", mpp_table=both)
    assert not (tmp_path / "out").exists()
