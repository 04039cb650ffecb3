"""Regions against shapely (validity, areas, pixels) and OpenCV (their number)."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from sshr_deploy.profiles import load_profile
from sshr_deploy.runtime.writers import geojson
from sshr_deploy.runtime.writers.geojson import write_geojson

PROFILE = load_profile("luad")
BACKGROUND = PROFILE.num_classes
NAMES = [c.name for c in PROFILE.classes]
Labels = NDArray[np.uint8]


def _write(path: Path, mask: Labels, scale: tuple[float, float] = (1.0, 1.0)) -> list[Any]:
    count = write_geojson(path, mask, profile=PROFILE, l0_px_per_mask_px=scale)
    collection = json.loads(path.read_text("utf-8"))
    assert collection["type"] == "FeatureCollection"
    assert len(collection["features"]) == count
    features: list[Any] = collection["features"]
    return features


def _label(feature: Any) -> int:
    return NAMES.index(feature["properties"]["classification"]["name"])


def _region_count(mask: Labels) -> int:
    """4-connected regions of all classes, counted by OpenCV."""
    return sum(
        cv2.connectedComponents((mask == label).astype(np.uint8), connectivity=4)[0] - 1
        for label in range(BACKGROUND)
    )


def assert_exact(features: list[Any], mask: Labels) -> None:
    """Valid polygons that hold each pixel's middle once, in the class of that pixel."""
    assert len(features) == _region_count(mask)
    middles_y, middles_x = np.mgrid[: mask.shape[0], : mask.shape[1]] + 0.5
    painted = np.full(mask.shape, BACKGROUND, np.uint8)
    areas = [0.0] * BACKGROUND
    for feature in features:
        polygon = shapely.geometry.shape(feature["geometry"])
        assert polygon.is_valid, shapely.is_valid_reason(polygon)
        inside = shapely.contains_xy(polygon, middles_x, middles_y)
        assert (painted[inside] == BACKGROUND).all()
        painted[inside] = _label(feature)
        areas[_label(feature)] += polygon.area
    np.testing.assert_array_equal(painted, mask)
    assert areas == [np.count_nonzero(mask == label) for label in range(BACKGROUND)]


def _nested() -> Labels:
    mask = np.full((21, 17), BACKGROUND, np.uint8)
    for ring in range(9):
        mask[ring : 21 - ring, ring : 17 - ring] = (0, BACKGROUND, 1)[ring % 3]
    return mask


MASKS: dict[str, Labels] = {
    "checkerboard": (np.indices((9, 12)).sum(0) % 2).astype(np.uint8),
    "checkerboard on background": (np.indices((8, 8)).sum(0) % 2 * BACKGROUND).astype(np.uint8),
    "one pixel": np.array([[2]], np.uint8),
    "lone pixels": np.where(np.indices((9, 9)).prod(0) % 4 == 1, 3, BACKGROUND).astype(np.uint8),
    "full": np.zeros((5, 7), np.uint8),
    "nested holes": _nested(),
    "ring that touches itself": np.array([[1, 1, 1], [1, 4, 1], [1, 1, 4]], np.uint8),
    "holes that touch": np.pad(np.where(np.eye(6, dtype=bool), 0, 1).astype(np.uint8), 2),
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
def test_shapes_with_traps(tmp_path: Path, mask: Labels) -> None:
    assert_exact(_write(tmp_path / "r.geojson", mask), mask)


@settings(deadline=None, max_examples=150)
@given(
    mask=hnp.arrays(
        np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 4)
    )
)
def test_random_masks_are_exact(tmp_path_factory: pytest.TempPathFactory, mask: Labels) -> None:
    assert_exact(_write(tmp_path_factory.getbasetemp() / "random.geojson", mask), mask)


def test_noise_is_exact(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).choice([0, 4], p=[0.6, 0.4], size=(120, 90)).astype(np.uint8)
    assert_exact(_write(tmp_path / "r.geojson", mask), mask)


def test_background_only_gives_an_empty_collection(tmp_path: Path) -> None:
    assert _write(tmp_path / "r.geojson", np.full((6, 4), BACKGROUND, np.uint8)) == []


