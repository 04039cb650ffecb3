"""Seamless mode with a real engine, and which mode a run has."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from sshr_deploy.api import Model
from sshr_deploy.bundle import Bundle
from sshr_deploy.errors import BundleError
from sshr_deploy.geometry import BLOCK_CELLS, PATCH
from sshr_deploy.runtime.engines.choosing import open_session
from sshr_deploy.runtime.field_labels import (
    LevelScales,
    cell_scores,
    field_rule,
    labels_of,
    stacked_cams,
    to_halves,
)
from sshr_deploy.runtime.pipeline.sessions import NO_FIELDS, choose_mode
from sshr_deploy.runtime.pipeline.spec import RunSpec
from sshr_deploy.runtime.progress import tell_nobody
from sshr_deploy.runtime.settings import InferSettings, Mode, OpenOptions
from sshr_deploy.runtime.slides import open_slide
from sshr_deploy.runtime.slides.plan import plan_fields, read_field, survey_slide
from tests.runtime.running import Runner, read_summary
from tests.runtime.small_slides import small_picture, small_slide


def without_fields(bundle: Bundle) -> Bundle:
    return Bundle(
        bundle.path, bundle.manifest.model_copy(update={"fields": None}), bundle.manifest_sha256
    )


def opened(bundle: Bundle, mode: Mode | None = None, *, for_slides: bool = False) -> Model:
    spec = RunSpec(bundle.path, InferSettings(mode), "onnx-cpu", OpenOptions())
    return Model(spec, bundle, tell_nobody, for_slides=for_slides)


def test_a_mask_is_that_of_its_fields_put_together(bundle: Bundle, tmp_path: Path) -> None:
    path = small_slide(tmp_path / "a.tif", small_picture(1000, 1100))
    rule, classes = field_rule(bundle.manifest.profile), bundle.manifest.profile.num_classes
    with open_session(bundle.on_fields(), "onnx-cpu") as session:
        assert Runner(bundle, session)(path, tmp_path / "out", batch=4).exit_code == 0
        with open_slide(path) as reader:
            survey = survey_slide(reader, 1.0)
            plan = plan_fields(survey, session.geometry, any_side=session.any_side)
            maps = np.zeros((4, classes, 140, 150), np.float16)
            for field in plan.fields:
                answer = session.infer(read_field(reader, plan, field)[None])
                prob = to_halves(answer.prob[0])[None]
                place = tuple(
                    slice(BLOCK_CELLS * axis.start, BLOCK_CELLS * axis.stop) for axis in field.core
                )
                maps[:, :, *place] = np.concatenate([stacked_cams(answer, 0), prob])
    inside, scales = np.zeros((140, 150), np.bool_), LevelScales()
    inside[:125, :138] = survey.tissue_map.window(0, 0, 1104, 1000, 138, 125)
    scales.add(maps[:3], inside)
    scores = cell_scores(maps[:3], maps[3], scales.scales(rule.percentile), rule)
    scores[:, ~(maps[3] > 0).any(0)] = 0
    tissue = survey.tissue_map.window(0, 0, 1100, 1000, 1100, 1000)
    expected = np.where(tissue, labels_of(scores)[:1000, :1100], classes)
    assert np.array_equal(tifffile.imread(tmp_path / "out" / "a.tif" / "mask.ome.tif"), expected)
    tiles = read_summary(tmp_path / "out" / "a.tif")["tiles"]
    assert tiles["computed"] == len(plan.fields) <= tiles["total"]


def test_seamless_is_the_mode_where_a_bundle_has_fields(bundle: Bundle) -> None:
    old = without_fields(bundle)
    assert choose_mode(None, bundle) is Mode.SEAMLESS
    assert choose_mode(None, old) is Mode.REFERENCE
    for mode in Mode:
        assert choose_mode(mode, bundle) is mode
    assert choose_mode(Mode.REFERENCE, old) is Mode.REFERENCE
    with pytest.raises(BundleError, match="export it again"):
        choose_mode(Mode.SEAMLESS, old)


def test_a_bundle_without_fields_says_how_it_runs(bundle: Bundle, tmp_path: Path) -> None:
    path = small_slide(tmp_path / "a.tif")
    with opened(without_fields(bundle), for_slides=True) as model:
        result = model.slide(path, tmp_path / "out")
        with pytest.raises(BundleError, match="`mode` reference"):
            model.slide(path, tmp_path / "out", mode="seamless")
    document = json.loads((tmp_path / "out" / "run.json").read_text())
    assert document["settings"]["mode"] == "reference"
    assert NO_FIELDS in document["engine"]["notes"]
    assert read_summary(result.folder)["key"]["mode"] == "reference"
    with pytest.raises(BundleError, match="export it again"):
        opened(without_fields(bundle), Mode.SEAMLESS)


def test_engines_are_opened_as_they_are_needed(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides: list[int] = []

    def noted(bundle: Bundle, *args: object, **options: object) -> object:
        sides.append(bundle.geometry.side_px)
        return open_session(bundle, "onnx-cpu")

    monkeypatch.setattr("sshr_deploy.api.open_session", noted)
    field_px = bundle.on_fields().geometry.side_px
    rgb = small_picture(500, 500)
    (tmp_path / "in").mkdir()
    Image.fromarray(rgb[:224, :224]).save(tmp_path / "in" / "a.png")
    Image.fromarray(rgb).save(tmp_path / "in" / "b.png")
    with opened(bundle, for_slides=True) as model:
        assert sides == [field_px]
        slide = model.slide(small_slide(tmp_path / "a.tif"), tmp_path / "slide")
        assert sides == [field_px], "no patches were met"
        images = {r.path.name: r for r in model.run(tmp_path / "in", tmp_path / "images")}
        assert sides == [field_px, PATCH.side_px]
        assert read_summary(slide.folder)["key"]["mode"] == "seamless"
        assert images["b.png"].summary.tiles is not None
        whole = model(rgb, large="whole").mask
        seamless, reference = model(rgb).mask, model(rgb, mode="reference").mask
        assert np.array_equal(images["b.png"].mask, seamless)
        assert not np.array_equal(seamless, reference)
        assert not np.array_equal(seamless, whole)
    sides.clear()
    with opened(bundle) as model:
        small = model(rgb[:224, :224])
        assert sides == [PATCH.side_px]
        assert np.array_equal(small.mask, images["a.png"].mask)


def test_modes_are_results_of_their_own(bundle: Bundle, tmp_path: Path) -> None:
    path = small_slide(tmp_path / "a.tif")
    with opened(bundle) as model:
        masks = {}
        for mode in ("seamless", "reference"):
            result = model.slide(path, tmp_path / "out", mode=mode)
            assert result.status == "done"
            masks[mode] = result.mask
            assert model.slide(path, tmp_path / "out", mode=mode).status == "skipped"
    assert not np.array_equal(masks["seamless"], masks["reference"])
    background = bundle.manifest.profile.num_classes
    assert np.array_equal(masks["seamless"] == background, masks["reference"] == background)
