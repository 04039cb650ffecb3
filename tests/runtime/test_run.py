"""Whole runs over real files, with a real engine of a small network."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import shapely
import tifffile
from PIL import Image
from shapely.geometry import shape

from sshr_deploy.bundle import Bundle, load_bundle
from sshr_deploy.errors import SessionError, UsageError
from sshr_deploy.runtime import slide_job
from sshr_deploy.runtime.masks import reference_mask
from sshr_deploy.runtime.patches import resize_to_patch
from sshr_deploy.runtime.progress import InputResult
from sshr_deploy.runtime.run import RunResult, run_infer
from sshr_deploy.runtime.sessions import Session, open_session
from sshr_deploy.runtime.settings import InferSettings, TissueChoice
from sshr_deploy.runtime.slides import Mpp, open_slide, read_area
from sshr_deploy.runtime.summary import Context

N = 3


@dataclass
class Recorder:
    """A reporter that remembers."""

    tiles: int = 0
    announced: int = 0
    finished: list[InputResult] = field(default_factory=list)
    interrupt_after: int | None = None

    def run_started(self, inputs: int) -> None:
        self.inputs = inputs

    def input_started(self, path: Path, tiles: int) -> None:
        self.announced += tiles

    def tiles_done(self, tiles: int) -> None:
        self.tiles += tiles

    def input_finished(self, result: InputResult) -> None:
        self.finished.append(result)
        if self.interrupt_after == len(self.finished):
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def bundle(small_bundle_dir: Path) -> Bundle:
    return load_bundle(small_bundle_dir)


@pytest.fixture(scope="module")
def session(bundle: Bundle) -> Iterator[Session]:
    with open_session(bundle, "onnx-cpu") as session:
        yield session


@dataclass
class Runner:
    bundle: Bundle
    session: Session

    def __call__(
        self, source: Path, out: Path, *, reporter: Recorder | None = None, **settings: Any
    ) -> RunResult:
        context = Context(self.bundle, self.session.info, InferSettings(**settings))
        return run_infer(source, out, self.session, context, reporter or Recorder())


@pytest.fixture(scope="module")
def infer(bundle: Bundle, session: Session) -> Runner:
    return Runner(bundle, session)


@pytest.fixture(scope="module")
def slide_run(
    infer: Runner, demo_slide: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, RunResult, Recorder]:
    out = tmp_path_factory.mktemp("slide")
    recorder = Recorder()
    return out / demo_slide.name, infer(demo_slide, out, reporter=recorder), recorder


def _summary(folder: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text("utf-8"))
    return summary


def test_a_slide_gives_all_its_files(slide_run: tuple[Path, RunResult, Recorder]) -> None:
    folder, result, recorder = slide_run
    assert result.exit_code == 0
    names = {p.name for p in folder.iterdir()}
    assert names == {"mask.ome.tif", "overlay.png", "regions.geojson", "summary.json"}
    assert {p.name for p in folder.parent.iterdir()} == {folder.name, "run.json", "summary.csv"}
    assert recorder.tiles == recorder.announced == _summary(folder)["tiles"]["computed"]


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
    summary, mask = _summary(folder), tifffile.imread(folder / "mask.ome.tif")
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
    summary = _summary(folder)
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
    slide_run: tuple[Path, RunResult, Recorder], session: Session, bundle: Bundle, demo_slide: Path
) -> None:
    mask = tifffile.imread(slide_run[0] / "mask.ome.tif")
    profile = bundle.manifest.profile
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
            session.infer(patch[None]),
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
    slide_run: tuple[Path, RunResult, Recorder], bundle: Bundle, demo_slide: Path
) -> None:
    summary = _summary(slide_run[0])
    assert summary["mpp"] == {"x_um": 0.499, "y_um": 0.499, "source": "file"}
    assert summary["slide"]["width_px"] == 2220
    assert summary["input"] == {"path": str(demo_slide), "kind": "slide"}
    assert summary["engine"]["engine"] == "onnx-cpu"
    assert summary["bundle"]["manifest_sha256"] == bundle.manifest_sha256
    seconds = summary["seconds"]
    assert {"open", "tissue", "read", "infer", "mask", "write", "total"} <= set(seconds)
    assert sum(v for k, v in seconds.items() if k != "total") <= seconds["total"] + 0.01


def test_run_json_and_csv_list_every_input(slide_run: tuple[Path, RunResult, Recorder]) -> None:
    out = slide_run[0].parent
    document = json.loads((out / "run.json").read_text("utf-8"))
    assert document["counts"] == {"done": 1, "skipped": 0, "failed": 0}
    assert document["interrupted"] is False
    with (out / "summary.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row["status"] == "done"
    assert float(row["tissue_mm2"]) == pytest.approx(_summary(slide_run[0])["tissue_area_mm2"])


def _patch_folder(folder: Path, demo_slide: Path, count: int = 5) -> Path:
    folder.mkdir()
    with openslide.OpenSlide(demo_slide) as slide:
        for i in range(count):
            crop = slide.read_region((700, 300 * i), 0, (200 + 30 * i, 224)).convert("RGB")
            crop.save(folder / f"[{i}] patch.png")
    return folder


def test_patches_are_done_exactly_as_published(
    infer: Runner, demo_slide: Path, tmp_path: Path
) -> None:
    folder = _patch_folder(tmp_path / "in", demo_slide)
    result = infer(folder, tmp_path / "out", batch=2)
    assert result.exit_code == 0
    profile = infer.bundle.manifest.profile
    for path in folder.iterdir():
        rgb = np.asarray(Image.open(path))
        expected = reference_mask(
            infer.session.infer(resize_to_patch(rgb)[None]),
            0,
            profile,
            height_px=rgb.shape[0],
            width_px=rgb.shape[1],
        )
        with Image.open(tmp_path / "out" / path.name / "mask.png") as mask:
            assert mask.mode == "P"
            assert (np.asarray(mask) == expected).mean() > 0.999
        summary = _summary(tmp_path / "out" / path.name)
        assert sum(c["pixels"] for c in summary["classes"]) == expected.size
        assert summary["classes"][0]["area_mm2"] is None
        assert any(c["on"] for c in summary["classes"])


def test_one_bad_input_is_recorded_and_the_rest_goes_on(
    infer: Runner, demo_slide: Path, tmp_path: Path
) -> None:
    folder = _patch_folder(tmp_path / "in", demo_slide, count=3)
    whole = demo_slide.read_bytes()
    (folder / "empty.svs").write_bytes(b"")
    (folder / "half.svs").write_bytes(whole[: len(whole) // 2])
    (folder / "text.svs").write_text("not a slide")
    (folder / "broken.png").write_bytes(b"not an image")
    recorder = Recorder()
    result = infer(folder, tmp_path / "out", reporter=recorder, batch=2)
    assert result.exit_code == 1
    status = {r.path.name: r.status for r in result.results}
    bad = {"empty.svs", "half.svs", "text.svs", "broken.png"}
    assert {name for name, s in status.items() if s == "failed"} == bad
    assert sum(s == "done" for s in status.values()) == 3
    for r in result.results:
        if r.status == "failed":
            assert r.path.name in r.reason
            assert "\n" not in r.reason
            assert "defect" not in r.reason
    with (tmp_path / "out" / "summary.csv").open(newline="", encoding="utf-8") as file:
        assert sum(row["status"] == "failed" for row in csv.DictReader(file)) == 4
    assert not list((tmp_path / "out").rglob("*.partial"))


def test_a_defect_is_recorded_with_its_traceback(
    infer: Runner, demo_slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(*args: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(slide_job, "segment_slide", defect)
    result = infer(demo_slide, tmp_path / "out")
    assert result.exit_code == 1
    assert "defect of sshr-deploy (ZeroDivisionError)" in result.results[0].reason
    assert "oops" in (tmp_path / "out" / demo_slide.name / "error.txt").read_text()


def test_a_second_run_does_only_what_is_left(
    infer: Runner, demo_slide: Path, tmp_path: Path
) -> None:
    folder, out = _patch_folder(tmp_path / "in", demo_slide), tmp_path / "out"
    recorder = Recorder(interrupt_after=3)
    with pytest.raises(KeyboardInterrupt):
        infer(folder, out, reporter=recorder, batch=1)
    assert json.loads((out / "run.json").read_text())["interrupted"] is True

    second = infer(folder, out)
    assert [r.status for r in second.results] == ["skipped"] * 3 + ["done"] * 2
    third = infer(folder, out)
    assert [r.status for r in third.results] == ["skipped"] * 5
    assert third.exit_code == 0
    assert all(r.summary["classes"] for r in third.results)


def test_results_are_computed_again_when_anything_changed(
    infer: Runner, demo_slide: Path, tmp_path: Path
) -> None:
    folder, out = _patch_folder(tmp_path / "in", demo_slide, count=2), tmp_path / "out"
    infer(folder, out)
    names = sorted(p.name for p in folder.iterdir())
    Image.new("RGB", (224, 224), "pink").save(folder / names[0])
    (out / names[1] / "mask.png").unlink()
    assert [r.status for r in infer(folder, out).results] == ["done", "done"]
    assert [r.status for r in infer(folder, out, overwrite=True).results] == ["done", "done"]
    assert [r.status for r in infer(folder, out, tissue=TissueChoice.ALL).results] == [
        "done",
        "done",
    ]
    other = Runner(replace(infer.bundle, manifest_sha256="0" * 64), infer.session)
    assert [r.status for r in other(folder, out).results] == ["done", "done"]


def test_all_tiles_can_be_asked_for(infer: Runner, demo_slide: Path, tmp_path: Path) -> None:
    infer(demo_slide, tmp_path, tissue=TissueChoice.ALL)
    summary = _summary(tmp_path / demo_slide.name)
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
    summary = _summary(tmp_path / "out" / "glass.tif")
    assert summary["tissue_area_mm2"] == 0
    assert [c["share"] for c in summary["classes"]] == [0.0] * N


def test_a_slide_without_pixel_size_names_the_flag(
    infer: Runner, demo_slide: Path, tmp_path: Path
) -> None:
    rgb = np.asarray(
        openslide.OpenSlide(demo_slide).read_region((800, 800), 0, (512, 512)).convert("RGB")
    )
    tifffile.imwrite(tmp_path / "bare.tif", rgb, photometric="rgb", metadata=None)
    result = infer(tmp_path / "bare.tif", tmp_path / "out")
    assert result.exit_code == 1
    assert "--mpp" in result.results[0].reason
    result = infer(tmp_path / "bare.tif", tmp_path / "out", mpp_um=0.5)
    assert result.exit_code == 0
    assert _summary(tmp_path / "out" / "bare.tif")["mpp"]["source"].startswith("--mpp")


def test_a_failing_engine_stops_the_run(
    infer: Runner, demo_slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(patches: object) -> None:
        raise SessionError("out of memory")

    monkeypatch.setattr(infer.session, "infer", fail)
    with pytest.raises(SessionError, match="out of memory"):
        infer(demo_slide, tmp_path)
    document = json.loads((tmp_path / "run.json").read_text())
    assert document["stopped_by"] == "out of memory"
    assert document["counts"]["failed"] == 1


def test_out_must_be_a_folder(infer: Runner, demo_slide: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="cannot be made a folder"):
        infer(demo_slide, tmp_path / "file")


def test_a_result_that_cannot_be_written_stops_the_run(
    infer: Runner, demo_slide: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.svs", "b.svs"):
        shutil.copy(demo_slide, folder / name)
    out = tmp_path / "out"
    (out / "a.svs" / "mask.ome.tif" / "in the way").mkdir(parents=True)
    result = infer(folder, out)
    assert result.exit_code == 1
    assert result.stopped_by is not None
    assert "cannot write to" in str(result.stopped_by)
    assert [r.status for r in result.results] == ["failed"]
    assert result.document["stopped_by"] == str(result.stopped_by)


def test_results_are_never_put_over_the_inputs(
    infer: Runner, demo_slide: Path, tmp_path: Path
) -> None:
    shutil.copy(demo_slide, tmp_path / "a.svs")
    for source in (tmp_path, tmp_path / "a.svs"):
        with pytest.raises(UsageError, match="is where the inputs are"):
            infer(source, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.svs"]


def test_nothing_of_an_earlier_or_killed_run_stays_beside_a_failure(
    infer: Runner, demo_slide: Path, tmp_path: Path
) -> None:
    slide, out = tmp_path / "a.svs", tmp_path / "out"
    shutil.copy(demo_slide, slide)
    assert infer(slide, out).exit_code == 0
    (out / "a.svs" / ".mask-x.partial").write_bytes(b"left by a killed run")
    slide.write_bytes(slide.read_bytes()[:-1000])
    assert infer(slide, out).exit_code == 1
    assert list((out / "a.svs").iterdir()) == []


def test_a_patch_that_vanishes_does_not_stop_the_rest(
    infer: Runner, demo_slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _patch_folder(tmp_path / "in", demo_slide, count=4)
    real = infer.session.infer

    def infer_then_lose_a_file(patches: Any) -> Any:
        for path in sorted(folder.iterdir())[2:3]:
            path.unlink()
        return real(patches)

    monkeypatch.setattr(infer.session, "infer", infer_then_lose_a_file)
    result = infer(folder, tmp_path / "out", batch=2)
    assert [r.status for r in result.results] == ["done"] * 2 + ["failed", "done"]
    assert "cannot be read" in result.results[2].reason
