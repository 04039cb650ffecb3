"""Files that are written where they are asked for, in whole runs with a real engine."""

from __future__ import annotations

import re
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import tifffile
import zarr
from pydicom.uid import ExplicitVRLittleEndian

from sshr_deploy.bundle import Bundle
from sshr_deploy.errors import InputError
from sshr_deploy.geometry import PATCH_PX
from sshr_deploy.runtime.engines.choosing import open_session
from sshr_deploy.runtime.outputs import ON_REQUEST, Outputs
from sshr_deploy.runtime.pipeline import slide_files
from tests.runtime.running import Recorder, Runner, read_summary
from tests.runtime.slides.dicom_slides import DicomWriter
from tests.runtime.small_slides import small_picture, small_slide

N = 3
EVERYTHING = Outputs(dicom_seg=True, ome_zarr=True, probabilities=True)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_slide(tmp_path_factory.mktemp("slide") / "a.tif", small_picture(600, 700))


@pytest.fixture(scope="module")
def folder(infer: Runner, slide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a slide in reference mode, with all that can be asked for."""
    out = tmp_path_factory.mktemp("asked")
    assert infer(slide, out, outputs=EVERYTHING).exit_code == 0
    return out / slide.name


def test_probabilities_of_tiles_are_the_networks(infer: Runner, slide: Path, folder: Path) -> None:
    prob = tifffile.imread(folder / "probabilities.tif")
    assert prob.shape == (N, 75, 88)
    padded = np.full((3 * PATCH_PX, 4 * PATCH_PX, 3), 255, np.uint8)
    padded[:600, :700] = tifffile.imread(slide)
    labels = tifffile.imread(folder / "mask.ome.tif")
    for row, column in np.ndindex(3, 4):
        place = (
            slice(row * PATCH_PX, (row + 1) * PATCH_PX),
            slice(column * PATCH_PX, (column + 1) * PATCH_PX),
        )
        cells = prob[:, row * 28 : (row + 1) * 28, column * 28 : (column + 1) * 28]
        if (labels[place] == N).all():
            assert not cells.any()
        else:
            answer = infer.session.infer(padded[place][None]).prob[0]
            np.testing.assert_allclose(cells, answer[:, None, None] + 0 * cells, atol=1e-3)


def test_probabilities_of_fields_lie_where_tissue_is(
    bundle: Bundle, slide: Path, tmp_path: Path
) -> None:
    with open_session(bundle.on_fields(), "onnx-cpu") as session:
        outputs = Outputs(probabilities=True)
        assert Runner(bundle, session)(slide, tmp_path, outputs=outputs).exit_code == 0
    prob = tifffile.imread(tmp_path / slide.name / "probabilities.tif")
    labels = tifffile.imread(tmp_path / slide.name / "mask.ome.tif")
    assert prob.shape == (N, 75, 88)
    tissue = (labels[4::8, 4::8] < N)[:75, :87]
    assert (prob[:, :, :87].max(axis=0)[tissue] > 0).all()
    assert (prob <= 1).all() and (prob >= 0).all()


def test_highdicom_reads_the_mask(slide: Path, folder: Path) -> None:
    seg = highdicom.seg.segread(folder / "segmentation.dcm")
    assert seg.ContentDescription == slide.name
    labels = tifffile.imread(folder / "mask.ome.tif")
    read = seg.get_total_pixel_matrix(combine_segments=True)
    np.testing.assert_array_equal(read, np.where(labels == N, 0, labels + 1))


def test_a_dicom_slide_is_referenced_or_refused_at_once(infer: Runner, tmp_path: Path) -> None:
    picture = small_picture(300, 350)
    for name in ("whole", "placeless"):
        (path,) = DicomWriter(ExplicitVRLittleEndian, series=f"1.2.{len(name)}", mpp_um=1.0)(
            tmp_path / name, [picture]
        )
        if name == "placeless":
            data = pydicom.dcmread(path)
            del data.ImageOrientationSlide
            data.save_as(path)
    recorder, out = Recorder(), tmp_path / "out"
    run = infer(tmp_path, out, outputs=Outputs(dicom_seg=True), reporter=recorder)
    placeless, whole = sorted(run.results, key=lambda result: result.path)
    assert placeless.status == "failed" and "does not say where it lies" in placeless.reason
    assert whole.status == "done" and recorder.announced == 4, "tiles of one slide"
    seg = highdicom.seg.segread(out / "whole" / "0-0.dcm" / "segmentation.dcm")
    assert seg.get_source_image_uids() == [("1.2", "1.2.5", "1.2.5.0.1")]


def test_zarr_reads_the_mask(folder: Path) -> None:
    labels = tifffile.imread(folder / "mask.ome.tif")
    read = zarr.open_array(folder / "mask.ome.zarr" / "0", mode="r")[:]
    np.testing.assert_array_equal(read, np.where(labels == N, 0, labels + 1))


def test_sizes_are_in_the_summary(folder: Path) -> None:
    files = read_summary(folder)["files"]
    assert set(ON_REQUEST) < set(files)
    for name in files:
        path = folder / name
        parts = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
        assert files[name] == sum(p.stat().st_size for p in parts) > 0


def test_the_examples_of_the_page_run(
    folder: Path, repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (repo_root / "docs" / "formats.md").read_text("utf-8")
    examples = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "slide.tif").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    assert len(examples) == 6
    exec("\n".join(examples), {})


def test_what_is_asked_for_and_is_not_there_is_computed(
    infer: Runner, slide: Path, tmp_path: Path
) -> None:
    def status(outputs: Outputs) -> str:
        return infer(slide, tmp_path, outputs=outputs).results[0].status

    with_zarr, chunk = Outputs(ome_zarr=True), tmp_path / slide.name / "mask.ome.zarr/0/c/0/0"
    assert [status(outputs) for outputs in (Outputs(), with_zarr, with_zarr, Outputs())] == [
        "done", "done", "skipped", "skipped",
    ]  # fmt: skip
    chunk.unlink()
    assert status(with_zarr) == "done" and chunk.exists()


def test_a_slide_that_fails_leaves_none_of_its_folders(
    infer: Runner, slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise InputError("it is damaged")

    monkeypatch.setattr(slide_files, "write_overlay", refuse)
    (result,) = infer(slide, tmp_path, outputs=EVERYTHING).results
    assert (result.status, result.reason) == ("failed", "it is damaged")
    assert not (tmp_path / slide.name).exists()