@pytest.mark.parametrize(("scale", "decimals"), [((2.0009, 3.37), 2), ((0.25, 0.25), 2)])
def test_level_0_coordinates(tmp_path: Path, scale: tuple[float, float], decimals: int) -> None:
    mask = np.random.default_rng(1).integers(0, 5, (40, 60)).astype(np.uint8)
    path = tmp_path / "r.geojson"
    features = _write(path, mask, scale)
    polygons = shapely.from_geojson([json.dumps(f["geometry"]) for f in features])
    assert shapely.is_valid(polygons).all()
    expected = np.count_nonzero(mask < BACKGROUND) * scale[0] * scale[1]
    assert shapely.area(polygons).sum() == pytest.approx(expected, rel=1e-2)
    corner = (0, 0, 60 * scale[0], 40 * scale[1])
    assert tuple(shapely.total_bounds(polygons)) == pytest.approx(corner, abs=0.0051)
    longest = max(len(d) for d in re.findall(r"\.(\d+)[,\]]", path.read_text("utf-8")))
    assert longest == decimals


def test_tiny_steps_keep_polygons_valid(tmp_path: Path) -> None:
    mask = np.random.default_rng(2).integers(0, 5, (15, 15)).astype(np.uint8)
    features = _write(tmp_path / "r.geojson", mask, (0.003, 0.004))
    polygons = shapely.from_geojson([json.dumps(f["geometry"]) for f in features])
    assert shapely.is_valid(polygons).all()
    assert (shapely.area(polygons) > 0).all()


def test_members_that_qupath_reads(tmp_path: Path) -> None:
    # QuPath's GeoJSON reader: UUID.fromString(id), properties.objectType, and a classification that
    # needs both a name and a colour of three numbers.
    mask = np.array([[0, 0, 4], [2, 3, 0]], np.uint8)
    features = _write(tmp_path / "a.geojson", mask)
    assert len({uuid.UUID(f["id"]) for f in features}) == 4
    for feature in features:
        assert feature["type"] == "Feature" and feature["geometry"]["type"] == "Polygon"
        expected = {"name": NAMES[_label(feature)], "color": [*PROFILE.palette[_label(feature)]]}
        assert feature["properties"] == {"objectType": "annotation", "classification": expected}
    _write(tmp_path / "b.geojson", mask)
    assert (tmp_path / "a.geojson").read_bytes() == (tmp_path / "b.geojson").read_bytes()


def test_memory_map_and_strided_view(tmp_path: Path) -> None:
    mask = np.random.default_rng(3).integers(0, 5, (30, 20)).astype(np.uint8)
    np.save(tmp_path / "m.npy", mask)
    mapped = np.load(tmp_path / "m.npy", mmap_mode="r")
    assert_exact(_write(tmp_path / "r.geojson", mapped), mask)
    assert_exact(_write(tmp_path / "r.geojson", mapped[::2, ::-1]), mask[::2, ::-1])


def test_blocks_cut_regions_and_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(5)
    mask = np.kron(rng.choice([0, 1, BACKGROUND], (7, 9)), np.ones((6, 5))).astype(
        np.uint8
    )  # 42 x 45
    monkeypatch.setattr(geojson, "_BLOCK_PX", 16)
    features = _write(tmp_path / "r.geojson", mask)
    for label in range(2):
        union = shapely.unary_union(
            [shapely.geometry.shape(f["geometry"]) for f in features if _label(f) == label]
        )
        pixels = [shapely.box(x, y, x + 1, y + 1) for y, x in np.argwhere(mask == label)]
        assert union.symmetric_difference(shapely.unary_union(pixels)).area == 0
        total = sum(
            shapely.geometry.shape(f["geometry"]).area for f in features if _label(f) == label
        )
        assert total == (mask == label).sum(), "blocks must not overlap"
    for feature in features:
        west, north, east, south = shapely.geometry.shape(feature["geometry"]).bounds
        assert west // 16 == (east - 1) // 16
        assert north // 16 == (south - 1) // 16
