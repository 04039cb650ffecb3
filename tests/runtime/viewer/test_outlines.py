"""Outlines by place against the polygons of the file, by shapely."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from sshr_deploy.errors import InputError
from sshr_deploy.runtime.viewer.outlines import Box, Outlines
from tests.runtime.viewer.results import PROFILE, write_regions

LABELS = {tissue.name: label for label, tissue in enumerate(PROFILE.classes)}


@pytest.fixture(scope="module")
def regions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random regions with holes, two level-0 pixels a mask pixel."""
    coarse = np.random.default_rng(0).integers(0, PROFILE.num_classes + 1, (25, 30))
    mask = coarse.repeat(8, 0).repeat(8, 1).astype(np.uint8)
    path = tmp_path_factory.mktemp("regions") / "regions.geojson"
    write_regions(path, mask, 1.0, 2.0)
    return path


@pytest.fixture(scope="module")
def polygons(regions: Path) -> list[tuple[int, Any]]:
    features = json.loads(regions.read_bytes())["features"]
    return [
        (LABELS[f["properties"]["classification"]["name"]], shapely.geometry.shape(f["geometry"]))
        for f in features
    ]


@pytest.mark.parametrize("box", [Box(0, 0, 480, 400), Box(90, 70, 170, 130), Box(-9, -9, 3, 3)])
def test_lines_in_a_box(regions: Path, polygons: list[tuple[int, Any]], box: Box) -> None:
    lines, is_all = Outlines(regions, LABELS).lines(box)
    assert is_all
    window = shapely.box(*box)
    for label in LABELS.values():
        wanted = shapely.union_all([p.boundary for at, p in polygons if at == label])
        found = shapely.union_all(
            [shapely.LineString(x.corners) for x in lines if x.label == label]
        )
        assert shapely.intersection(wanted, window).equals(shapely.intersection(found, window))
    beyond = [line for line in lines if not shapely.LineString(line.corners).intersects(window)]
    assert len(beyond) <= len(lines) / 2  # sides near its corners


def test_nothing_outside(regions: Path) -> None:
    assert Outlines(regions, LABELS).lines(Box(1000, 1000, 2000, 2000)) == ([], True)


def test_more_than_can_be_drawn(regions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sshr_deploy.runtime.viewer.outlines._MAX_SENT_CORNERS", 20)
    lines, is_all = Outlines(regions, LABELS).lines(Box(0, 0, 480, 400))
    assert not is_all
    assert lines


def test_few_corners_are_kept(regions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sshr_deploy.runtime.viewer.outlines._MAX_KEPT_CORNERS", 100)
    outlines = Outlines(regions, LABELS)
    everything = Box(0, 0, 480, 400)
    first = [line.corners.tolist() for line in outlines.lines(everything)[0]]
    assert outlines._kept_corners == sum(
        len(ring) for region in outlines._kept.values() for ring in region.rings
    )
    assert outlines._kept_corners <= 100 or len(outlines._kept) == 1
    assert [line.corners.tolist() for line in outlines.lines(everything)[0]] == first


def test_a_region_that_is_too_long_is_told(
    regions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sshr_deploy.runtime.viewer.outlines._MAX_REGION_BYTES", 4000)
    long = '{"type":"Feature","geometry":' + "[" * 9000 + "\n"
    head, *rest = regions.read_text().splitlines(keepends=True)
    path = tmp_path / "regions.geojson"
    path.write_text(head + long + "".join(rest))
    everything = Box(0, 0, 480, 400)
    outlines, others = Outlines(path, LABELS), Outlines(regions, LABELS)
    assert (outlines.left_out, others.left_out) == (1, 0)
    wanted = [line.corners.tolist() for line in others.lines(everything)[0]]
    assert [line.corners.tolist() for line in outlines.lines(everything)[0]] == wanted


def test_the_index_is_small_while_it_is_made(tmp_path: Path) -> None:
    one = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9], [0, 0]]]},
        "properties": {"classification": {"name": PROFILE.classes[0].name}},
    }
    path = tmp_path / "regions.geojson"
    path.write_text((json.dumps(one, separators=(",", ":")) + ",\n") * 5000)
    tracemalloc.start()
    try:
        Outlines(path, LABELS)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100 * 5000 + 200_000  # 40 bytes a region, more while the arrays grow


def measured(regions: Path, to: Path, *, as_list: bool = False) -> Path:
    """The same file with the number of each region among its measurements."""
    document = json.loads(regions.read_bytes())
    lines = []
    for number, feature in enumerate(document["features"]):
        value: Any = {"Mean probability": number / 1000, "note": "not a number"}
        if as_list:
            value = [{"name": "Mean probability", "value": number / 1000}]
        feature["properties"]["measurements"] = value
        lines.append(json.dumps(feature, separators=(",", ":")))
    to.write_text('{"type":"FeatureCollection","features":[\n' + ",\n".join(lines) + "\n]}\n")
    return to


@pytest.mark.parametrize("as_list", [False, True])
def test_measurements_of_the_region_at_a_place(
    regions: Path, polygons: list[tuple[int, Any]], tmp_path: Path, as_list: bool
) -> None:
    outlines = Outlines(measured(regions, tmp_path / "r.geojson", as_list=as_list), LABELS)
    rng = np.random.default_rng(1)
    for x, y in rng.uniform((0, 0), (480, 400), (60, 2)).tolist():
        found = {
            label: outlines.measurements(x, y, label).get("Mean probability")
            for label in LABELS.values()
        }
        at = shapely.Point(x, y)
        wanted = {label: n / 1000 for n, (label, p) in enumerate(polygons) if p.contains(at)}
        assert {k: v for k, v in found.items() if v is not None} == wanted


@pytest.mark.parametrize("text", ["", '{"type":"FeatureCollection","features":[\n\n]}\n'])
def test_no_regions(tmp_path: Path, text: str) -> None:
    path = tmp_path / "regions.geojson"
    path.write_text(text)
    assert Outlines(path, LABELS).lines(Box(0, 0, 9, 9)) == ([], True)


@pytest.mark.parametrize(
    "text", [None, '{"type":"Feature"}\n', '{"type":"Feature","coordinates":[']
)
def test_damaged(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "regions.geojson"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match="cannot be read"):
        Outlines(path, LABELS)
