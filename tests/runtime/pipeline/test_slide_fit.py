from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sshr_deploy.bundle import Bundle, load_bundle
from sshr_deploy.runtime.slides import open_slide
from sshr_deploy.runtime.slides.plan import survey_slide
from tests.bundles import copy_that_knows
from tests.runtime.running import Runner, read_summary
from tests.runtime.small_slides import measure_slide, small_picture, small_slide

FIRST_LAYER = np.random.default_rng(0).normal(size=(2, 3, 3, 3)).astype(np.float32)


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    return small_slide(tmp_path / "a.tif")


@pytest.fixture
def knowing(small_bundle_dir: Path, tmp_path: Path) -> Callable[[float], Bundle]:
    """Bundles that know the tissue of `slide`, its pixels times a factor."""

    def bundle(brightness: float) -> Bundle:
        path = small_slide(tmp_path / "known.tif", (small_picture() * brightness).astype(np.uint8))
        with open_slide(path) as reader:
            look = measure_slide(reader, survey_slide(reader, 1.0), FIRST_LAYER)
        assert look is not None
        return load_bundle(copy_that_knows(small_bundle_dir, tmp_path / "knows", look, FIRST_LAYER))

    return bundle


def test_the_summary_and_the_table_say_how_a_slide_fits(
    infer: Runner, knowing: Callable[[float], Bundle], slide: Path, tmp_path: Path
) -> None:
    run = Runner(knowing(1.0), infer.session)
    result = run(slide, tmp_path / "out")
    fit = read_summary(tmp_path / "out" / slide.name)["fit"]
    assert (fit["score"], fit["verdict"]) == (0, "fits")
    assert result.results[0].fit is not None
    with (tmp_path / "out" / "summary.csv").open(encoding="utf-8") as file:
        assert [row["fit"] for row in csv.DictReader(file)] == ["fits"]


def test_a_slide_unlike_what_the_network_knows_is_far(
    infer: Runner, knowing: Callable[[float], Bundle], slide: Path, tmp_path: Path
) -> None:
    Runner(knowing(0.5), infer.session)(slide, tmp_path / "out")
    fit = read_summary(tmp_path / "out" / slide.name)["fit"]
    assert fit["verdict"] == "far"
    assert fit["darkness"] < 0.8


def test_it_is_null_where_the_bundle_does_not_say_what_it_knows(
    infer: Runner, slide: Path, tmp_path: Path
) -> None:
    infer(slide, tmp_path / "out")
    assert read_summary(tmp_path / "out" / slide.name)["fit"] is None


def test_it_changes_nothing_of_a_result_and_its_key(
    infer: Runner, knowing: Callable[[float], Bundle], slide: Path, tmp_path: Path
) -> None:
    Runner(knowing(1.0), infer.session)(slide, tmp_path / "knows-it")
    infer(slide, tmp_path / "plain")
    one, other = (read_summary(tmp_path / name / slide.name) for name in ("knows-it", "plain"))
    assert one["classes"] == other["classes"]
    assert one["key"].keys() == other["key"].keys()
