"""One slide through the whole chain, with a real engine of a small network."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import openslide
import pytest
import shapely
import tifffile
from shapely.geometry import shape

from sshr_deploy.runtime.masks import reference_mask
from sshr_deploy.runtime.pipeline.run import RunResult
from sshr_deploy.runtime.settings import TissueChoice
from sshr_deploy.runtime.slides import Mpp, open_slide, read_area
from tests.runtime.running import Recorder, Runner, read_summary

N = 3


@pytest.fixture(scope="module")
def slide_run(
    infer: Runner, demo_slide: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, RunResult, Recorder]:
    out = tmp_path_factory.mktemp("slide")
    recorder = Recorder()
    return out / demo_slide.name, infer(demo_slide, out, reporter=recorder), recorder


def test_a_slide_gives_all_its_files(slide_run: tuple[Path, RunResult, Recorder]) -> None:
    folder, result, recorder = slide_run
    assert result.exit_code == 0
    names = {p.name for p in folder.iterdir()}
    assert names == {
        "mask.ome.tif", "overlay.png", "overlay@2x.png", "thumbnail.jpg", "regions.geojson",
        "report.html", "summary.json",
    }  # fmt: skip
    assert {p.name for p in folder.parent.iterdir()} == {
        folder.name, "report.html", "run.json", "runs", "summary.csv",
    }  # fmt: skip
    assert recorder.tiles == recorder.announced == read_summary(folder)["tiles"]["computed"]


def test_mask_has_the_right_size_and_pixel_size_everywhere(
    slide_run: tuple[Path, RunResult, Recorder],
) -> None:
    path = slide_run[0] / "mask.ome.tif"
    size = (round(2967 * 0.499), round(2220 * 0.499))
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_ome
        assert tiff.series[0].shape == size
        assert len(tiff.series[0].levels) > 1
        assert 'PhysicalSizeX="1.0"' in (tiff.ome_metadata or "")
    with openslide.OpenSlide(path) as slide:
        assert slide.dimensions == size[::-1]
        assert float(slide.properties[openslide.PROPERTY_NAME_MPP_X]) == pytest.approx(1.0)


def test_areas_equal_the_masks_pixel_counts(slide_run: tuple[Path, RunResult, Recorder]) -> None:
    folder = slide_run[0]
    summary, mask = read_summary(folder), tifffile.imread(folder / "mask.ome.tif")
    counts = np.bincount(mask.ravel(), minlength=N + 1)
    assert [c["pixels"] for c in summary["classes"]] == counts[:N].tolist()
    for entry in summary["classes"]:
        assert entry["area_mm2"] == pytest.approx(entry["pixels"] * 1e-6)
        assert entry["share"] == pytest.approx(entry["pixels"] / counts[:N].sum())
    assert summary["tissue_area_mm2"] == pytest.approx(counts[:N].sum() * 1e-6)
    assert 0.3 < summary["tissue_area_mm2"] < 1.2, (
        "the slide is 1.1 x 1.5 mm, about half of it glass"
    )


def test_regions_are_valid_and_cover_the_mask(slide_run: tuple[Path, RunResult, Recorder]) -> None:
    folder = slide_run[0]
    features = json.loads((folder / "regions.geojson").read_text("utf-8"))["features"]
    summary = read_summary(folder)
    assert len(features) == summary["regions"]
    area: dict[str, float] = {}
    for feature in features:
        polygon = shape(feature["geometry"])
        assert polygon.is_valid, shapely.is_valid_reason(polygon)
        name = feature["properties"]["classification"]["name"]
        area[name] = area.get(name, 0) + polygon.area * 0.499**2 * 1e-6
    for entry in summary["classes"]:
        assert area.get(entry["name"], 0) == pytest.approx(entry["area_mm2"], rel=1e-3)


def test_a_tile_of_the_mask_is_the_published_result_on_tissue(
    slide_run: tuple[Path, RunResult, Recorder], infer: Runner, demo_slide: Path
) -> None:
    mask = tifffile.imread(slide_run[0] / "mask.ome.tif")
    profile = infer.bundle.manifest.profile
    for row, column in [(3, 2), (5, 3)]:
        with open_slide(demo_slide) as reader:
            step = 224 / 0.499
            patch = read_area(
                reader,
                Mpp(0.499, 0.499, "file"),
                target_mpp_um=1.0,
                l0_x=column * step,
                l0_y=row * step,
                width_px=224,
                height_px=224,
            )
        labels = reference_mask(
            infer.session.infer(patch[None]),
            0,
            profile,
            height_px=224,
            width_px=224,
        )
        tile = mask[row * 224 : (row + 1) * 224, column * 224 : (column + 1) * 224]
        tissue = tile < N
        assert tissue.mean() > 0.5
        assert (tile[tissue] == labels[tissue]).mean() > 0.999


def test_summary_tells_where_everything_came_from(
    slide_run: tuple[Path, RunResult, Recorder], infer: Runner, demo_slide: Path
) -> None:
    summary = read_summary(slide_run[0])
    assert summary["mpp"] == {"x_um": 0.499, "y_um": 0.499, "source": "file"}
    assert summary["slide"]["width_px"] == 2220
    assert summary["input"] == {"path": str(demo_slide.absolute()), "kind": "slide"}
    assert summary["engine"]["engine"] == "onnx-cpu"
    assert summary["bundle"]["manifest_sha256"] == infer.bundle.manifest_sha256
    seconds = summary["seconds"]
    assert {"open", "tissue", "read", "infer", "mask", "write", "total"} <= set(seconds)
    assert sum(v for k, v in seconds.items() if k != "total") <= seconds["total"] + 0.01


def test_all_tiles_can_be_asked_for(infer: Runner, demo_slide: Path, tmp_path: Path) -> None:
    infer(demo_slide, tmp_path, tissue=TissueChoice.ALL)
    summary = read_summary(tmp_path / demo_slide.name)
    assert summary["tiles"] == {"computed": 35, "total": 35}
    mask = tifffile.imread(tmp_path / demo_slide.name / "mask.ome.tif")
    assert mask.max() < N, "no pixel is background"


def test_a_disc_lies_where_it_was_drawn(infer: Runner, tmp_path: Path) -> None:
    """Registration through the whole chain, with pixels that are not square."""
    mpp_x, mpp_y, centre_um, radius_um = 0.5, 0.47, (700.0, 380.0), 150.0
    y, x = np.mgrid[:2000, :2400]
    inside = (
        np.hypot((x + 0.5) * mpp_x - centre_um[0], (y + 0.5) * mpp_y - centre_um[1]) < radius_um
    )
    rgb = np.where(inside[..., None], (176, 96, 160), (243, 243, 243)).astype(np.uint8)
    tifffile.imwrite(
        tmp_path / "disc.tif", rgb, tile=(256, 256), photometric="rgb", metadata=None,
        resolution=(1e4 / mpp_x, 1e4 / mpp_y), resolutionunit="CENTIMETER",
    )  # fmt: skip
    assert infer(tmp_path / "disc.tif", tmp_path / "out").exit_code == 0
    folder = tmp_path / "out" / "disc.tif"

    features = json.loads((folder / "regions.geojson").read_text("utf-8"))["features"]
    disc = shapely.unary_union([shape(f["geometry"]) for f in features])
    assert disc.centroid.x * mpp_x == pytest.approx(centre_um[0], abs=1)
    assert disc.centroid.y * mpp_y == pytest.approx(centre_um[1], abs=1)
    west, north, east, south = disc.bounds
    assert (east - west) * mpp_x / 2 == pytest.approx(radius_um, abs=6)
    assert (south - north) * mpp_y / 2 == pytest.approx(radius_um, abs=6)

    rows, columns = np.nonzero(tifffile.imread(folder / "mask.ome.tif") < N)
    assert columns.mean() + 0.5 == pytest.approx(centre_um[0], abs=1)
    assert rows.mean() + 0.5 == pytest.approx(centre_um[1], abs=1)


def test_empty_glass_is_never_computed(infer: Runner, tmp_path: Path) -> None:
    glass = np.full((1024, 1024, 3), 242, np.uint8)
    tifffile.imwrite(
        tmp_path / "glass.tif", glass, tile=(256, 256), photometric="rgb", metadata=None,
        resolution=(10000, 10000), resolutionunit="CENTIMETER",
    )  # fmt: skip
    recorder = Recorder()
    result = infer(tmp_path / "glass.tif", tmp_path / "out", reporter=recorder)
    assert result.exit_code == 0
    assert recorder.tiles == 0
    summary = read_summary(tmp_path / "out" / "glass.tif")
    assert summary["tissue_area_mm2"] == 0
    assert [c["share"] for c in summary["classes"]] == [0.0] * N


def test_a_slide_that_is_too_coarse_fails_at_once(infer: Runner, tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "coarse.tif", np.full((64, 64, 3), 245, np.uint8), photometric="rgb",
        metadata=None, resolution=(1e4 / 15, 1e4 / 15), resolutionunit="CENTIMETER",
    )  # fmt: skip
    recorder = Recorder()
    result = infer(tmp_path / "coarse.tif", tmp_path / "out", reporter=recorder)
    assert result.exit_code == 1
    assert "too coarse" in result.results[0].reason
    assert recorder.announced == 0


def test_a_slide_without_pixel_size_names_the_flag(
    infer: Runner, demo_slide: Path, tmp_path: Path
) -> None:
    rgb = np.asarray(
        openslide.OpenSlide(demo_slide).read_region((800, 800), 0, (512, 512)).convert("RGB")
    )
    tifffile.imwrite(tmp_path / "bare.tif", rgb, photometric="rgb", metadata=None)
    result = infer(tmp_path / "bare.tif", tmp_path / "out")
    assert result.exit_code == 1
    assert "`mpp`" in result.results[0].reason
    result = infer(tmp_path / "bare.tif", tmp_path / "out", mpp_um=0.5)
    assert result.exit_code == 0
    assert read_summary(tmp_path / "out" / "bare.tif")["mpp"]["source"].startswith("--mpp")


def test_run_json_and_csv_list_every_input(slide_run: tuple[Path, RunResult, Recorder]) -> None:
    out = slide_run[0].parent
    document = json.loads((out / "run.json").read_text("utf-8"))
    assert document["counts"] == {"done": 1, "skipped": 0, "failed": 0}
    assert document["interrupted"] is False
    with (out / "summary.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row["status"] == "done"
    assert float(row["tissue_mm2"]) == pytest.approx(read_summary(slide_run[0])["tissue_area_mm2"])
