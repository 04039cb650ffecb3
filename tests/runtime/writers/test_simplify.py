"""Simplified regions against shapely: valid, the same areas, close to the pixels, no gaps."""

from __future__ import annotations

import json
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
from sshr_deploy.runtime.outputs import Outputs
from sshr_deploy.runtime.writers import chains
from sshr_deploy.runtime.writers.geojson import MaskScale, regions_sink
from sshr_deploy.runtime.writers.sleeves import MAX_SHIFT_PX

PROFILE = load_profile("luad")
BACKGROUND = PROFILE.num_classes
EXACT = Outputs(simplify_um=0)
Labels = NDArray[np.uint8]
Prob = NDArray[np.float16]


def _features(
    path: Path,
    mask: Labels,
    outputs: Outputs | None = None,
    *,
    mpp_um: float = 1.0,
    l0_px_per_px: tuple[float, float] = (1.0, 1.0),
    band_px: int = 64,
    prob: Prob | None = None,
) -> list[Any]:
    scale = MaskScale((mask.shape[1], mask.shape[0]), mpp_um, l0_px_per_px)
    with regions_sink(path, scale, profile=PROFILE, outputs=outputs or Outputs()) as sink:
        for y in range(0, len(mask), band_px):
            cells = None if prob is None else prob[:, y // 8 : (y + band_px) // 8]
            sink.put(mask[y : y + band_px], cells)
    features: list[Any] = json.loads(path.read_text("utf-8"))["features"]
    return features


def _polygons(features: list[Any]) -> Any:
    return shapely.from_geojson([json.dumps(f["geometry"]) for f in features])


def _measured(features: list[Any], name: str) -> NDArray[np.float64]:
    return np.array([f["properties"]["measurements"][name] for f in features])


def _blobs(shape: tuple[int, int], size_px: float, seed: int = 0) -> Labels:
    """Smooth regions of all classes and background, side by side."""
    rng = np.random.default_rng(seed)
    fields = [cv2.GaussianBlur(rng.random(shape), (0, 0), size_px) for _ in range(BACKGROUND + 1)]
    labels: Labels = np.argmax(fields, 0).astype(np.uint8)
    return labels


def assert_good(simple: Any, exact: Any, pixel: float = 1.0) -> None:
    """Valid, close to the exact polygons, with their areas, and neighbours without overlaps."""
    assert shapely.is_valid(simple).all()
    area = shapely.area(exact)
    change = np.abs(shapely.area(simple) - area)
    np.testing.assert_array_less(change, 0.0101 * area + 0.01 * pixel)
    assert (change < 0.01 * area)[area >= 10 * pixel].all()
    # Rounding moves the vertices of one edge, not that of a neighbour's straight side beside it.
    union = shapely.area(shapely.union_all(simple))
    assert shapely.area(simple).sum() == pytest.approx(union, rel=1e-6)
    for lines, others in ((simple, exact), (exact, simple)):
        points, index = shapely.get_coordinates(shapely.boundary(lines), return_index=True)
        away = shapely.distance(shapely.points(points), shapely.boundary(others)[index])
        assert away.max() < (MAX_SHIFT_PX + 0.01) * pixel**0.5


@settings(max_examples=30)
@given(
    mask=hnp.arrays(
        np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 4)
    ),
    larger=st.integers(1, 3),
)
def test_random_masks(tmp_path_factory: pytest.TempPathFactory, mask: Labels, larger: int) -> None:
    path = tmp_path_factory.getbasetemp() / "random.geojson"
    smooth = cv2.medianBlur(np.kron(mask, np.ones((larger, larger), np.uint8)), 3)
    mask = smooth.astype(np.uint8)
    exact = _features(path, mask, EXACT)
    if exact:
        assert_good(_polygons(_features(path, mask)), _polygons(exact))


@pytest.mark.parametrize("size_px", [1.5, 6.0])
def test_smooth_masks(tmp_path: Path, size_px: float) -> None:
    mask = _blobs((100, 120), size_px)
    scale = (2.0009, 2.0009)
    exact = _features(tmp_path / "a.geojson", mask, EXACT, l0_px_per_px=scale)
    simple = _features(tmp_path / "b.geojson", mask, l0_px_per_px=scale)
    polygons, truth = _polygons(simple), _polygons(exact)
    assert_good(polygons, truth, scale[0] ** 2)
    assert shapely.area(polygons).sum() == pytest.approx(shapely.area(truth).sum(), rel=1e-3)
    large = shapely.area(truth) >= 100 * scale[0] ** 2
    np.testing.assert_allclose(shapely.area(polygons)[large], shapely.area(truth)[large], rtol=0.01)


