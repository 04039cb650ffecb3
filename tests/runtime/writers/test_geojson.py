"""Regions against shapely (validity, areas, pixels), OpenCV (their number) and GDAL (rings)."""

from __future__ import annotations

import json
import re
import tracemalloc
import uuid
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import rasterio.features
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from sshr_deploy.errors import InputError
from sshr_deploy.profiles import load_profile
from sshr_deploy.runtime.outputs import Outputs
from sshr_deploy.runtime.writers import geojson, tracing
from sshr_deploy.runtime.writers.geojson import MaskScale, RegionsSink, regions_sink

PROFILE = load_profile("luad")
BACKGROUND = PROFILE.num_classes
NAMES = [c.name for c in PROFILE.classes]
Labels = NDArray[np.uint8]


EXACT = Outputs(simplify_um=0)


def _sink(
    path: Path,
    size_px: tuple[int, int],
    outputs: Outputs = EXACT,
    l0_px_per_px: tuple[float, float] = (1.0, 1.0),
) -> AbstractContextManager[RegionsSink]:
    scale = MaskScale(size_px, 0.5, l0_px_per_px)
    return regions_sink(path, scale, profile=PROFILE, outputs=outputs)


def _write(
    path: Path,
    mask: Labels,
    scale: tuple[float, float] = (1.0, 1.0),
    band_px: int = 4,
    outputs: Outputs = EXACT,
) -> list[Any]:
    with _sink(path, (mask.shape[1], mask.shape[0]), outputs, scale) as sink:
        for y in range(0, mask.shape[0], band_px):
            sink.put(mask[y : y + band_px])
    collection = json.loads(path.read_text("utf-8"))
    assert collection["type"] == "FeatureCollection"
    assert len(collection["features"]) == sink.count
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


@settings(max_examples=150)
@given(
    mask=hnp.arrays(
        np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 4)
    ),
    band_px=st.integers(1, 12),
)
def test_random_masks_are_exact(
    tmp_path_factory: pytest.TempPathFactory, mask: Labels, band_px: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "random.geojson"
    assert_exact(_write(path, mask, band_px=band_px), mask)


def _gdal(mask: Labels) -> list[tuple[int, Any]]:
    """Label and rings of each region, as GDAL traces a whole mask."""
    shapes = rasterio.features.shapes(mask, connectivity=4)
    return [(int(label), shape["coordinates"]) for shape, label in shapes if label < BACKGROUND]


@pytest.mark.parametrize("tissue", [0.3, 0.6, 0.9])
def test_rings_and_their_first_corners_are_gdals(tmp_path: Path, tissue: float) -> None:
    rng = np.random.default_rng(7)
    for band_px in (1, 3, 50):
        mask = np.where(rng.random((50, 40)) < tissue, rng.integers(0, 2, (50, 40)), BACKGROUND)
        mask = mask.astype(np.uint8)
        features = _write(tmp_path / "r.geojson", mask, band_px=band_px)
        rings = [(_label(f), f["geometry"]["coordinates"]) for f in features]
        expected = [
            (label, [[list(corner) for corner in ring] for ring in polygon])
            for label, polygon in _gdal(mask)
        ]
        assert sorted(rings) == sorted(expected)
        order = [(max(y for _, y in polygon[0]), polygon[0][0][::-1]) for _, polygon in rings]
        assert order == sorted(order)


def test_a_region_of_many_bands_is_one_polygon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "_STRIP_PX", 1500)  # some strips a band
    mask = np.full((70, 90), BACKGROUND, np.uint8)
    for turn in range(0, 34, 4):  # a spiral whose two arms meet in the middle alone
        mask[turn : 70 - turn, turn : 90 - turn] = 1
        mask[turn + 2 : 68 - turn, turn + 2 : 88 - turn] = BACKGROUND
        mask[turn + 2 : turn + 4, turn + 10 : turn + 12] = 1
    mask[3, 40] = 2
    features = _write(tmp_path / "r.geojson", mask, band_px=32)
    assert_exact(features, mask)
    assert len(features) == 2


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
    ids = {uuid.UUID(f["id"]) for f in features}
    assert len(ids) == 4
    # docs/qupath.md's script tells regions from QuPath's own annotations, of version 4, by it.
    assert {region_id.version for region_id in ids} == {5}
    for feature in features:
        assert feature["type"] == "Feature" and feature["geometry"]["type"] == "Polygon"
        expected = {"name": NAMES[_label(feature)], "color": [*PROFILE.palette[_label(feature)]]}
        assert list(feature["properties"]) == [
            "objectType", "classification", "isLocked", "measurements"
        ]  # fmt: skip
        assert feature["properties"]["objectType"] == "annotation"
        assert feature["properties"]["classification"] == expected
        assert feature["properties"]["isLocked"] is True
    _write(tmp_path / "b.geojson", mask)
    assert (tmp_path / "a.geojson").read_bytes() == (tmp_path / "b.geojson").read_bytes()


def test_memory_map_and_strided_view(tmp_path: Path) -> None:
    mask = np.random.default_rng(3).integers(0, 5, (30, 20)).astype(np.uint8)
    np.save(tmp_path / "m.npy", mask)
    mapped = np.load(tmp_path / "m.npy", mmap_mode="r")
    assert_exact(_write(tmp_path / "r.geojson", mapped), mask)
    assert_exact(_write(tmp_path / "r.geojson", mapped[::2, ::-1]), mask[::2, ::-1])


def test_whole_masks_and_bands_give_one_file(tmp_path: Path) -> None:
    mask = np.kron(np.random.default_rng(5).integers(0, 5, (65, 4)), np.ones((8, 8))).astype(
        np.uint8
    )
    whole = tmp_path / "whole.geojson"
    features = _write(whole, mask, band_px=len(mask))
    assert features == _write(tmp_path / "bands.geojson", mask, band_px=33)
    assert whole.read_bytes() == (tmp_path / "bands.geojson").read_bytes()


def test_ids_are_those_of_the_coordinates_whatever_their_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = _nested()
    expected = _write(tmp_path / "a.geojson", mask)
    monkeypatch.setattr(geojson, "_CHUNK_POINTS", 3)
    assert _write(tmp_path / "b.geojson", mask) == expected
    for line in (tmp_path / "a.geojson").read_text("utf-8").splitlines()[1:-1]:
        feature = json.loads(line.rstrip(","))
        coordinates = json.dumps(feature["geometry"]["coordinates"], separators=(",", ":"))
        name = f"{PROFILE.name} {_label(feature)} {coordinates}"
        assert feature["id"] == str(uuid.uuid5(geojson._ID_NAMESPACE, name))


def test_leaving_early_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "r.geojson"
    rows = np.zeros((3, 5), np.uint8)
    with (
        pytest.raises(ValueError, match="4 rows of the mask did not come"),
        _sink(path, (5, 7)) as sink,
    ):
        sink.put(rows)
    assert list(tmp_path.iterdir()) == []


def test_a_mask_of_a_metre_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match="a mask of 9 x 1048576 px is too large for regions"),
        _sink(tmp_path / "r.geojson", (9, 1 << 20)),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_memory_does_not_grow_with_the_mask(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    spots = np.kron(rng.choice([0, 1, BACKGROUND], (8, 32)), np.ones((64, 64))).astype(np.uint8)
    peaks = []
    for bands in (3, 15):
        tracemalloc.start()
        try:
            with _sink(tmp_path / "r.geojson", (2048, 512 * bands)) as sink:
                for band in range(bands):
                    sink.put(spots if band % 2 else np.full_like(spots, BACKGROUND))
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
