"""Reasons to look at a slide, from measures and in all its results."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sshr_deploy.bundle import Bundle
from sshr_deploy.errors import InputError
from sshr_deploy.runtime.pipeline.slide_checks import SlideChecks
from sshr_deploy.runtime.results.findings import SlideClass
from sshr_deploy.runtime.slides.fit import Fit
from sshr_deploy.runtime.slides.quality import Quality
from tests.runtime.pipeline.flow_parts import Session
from tests.runtime.running import Runner, read_summary
from tests.runtime.small_slides import small_picture, small_slide

GOOD = Quality(judged=16, blurred=3, green_od=0.6, border_um=99.0)
FAR = Fit(
    score=1.5, verdict="far", words="stained far lighter", darkness=0.4, haematoxylin=0.4,
    eosin=0.4, tint=0.0, detail=1.0,
)  # fmt: skip


def classes(*shares: float) -> tuple[SlideClass, ...]:
    return tuple(
        SlideClass(label=i, name=f"c{i}", pixels=1, share=share, area_mm2=1.0)
        for i, share in enumerate(shares)
    )


MIXED = classes(0.6, 0.4)


@pytest.mark.parametrize(
    ("checks", "found", "expected"),
    [
        (SlideChecks(None, None, GOOD), MIXED, []),
        (SlideChecks(None, None, GOOD), classes(1.0), []),
        (SlideChecks(None, None, GOOD), classes(0.0, 0.0), []),
        (SlideChecks(None, None, Quality(0, 0, None, 0.0)), MIXED, []),
        (SlideChecks("only greys", None, GOOD), MIXED, ["stain"]),
        (SlideChecks(None, None, replace(GOOD, green_od=0.2)), MIXED, ["stain"]),
        (SlideChecks(None, FAR, GOOD), MIXED, ["unlike"]),
        (SlideChecks(None, FAR.model_copy(update={"verdict": "differs"}), GOOD), MIXED, []),
        (SlideChecks(None, None, replace(GOOD, blurred=4)), MIXED, ["focus"]),
        (SlideChecks(None, None, replace(GOOD, judged=3, blurred=3)), MIXED, []),
        (SlideChecks(None, None, GOOD), classes(0.003, 0.997), ["one-class"]),
        (SlideChecks(None, None, replace(GOOD, border_um=2340.0)), MIXED, ["border"]),
        (
            SlideChecks("only greys", FAR, Quality(16, 16, 0.1, 500.0)),
            classes(1.0, 0.0),
            ["stain", "unlike", "focus", "one-class", "border"],
        ),
    ],
)
def test_each_measure_has_its_warning(
    checks: SlideChecks, found: tuple[SlideClass, ...], expected: list[str]
) -> None:
    assert [warning.code for warning in checks.warnings(found)] == expected


def test_the_texts_hold_the_figures() -> None:
    checks = SlideChecks(None, FAR, Quality(16, 6, 0.05 * math.log(10), 2340.0))
    texts = [warning.text for warning in checks.warnings(classes(0.003, 0.997))]
    pale = "0.05 in green, H&E has 0.2 and more"
    figures = (pale, FAR.words, "6 of 16", "c1 is 99.7%", "2.3 mm")
    for text, figure in zip(texts, figures, strict=True):
        assert figure in text


def cut_slide(path: Path) -> Path:
    """Tissue at the left edge of a slide that is glass else."""
    picture = np.full((800, 1400, 3), 243, np.uint8)
    picture[100:700, :500] = small_picture()[:, 100:600]
    picture[300:420, :40] = (176, 96, 160)
    return small_slide(path, picture)


def picture(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image)


def test_a_warning_is_in_summary_table_and_overlay(bundle: Bundle, tmp_path: Path) -> None:
    cut_slide(tmp_path / "a.tif")
    result = Runner(bundle, Session())(tmp_path / "a.tif", tmp_path / "out")
    warnings = read_summary(tmp_path / "out" / "a.tif")["warnings"]
    codes = [warning["code"] for warning in warnings]
    assert "border" in codes
    assert [warning.code for warning in result.results[0].warnings] == codes
    with (tmp_path / "out" / "summary.csv").open(encoding="utf-8") as file:
        assert [row["warnings"] for row in csv.DictReader(file)] == [" ".join(codes)]
    overlay = picture(tmp_path / "out" / "a.tif" / "overlay@2x.png")
    assert (overlay == (178, 92, 0)).all(-1).any()  # the mark beside a note


def test_the_pictures_are_of_the_tissue(bundle: Bundle, tmp_path: Path) -> None:
    cut_slide(tmp_path / "a.tif")
    Runner(bundle, Session())(tmp_path / "a.tif", tmp_path / "out")
    folder = tmp_path / "out" / "a.tif"
    overlay, thumbnail = picture(folder / "overlay@2x.png"), picture(folder / "thumbnail.jpg")
    assert overlay.shape[1] < 700 and max(thumbnail.shape) <= 320
    assert picture(folder / "overlay-small.jpg").shape == thumbnail.shape
    assert thumbnail[:, -3:].mean() > 235  # the margin
    assert (thumbnail.min(2) < 180).any()


def test_a_slide_that_is_gone_by_then_keeps_its_results(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: Any) -> None:
        raise InputError("the share is not there")

    cut_slide(tmp_path / "a.tif")
    monkeypatch.setattr("sshr_deploy.runtime.pipeline.slide.read_view", gone)
    result = Runner(bundle, Session())(tmp_path / "a.tif", tmp_path / "out")
    assert [r.status for r in result.results] == ["done"]
    overlay = picture(tmp_path / "out" / "a.tif" / "overlay@2x.png")
    assert overlay.shape[1] < 700  # from the thumbnail, with the strip's least width
