"""The Python API beside the command line: the same results, errors and files."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

import sshr_deploy as sshr
from sshr_deploy.errors import InputError, MissingMppError, SshrDeployError, UsageError
from sshr_deploy.runtime.results.findings import SlideSummary
from tests.cli.command import run_here


@pytest.fixture(scope="module")
def model(small_bundle_dir: Path) -> Iterator[sshr.Model]:
    with sshr.load(str(small_bundle_dir), "onnx-cpu") as model:
        yield model


def crop(slide: Path, width: int, height: int) -> NDArray[np.uint8]:
    with openslide.OpenSlide(slide) as opened:
        return np.asarray(opened.read_region((900, 900), 0, (width, height)).convert("RGB"))


@pytest.mark.parametrize("size", [(224, 224), (300, 100), (500, 400)])
def test_an_array_gives_what_the_command_writes(
    model: sshr.Model, small_bundle_dir: Path, demo_slide: Path, tmp_path: Path,
    size: tuple[int, int],
) -> None:  # fmt: skip
    rgb = crop(demo_slide, *size)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    out = tmp_path / "out"
    done = run_here(
        "infer", tmp_path / "a.png", "--model", small_bundle_dir, "--out", out, "--quiet"
    )
    assert done.returncode == 0, done.stderr
    result = model(rgb)
    assert np.array_equal(result.mask, np.asarray(Image.open(out / "a.png" / "mask.png")))
    classes = json.loads((out / "a.png" / "summary.json").read_text())["classes"]
    assert [entry["name"] for entry in classes] == list(result.classes)
    assert [entry["probability"] for entry in classes] == pytest.approx(result.prob.tolist())
    whole = model(rgb, large="whole").mask
    assert np.array_equal(whole, result.mask) == (max(size) <= 336)


def test_cams_are_the_networks_own(model: sshr.Model, demo_slide: Path) -> None:
    patches = np.stack([crop(demo_slide, 224, 224)] * 2)
    cams = model.cams(patches)
    assert cams.cam_deep.shape == (2, len(model.classes), 28, 28)
    assert np.array_equal(cams.prob, model.session.infer(patches).prob)


def test_a_slide_is_what_the_command_wrote(
    model: sshr.Model, small_bundle_dir: Path, demo_slide: Path, tmp_path: Path
) -> None:
    tiles: list[tuple[str, int, int]] = []
    result = model.slide(
        str(demo_slide),
        tmp_path / "api",
        mode="reference",
        on_tiles=lambda p, n, of: tiles.append((p.name, n, of)),
    )
    assert result.status == "done" and result.reason == ""
    assert tiles[0] == (demo_slide.name, 0, 26) and tiles[-1] == (demo_slide.name, 26, 26)
    again = run_here(
        "infer", demo_slide, "--model", small_bundle_dir, "--out", tmp_path / "api", "--quiet",
        "--mode", "reference",
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    record = json.loads((tmp_path / "api" / "run.json").read_text())
    assert record["counts"] == {"done": 0, "skipped": 1, "failed": 0}, "the same key"
    folder = tmp_path / "api" / demo_slide.name
    assert result.folder == folder
    assert np.array_equal(result.mask, tifffile.imread(folder / "mask.ome.tif"))
    regions = json.loads((folder / "regions.geojson").read_text())
    assert result.regions == regions["features"]
    assert isinstance(result.summary, SlideSummary)
    assert len(result.regions) == result.summary.regions
    classes = json.loads((folder / "summary.json").read_text())["classes"]
    assert result.areas_mm2 == {entry["name"]: entry["area_mm2"] for entry in classes}


def test_failures_of_a_folder_are_results_and_of_a_slide_errors(
    model: sshr.Model, demo_slide: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(demo_slide, folder / "a.svs")
    tifffile.imwrite(folder / "b.tif", crop(demo_slide, 512, 512), tile=(256, 256))
    (folder / "c.png").write_bytes(b"no image")
    found = {result.path.name: result for result in model.run(folder, str(tmp_path / "out"))}
    assert {name: r.status for name, r in found.items()} == {
        "a.svs": "done", "b.tif": "failed", "c.png": "failed"
    }  # fmt: skip
    assert "give it in um per pixel with `mpp`" in found["b.tif"].reason
    with pytest.raises(MissingMppError, match="`mpp`"):
        _ = found["b.tif"].mask
    with pytest.raises(MissingMppError, match="`mpp`"):
        model.slide(folder / "b.tif", tmp_path / "one")
    assert model.slide(folder / "b.tif", tmp_path / "one", mpp=0.5).summary.mpp is not None
    with pytest.raises(UsageError, match=r"is a folder; Model\.run"):
        model.slide(folder, tmp_path / "out")


def test_what_is_finished_stays_where_a_loop_is_left(
    model: sshr.Model, demo_slide: Path, tmp_path: Path
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("a.svs", "b.svs"):
        shutil.copy(demo_slide, folder / name)
    for result in model.run(folder, out):
        assert result.path.name == "a.svs"
        break
    record = json.loads((out / "run.json").read_text())
    assert record["interrupted"] and record["counts"]["done"] == 1
    assert [result.status for result in model.run(folder, out)] == ["skipped", "done"]


@pytest.mark.parametrize(
    ("rgb", "says"),
    [
        (np.zeros((64, 64, 3), np.float32), "must be RGB, uint8"),
        (np.zeros((64, 64), np.uint8), "must be RGB, uint8"),
        (np.zeros((3, 64, 64), np.uint8), "must be RGB, uint8"),
        (np.zeros((31, 64, 3), np.uint8), "is 64 x 31 px; give an image of at least 32"),
        (np.zeros((32, 641, 3), np.uint8), "one side more than 20 times"),
        ([[0]], "must be a NumPy array, not list"),
    ],
)
def test_unusable_arrays_are_refused(model: sshr.Model, rgb: NDArray[np.uint8], says: str) -> None:
    with pytest.raises(InputError, match=says):
        model(rgb)


@pytest.mark.parametrize(
    ("mpp", "says"),
    [
        (0.0, "`mpp` 0 is no pixel size"),
        (float("nan"), "`mpp` nan is no pixel size"),
        (1000.0, "`mpp` 1000 is no pixel size"),
        (50.0, "too coarse for this model"),
        (0.05, "give an image of at least 32 such px"),
    ],
)
def test_a_pixel_size_is_checked_as_that_of_a_file(
    model: sshr.Model, demo_slide: Path, mpp: float, says: str
) -> None:
    with pytest.raises((InputError, UsageError), match=says):
        model(crop(demo_slide, 300, 300), mpp=mpp)


def test_odd_values_of_options_are_taken_or_refused(
    model: sshr.Model, demo_slide: Path, tmp_path: Path
) -> None:
    Image.fromarray(crop(demo_slide, 224, 224)).save(tmp_path / "a.png")
    out = tmp_path / "out"
    odd: Any = {"mpp": np.float32(0.5), "overwrite": np.bool_(True)}
    (result,) = model.run(tmp_path / "a.png", out, **odd)
    assert result.summary.mpp is not None and result.summary.mpp.x_um == 0.5
    assert json.loads((out / "run.json").read_text())["settings"]["overwrite"] is True
    wrong: Any
    for wrong, says in (
        ({"any_stain": "no"}, "`any_stain` is 'no'; give True or False"),
        ({"mpp": "fine"}, "`mpp` is 'fine'; give a number"),
    ):
        with pytest.raises(UsageError, match=says):
            list(model.run(tmp_path / "a.png", out, **wrong))


def test_an_error_of_the_watcher_ends_the_run_and_reaches_the_caller(
    model: sshr.Model, demo_slide: Path, tmp_path: Path
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    shutil.copy(demo_slide, folder / "a.svs")
    Image.fromarray(crop(demo_slide, 224, 224)).save(folder / "b.png")

    def watch(path: Path, done: int, tiles: int) -> None:
        if path.name == "b.png":
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        list(model.run(folder, out, on_tiles=watch))
    record = json.loads((out / "run.json").read_text())
    assert record["interrupted"] and record["counts"] == {"done": 1, "skipped": 0, "failed": 0}
    assert not list(out.rglob("error.txt"))
    assert [r.status for r in model.run(folder, out)] == ["skipped", "done"]


def test_results_stay_where_they_are_when_the_folder_changes(
    model: sshr.Model, demo_slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = model.slide(demo_slide, "relative")
    monkeypatch.chdir("/")
    assert result.mask.shape == (1481, 1108)


def test_files_that_are_gone_are_an_error_not_nothing(
    model: sshr.Model, demo_slide: Path, tmp_path: Path
) -> None:
    result = model.slide(demo_slide, tmp_path)
    (result.folder / "regions.geojson").write_text("[1]")
    with pytest.raises(InputError, match="holds no regions"):
        _ = result.regions
    for name in ("regions.geojson", "mask.ome.tif"):
        (result.folder / name).unlink()
    with pytest.raises(InputError, match="holds no regions"):
        _ = result.regions
    with pytest.raises(InputError, match="holds no mask"):
        _ = result.mask


def test_the_model_can_be_used_between_the_results_of_a_run(
    model: sshr.Model, demo_slide: Path, tmp_path: Path
) -> None:
    rgb = crop(demo_slide, 224, 224)
    before = model(rgb).mask
    for _ in model.run(demo_slide, tmp_path):
        assert np.array_equal(model(rgb).mask, before)
    assert model.run("nothing", tmp_path / "unused") is not None, "nothing is done yet"
    assert not (tmp_path / "unused").exists()


def test_wrong_names_and_folders_are_refused(
    model: sshr.Model, small_bundle_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="'fast' is not one of fp32, fp16, bf16, int8"):
        sshr.load(small_bundle_dir, precision="fast")
    with pytest.raises(UsageError, match="no engine named 'onnx'"):
        sshr.load(small_bundle_dir, "onnx")
    with pytest.raises(SshrDeployError, match="bundle"):
        sshr.load(tmp_path)
    with pytest.raises(UsageError, match="no option 'mmp'; there are mpp, force_mpp"):
        list(model.run(tmp_path, tmp_path / "out", mmp=0.5))  # type: ignore[call-arg]
    with pytest.raises(UsageError, match="`batch` is 0; give a whole number from 1 to 1024"):
        sshr.load(small_bundle_dir, batch=0)
    with pytest.raises(UsageError, match="`threads` is -1; give a whole number"):
        sshr.load(small_bundle_dir, threads=-1)
    with pytest.raises(UsageError, match="'some' is not one of auto, all"):
        list(model.run(tmp_path, tmp_path / "out", tissue="some"))
    assert not (tmp_path / "out").exists()
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        getattr(sshr, "nothing")  # noqa: B009


def test_the_package_alone_imports_nothing(repo_root: Path) -> None:
    code = """
import os, sys
before = set(sys.modules)
import sshr_deploy
print(*sorted(set(sys.modules) - before))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=repo_root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [
        *("__future__", "sshr_deploy", "sshr_deploy._links", "sshr_deploy.version")
    ]