@pytest.mark.parametrize("step_px", [1, 2, 3, 5, 8, 10, 20])
def test_staircases_become_straight(tmp_path: Path, step_px: int) -> None:
    y, x = np.mgrid[:250, :300]
    mask = np.where(y + x // step_px < 220, 0, BACKGROUND).astype(np.uint8)
    (exact,) = _polygons(_features(tmp_path / "r.geojson", mask, EXACT))
    (polygon,) = _polygons(_features(tmp_path / "r.geojson", mask))
    assert polygon.area == pytest.approx(exact.area, rel=1e-4)
    points = shapely.get_coordinates(polygon)
    assert len(points) <= 3 + 0.05 * len(exact.exterior.coords) + 8
    way = np.diff(points, axis=0)
    border = np.hypot(*way.T) > 10
    border &= (np.abs(way) > 0.5).all(axis=1)  # not the sides of the mask
    slopes = -way[border, 1] / way[border, 0]
    np.testing.assert_allclose(np.arctan(slopes), np.arctan(1 / step_px), atol=np.radians(5))
    assert np.hypot(*way[border].T).sum() > 0.8 * min(300, 220 * step_px)


def test_slanting_and_round_outlines(tmp_path: Path) -> None:
    y, x = np.mgrid[:300, :300]
    mask = np.where(0.37 * x + 0.93 * y < 200, 0, BACKGROUND).astype(np.uint8)
    mask[:40] = mask[:, :40] = BACKGROUND
    (polygon,) = _polygons(_features(tmp_path / "r.geojson", mask))
    assert polygon.area == pytest.approx(np.count_nonzero(mask == 0), rel=1e-3)
    (exact,) = _polygons(_features(tmp_path / "r.geojson", mask, EXACT))
    assert len(polygon.exterior.coords) < 0.5 * len(exact.exterior.coords)
    assert polygon.length == pytest.approx(polygon.convex_hull.length, rel=0.02)
    disc = np.where(np.hypot(x - 150, y - 150) < 100, 0, BACKGROUND).astype(np.uint8)
    (polygon,) = _polygons(_features(tmp_path / "r.geojson", disc))
    assert polygon.area == pytest.approx(np.count_nonzero(disc == 0), rel=1e-3)
    assert polygon.length == pytest.approx(200 * np.pi, rel=0.03)  # its pixels' edges: 27 % more


def test_a_region_across_many_bands_and_cuts_is_one_polygon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chains, "_CHAIN_EDGES", 50)
    monkeypatch.setattr(chains, "_BLOCK_POINTS", 300)
    y, x = np.mgrid[:250, :200]
    mask = np.where(np.sin(np.hypot(x - 100, y - 125) / 9 + np.arctan2(y - 125, x - 100)) > 0, 1, 2)
    mask = mask.astype(np.uint8)
    exact = _polygons(_features(tmp_path / "r.geojson", mask, EXACT))
    simple = _polygons(_features(tmp_path / "r.geojson", mask))
    assert_good(simple, exact)
    assert shapely.get_num_coordinates(simple).sum() < shapely.get_num_coordinates(exact).sum() / 2


def test_bands_do_not_matter_and_runs_are_alike(tmp_path: Path) -> None:
    mask = _blobs((200, 150), 3)
    prob = np.random.default_rng(1).random((4, 25, 19)).astype(np.float16)
    _features(tmp_path / "a.geojson", mask, band_px=8, prob=prob)
    _features(tmp_path / "b.geojson", mask, band_px=200, prob=prob)
    assert (tmp_path / "a.geojson").read_bytes() == (tmp_path / "b.geojson").read_bytes()


