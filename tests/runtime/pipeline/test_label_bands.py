"""Labels by bands against the same made at once, of whole maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sshr_deploy.geometry import Geometry
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.contract import MaskBatch
from sshr_deploy.runtime.field_labels import (
    LevelScales,
    cell_scores,
    field_rule,
    labels_of,
    to_halves,
)
from sshr_deploy.runtime.pipeline.label_bands import FieldBands
from sshr_deploy.runtime.pipeline.unit_store import UnitStore
from sshr_deploy.runtime.pipeline.units import FieldUnits, TileUnits
from sshr_deploy.runtime.settings import TissueChoice
from sshr_deploy.runtime.slides.fields import Field
from sshr_deploy.runtime.slides.plan import SlideSurvey, plan_fields, plan_tiles, survey_slide
from sshr_deploy.runtime.writers.bands import Band
from tests.runtime.colour_images import ColourSession, colour_cams
from tests.runtime.slides.synthetic import ArrayReader
from tests.runtime.small_slides import small_picture

GEOMETRY = Geometry(224, 56, 14, 14)
LARGER = Geometry(448, 56, 28, 14)
SIZES = [(600, 700), (1030, 1290), (64, 40), (512, 1024)]


def survey_of(picture: NDArray[np.uint8], tissue: TissueChoice) -> tuple[ArrayReader, SlideSurvey]:
    reader = ArrayReader([picture], (1.0, 1.0))
    return reader, survey_slide(reader, 1.0, tissue=tissue)


def tissue_of(survey: SlideSurvey) -> NDArray[np.bool_]:
    """Of the whole slide at once."""
    grid = survey.grid
    x_scale, y_scale = grid.l0_px_per_px
    size = grid.width_px, grid.height_px
    return survey.tissue_map.window(0, 0, size[0] * x_scale, size[1] * y_scale, *size)


def at_once(
    picture: NDArray[np.uint8], survey: SlideSurvey, profile: Profile
) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """Labels, and probabilities by cell, of one giant field over the slide."""
    height, width = picture.shape[:2]
    padded = np.full((-(-height // 8) * 8, -(-width // 8) * 8, 3), 255, np.uint8)
    padded[:height, :width] = picture
    cam = colour_cams(padded[None])[0]
    cams, prob = to_halves(np.stack([cam, cam**2, cam**3])), to_halves(cam)
    tissue = tissue_of(survey)
    middles = np.zeros(cam.shape[1:], np.bool_)
    inside = survey.tissue_map.window(0, 0, *padded.shape[1::-1], *middles.shape[::-1])
    middles[:] = inside
    scales = LevelScales()
    scales.add(cams, middles)
    rule = field_rule(profile)
    scores = cell_scores(cams, prob, scales.scales(rule.percentile), rule)
    labels = labels_of(scores)[:height, :width]
    return np.where(tissue, labels, np.uint8(profile.num_classes)), prob.astype(np.float16)


def whole_prob(bands: list[Band], classes: int) -> NDArray[np.float16]:
    """[N, cell rows, cell columns] of a slide, 0 where a band says nothing."""
    parts = []
    for labels, prob in bands:
        rows, columns = (-(-side // 8) for side in labels.shape)
        parts.append(np.zeros((classes, rows, columns), np.float16) if prob is None else prob)
    return np.concatenate(parts, axis=1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("tissue", TissueChoice)
@pytest.mark.parametrize("geometry", [GEOMETRY, LARGER])
def test_fields_give_the_labels_of_one_giant_field(
    size: tuple[int, int],
    tissue: TissueChoice,
    geometry: Geometry,
    profile: Profile,
    tmp_path: Path,
) -> None:
    """Of one size, and of several."""
    picture = small_picture(*size)
    reader, survey = survey_of(picture, tissue)
    any_side = geometry is LARGER
    units = FieldUnits(plan_fields(survey, geometry, any_side=any_side), profile)
    session = ColourSession(geometry, any_side=any_side)
    with UnitStore(tmp_path, units.record_type, "") as store:
        for unit in reversed(units.places):
            store.put({unit: units.record(session.infer(units.read(reader, unit)[None]), 0)})
        bands = list(units.bands(store))
    assert all(band.labels.shape == (512, size[1]) for band in bands[:-1])
    expected, prob = at_once(picture, survey, profile)
    assert np.array_equal(np.concatenate([band.labels for band in bands]), expected)
    found = whole_prob(bands, profile.num_classes)
    seen = found.any(axis=0)
    assert np.array_equal(found[:, seen], prob[:, seen])
    inside = expected < profile.num_classes
    assert seen.repeat(8, 0).repeat(8, 1)[: size[0], : size[1]][inside].all()
    if any_side and size == (1030, 1290) and tissue is TissueChoice.AUTO:
        assert len({field[2:] for field in units.places}) > 2, "trimmed"
    if tissue is TissueChoice.AUTO and min(size) >= 512:
        assert len(np.unique(expected)) > 2, "background and classes"


@pytest.mark.parametrize("size", SIZES)
def test_tiles_land_in_their_places_and_the_rest_is_background(
    size: tuple[int, int], profile: Profile, tmp_path: Path
) -> None:
    reader, survey = survey_of(small_picture(*size), TissueChoice.AUTO)
    plan = plan_tiles(survey)
    units = TileUnits(plan, profile)
    rng = np.random.default_rng(0)
    expected = np.full(size, profile.num_classes, np.uint8)
    cells = profile.num_classes, *(-(-side // 8) for side in size)
    expected_prob = np.zeros(cells, np.float16)
    with UnitStore(tmp_path, units.record_type, "") as store:
        for tile in reversed(plan.tissue):
            labels = rng.integers(0, profile.num_classes, (1, 224, 224), np.uint8)
            y, x = tile.t_row * 224, tile.t_column * 224
            prob = rng.random((1, profile.num_classes), np.float32)
            output = MaskBatch(labels, prob)
            rows, columns = np.s_[y // 8 : y // 8 + 28], np.s_[x // 8 : x // 8 + 28]
            expected_prob[:, rows, columns] = prob[0, :, None, None]
            store.put({(tile.t_row, tile.t_column): units.record(output, 0)})
            part = expected[y : y + 224, x : x + 224]
            inside = plan.tissue[tile].mask()[: part.shape[0], : part.shape[1]]
            part[inside] = labels[0, : part.shape[0], : part.shape[1]][inside]
        bands = list(units.bands(store))
    assert np.array_equal(np.concatenate([band.labels for band in bands]), expected)
    assert np.array_equal(whole_prob(bands, profile.num_classes), expected_prob)
    reader.close()


def test_scales_count_each_cell_once_where_cores_overlap(profile: Profile, tmp_path: Path) -> None:
    picture = small_picture(600, 700)
    reader, survey = survey_of(picture, TissueChoice.AUTO)
    plan = plan_fields(survey, GEOMETRY)
    doubled = plan_fields(survey, GEOMETRY)
    doubled.fields[:] = [*plan.fields, *(f for f in _shifted(plan.fields) if f not in plan.fields)]
    found = []
    for each in (plan, doubled):
        units, session = FieldUnits(each, profile), ColourSession(GEOMETRY)
        with UnitStore(tmp_path, units.record_type, "") as store:
            for unit in units.places:
                store.put({unit: units.record(session.infer(units.read(reader, unit)[None]), 0)})
            found.append(FieldBands(each, store, profile.num_classes).scales(90.0))
    assert found[0] == found[1]


def _shifted(fields: list[Field]) -> list[Field]:
    return [field._replace(column=max(0, field.column - 1)) for field in fields[::2]]