@pytest.mark.parametrize("simplify_um", [0.0, 1.0])
def test_measurements(tmp_path: Path, simplify_um: float) -> None:
    mask = _blobs((100, 90), 4)
    prob = np.random.default_rng(1).random((4, 13, 12)).astype(np.float16)
    outputs = Outputs(simplify_um=simplify_um)
    features = _features(
        tmp_path / "r.geojson", mask, outputs, mpp_um=0.5, l0_px_per_px=(2, 2), prob=prob
    )
    l0_um = 0.25
    polygons = _polygons(features)
    areas, perimeters = (
        _measured(features, "Area \u00b5m^2"),
        _measured(features, "Perimeter \u00b5m"),
    )
    np.testing.assert_allclose(areas, shapely.area(polygons) * l0_um**2, rtol=0.01)
    np.testing.assert_allclose(perimeters, shapely.length(polygons) * l0_um, rtol=3e-3)
    of_pixels = np.kron(prob.astype(np.float64), np.ones((8, 8)))[:, :100, :90]
    for feature, area in zip(features, areas, strict=True):
        label = PROFILE.class_names.index(feature["properties"]["classification"]["name"])
        exact = _region_of(mask, label, feature)
        assert np.count_nonzero(exact) * 0.25 == pytest.approx(area, abs=1e-3)
        mean = feature["properties"]["measurements"]["Mean probability"]
        assert mean == pytest.approx(of_pixels[label][exact].mean(), abs=5.1e-5)


def _region_of(mask: Labels, label: int, feature: Any) -> NDArray[np.bool_]:
    """The region's pixels by OpenCV, by most of the pixels in the polygon."""
    _, numbers = cv2.connectedComponents((mask == label).astype(np.uint8), connectivity=4)
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]] * 2 + 1
    inside = shapely.contains_xy(shapely.geometry.shape(feature["geometry"]), x, y)
    votes = np.bincount(numbers[inside & (mask == label)])
    region: NDArray[np.bool_] = numbers == votes.argmax()
    return region


def test_without_probabilities_there_is_no_mean(tmp_path: Path) -> None:
    (feature,) = _features(tmp_path / "r.geojson", np.zeros((4, 4), np.uint8))
    assert feature["properties"]["measurements"] == {
        "Area \u00b5m^2": 16.0,
        "Perimeter \u00b5m": 16.0,
    }


def test_a_mean_of_zero_is_written(tmp_path: Path) -> None:
    prob = np.full((4, 1, 1), 1e-5, np.float16)
    (feature,) = _features(tmp_path / "r.geojson", np.zeros((4, 4), np.uint8), prob=prob)
    assert feature["properties"]["measurements"]["Mean probability"] == 0.0


def test_small_regions_and_other_classes_are_left_out(tmp_path: Path) -> None:
    mask = np.full((30, 30), 1, np.uint8)
    mask[2:4, 2:4] = 0
    mask[10:20, 10:20] = 0
    mask[25, 25] = 2
    every = _features(tmp_path / "r.geojson", mask, EXACT)
    assert len(every) == 4
    outputs = Outputs(simplify_um=0, min_region_um2=1.0, classes=(PROFILE.class_names[0],))
    assert _features(tmp_path / "r.geojson", mask, outputs, mpp_um=0.5) == [
        f for f in _features(tmp_path / "s.geojson", mask, EXACT, mpp_um=0.5)
        if f["properties"]["classification"]["name"] == PROFILE.class_names[0]
    ]  # fmt: skip
    outputs = Outputs(simplify_um=0, min_region_um2=4.5)
    kept = _features(tmp_path / "r.geojson", mask, outputs)
    assert _measured(kept, "Area \u00b5m^2").tolist() == [100.0, 795.0]
    assert len(kept[1]["geometry"]["coordinates"]) == 4  # what is left out stays a hole
    assert _features(tmp_path / "r.geojson", mask, Outputs(min_region_um2=1e6)) == []


def test_a_tolerance_below_the_squares_follows_the_pixels(tmp_path: Path) -> None:
    mask = _blobs((60, 60), 3)
    exact = _features(tmp_path / "a.geojson", mask, EXACT)
    assert _features(tmp_path / "b.geojson", mask, Outputs(simplify_um=0.69)) == exact
    assert _features(tmp_path / "b.geojson", mask, Outputs(simplify_um=0.7)) != exact


def test_the_default_simplifies_at_the_pixel_sizes_in_use(tmp_path: Path) -> None:
    mask = _blobs((60, 60), 3)
    simple = _features(tmp_path / "a.geojson", mask, Outputs(simplify_um=100), mpp_um=2.8)
    assert _features(tmp_path / "b.geojson", mask, mpp_um=2.8) == simple
    assert _features(tmp_path / "c.geojson", mask, EXACT, mpp_um=2.8) != simple
