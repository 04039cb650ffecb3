"""Images of any size in a run: the same masks as `evaluate` scores, areas, pictures, refusals."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
from PIL import Image

from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.evaluation.evaluate import evaluate_split
from sshr_deploy.runtime.evaluation.split import read_mask, read_split
from sshr_deploy.runtime.pipeline import images as image_parts
from sshr_deploy.runtime.settings import LargeImages
from sshr_deploy.runtime.writers.legend import LegendEntry, draw_legend
from sshr_deploy.runtime.writers.overlay import blend
from sshr_deploy.scores import confusion_matrix
from tests.runtime.colour_images import picture
from tests.runtime.running import Recorder, Runner, read_summary

SIZES = [(224, 224), (300, 300), (337, 224), (500, 1200), (97, 351)]
TILES = [1, 1, 2, 10, 2]


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory, demo_slide: Path) -> Path:
    """Real pixels of many sizes, and label maps that have nothing to do with them."""
    folder = tmp_path_factory.mktemp("split")
    for part in ("img", "mask"):
        (folder / part).mkdir()
    with openslide.OpenSlide(demo_slide) as slide:
        for index, (height, width) in enumerate(SIZES):
            crop = slide.read_region((700, 300 * index), 0, (width, height)).convert("RGB")
            crop.save(folder / "img" / f"{index}.png")
            truth = picture(height, width, index)[..., 0] // 64
            Image.fromarray(truth).save(folder / "mask" / f"{index}.png")
    return folder


def masks_of(out: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(out / f"{i}.png" / "mask.png")) for i in range(len(SIZES))]


@pytest.mark.parametrize("large", LargeImages)
def test_what_evaluate_scores_is_what_infer_writes(
    infer: Runner, split: Path, tmp_path: Path, large: LargeImages, profile: Profile
) -> None:
    recorder = Recorder()
    result = infer(split / "img", tmp_path, batch=4, large=large, reporter=recorder)
    assert result.exit_code == 0
    summaries = [read_summary(tmp_path / f"{i}.png") for i in range(len(SIZES))]
    parts = TILES if large == LargeImages.TILES else [1] * len(SIZES)
    assert [s["tiles"] for s in summaries] == [{"computed": n, "total": n} for n in parts]
    assert [i["tiles"]["total"] for i in result.document.model_dump()["inputs"]] == parts
    assert recorder.tiles == recorder.announced == sum(parts)

    tally = evaluate_split(
        read_split(split, profile), infer.session, profile, large=large, batch=4
    ).tally
    confusion = np.zeros_like(tally.confusion)
    for index, mask in enumerate(masks_of(tmp_path)):
        truth = read_mask(split / "mask" / f"{index}.png", profile.num_classes)
        confusion += confusion_matrix(truth, mask, profile.num_classes)
    assert np.array_equal(confusion, tally.confusion)
    there = [[c["probability"] > 0.5 for c in s["classes"]] for s in summaries]
    truths = [np.unique(np.asarray(Image.open(p))) for p in sorted((split / "mask").iterdir())]
    hits = [[(c in t) == on[c] for c in range(3)] for t, on in zip(truths, there, strict=True)]
    assert np.array_equal(np.sum(hits, 0), tally.label_hits)


def test_a_pixel_size_gives_areas_and_at_the_models_own_changes_nothing_else(
    infer: Runner, split: Path, tmp_path: Path, profile: Profile
) -> None:
    infer(split / "img", tmp_path / "without")
    with_it = infer(split / "img", tmp_path / "with", mpp_um=profile.mpp_um)
    assert with_it.exit_code == 0
    for before, after in zip(
        masks_of(tmp_path / "without"), masks_of(tmp_path / "with"), strict=True
    ):
        assert np.array_equal(before, after)
    for index, (height, width) in enumerate(SIZES):
        without = read_summary(tmp_path / "without" / f"{index}.png")
        assert without["mpp"] is None and without["tissue_area_mm2"] is None
        summary = read_summary(tmp_path / "with" / f"{index}.png")
        assert summary["mpp"] == {"x_um": 1.0, "y_um": 1.0, "source": "--mpp (images state none)"}
        assert summary["mask"]["mpp_um"] == 1.0
        assert summary["tissue_area_mm2"] == pytest.approx(height * width * 1e-6)
        for entry in summary["classes"]:
            assert entry["area_mm2"] == pytest.approx(entry["pixels"] * 1e-6)
    with (tmp_path / "with" / "summary.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["tissue_mm2"]) for row in rows] == pytest.approx(
        [height * width * 1e-6 for height, width in SIZES]
    )


def test_finer_pixels_are_cut_in_larger_parts(infer: Runner, split: Path, tmp_path: Path) -> None:
    result = infer(split / "img" / "3.png", tmp_path, mpp_um=0.5)  # 250 x 600 px of 1 um
    assert result.exit_code == 0
    summary = read_summary(tmp_path / "3.png")
    assert summary["tiles"] == {"computed": 3, "total": 3}
    assert summary["mask"] == {"width_px": 1200, "height_px": 500, "mpp_um": 0.5}
    assert summary["tissue_area_mm2"] == pytest.approx(500 * 1200 * 0.25e-6)


@pytest.mark.parametrize(
    ("mpp_um", "says"),
    [
        (
            2.1,
            "0.png is too coarse for this model: its pixels are 2.1 um by `mpp`, the model needs",
        ),
        (0.1, "0.png is 22 x 22 px at the model's 1 um .`mpp` 0.1.; give an image of at least 32"),
    ],
)
def test_pixels_too_coarse_or_too_few_for_the_model_are_refused(
    infer: Runner, split: Path, tmp_path: Path, mpp_um: float, says: str
) -> None:
    (result,) = infer(split / "img" / "0.png", tmp_path, mpp_um=mpp_um).results
    assert result.status == "failed"
    assert says.replace(".`mpp` 0.1.", "(`mpp` 0.1)") in result.reason
    assert infer(split / "img" / "0.png", tmp_path, mpp_um=2.0).exit_code == 0


def test_only_what_a_setting_changes_is_computed_again(
    infer: Runner, split: Path, tmp_path: Path
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for name in ("0.png", "2.png", "4.png"):
        shutil.copy(split / "img" / name, source)

    def done(**settings: Any) -> list[str]:
        results = infer(source, tmp_path / "out", **settings).results
        return sorted(result.path.stem for result in results if result.status == "done")

    assert done() == ["0", "2", "4"]
    assert done(large=LargeImages.WHOLE) == ["2", "4"]
    assert done(large=LargeImages.WHOLE, mpp_um=0.98) == ["0", "2", "4"]
    assert done(large=LargeImages.WHOLE, mpp_um=0.98, force_mpp=True) == []
    assert done(large=LargeImages.TILES, mpp_um=0.98) == ["4"]  # 337 px are 330 of the model's
    assert done() == ["0", "2", "4"]


@pytest.mark.parametrize("size", [(224, 224), (500, 1200), (40, 600)])
@pytest.mark.parametrize("mpp_um", [None, 1.0])
def test_the_overlay_is_the_tinted_image_above_a_legend(
    infer: Runner, tmp_path: Path, profile: Profile, size: tuple[int, int], mpp_um: float | None
) -> None:
    height, width = size
    rgb = picture(height, width)
    Image.fromarray(rgb).save(tmp_path / "x.png")
    done = infer(tmp_path / "x.png", tmp_path / "out", mpp_um=mpp_um, any_stain=True)
    assert done.exit_code == 0
    mask = np.asarray(Image.open(tmp_path / "out" / "x.png" / "mask.png"))
    shown = np.asarray(Image.open(tmp_path / "out" / "x.png" / "overlay.png"))
    left = (shown.shape[1] - width) // 2
    assert np.array_equal(shown[:height, left : left + width], blend(rgb, mask, profile))
    shares = np.bincount(mask.ravel(), minlength=profile.num_classes) / mask.size
    entries = [
        LegendEntry(c.name, c.rgb, share) for c, share in zip(profile.classes, shares, strict=True)
    ]
    legend = draw_legend(entries, title="x.png", width_px=width, mpp_um=mpp_um, share_of="image")
    assert np.array_equal(shown[height:], np.asarray(legend))


def test_a_refused_image_leaves_no_folder_and_the_rest_goes_on(
    infer: Runner, split: Path, tmp_path: Path
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    Image.new("RGB", (20_000, 1)).save(source / "a.png")
    (source / "b.png").write_bytes((split / "img" / "0.png").read_bytes())
    result = infer(source, tmp_path / "out")
    assert [r.status for r in result.results] == ["failed", "done"]
    assert result.results[0].reason == (
        f"{source / 'a.png'} is 20000 x 1 px; give an image of at least 32 px on each side"
    )
    assert not (tmp_path / "out" / "a.png").exists()


@pytest.mark.parametrize("step", ["resize_to_patch", "reference_mask"])
def test_a_defect_at_one_image_stops_no_other(
    infer: Runner, split: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    infer(split / "img", tmp_path / "whole", batch=4)
    real = getattr(image_parts, step)
    calls = 0

    def fail_in_the_third_part(*args: Any, **size: Any) -> Any:
        nonlocal calls
        of_it = (size.get("height_px") or args[0].shape[0]) == 250  # a part of 3.png
        calls += of_it
        if of_it and calls == 3:
            raise MemoryError("too large")
        return real(*args, **size)

    monkeypatch.setattr(image_parts, step, fail_in_the_third_part)
    result = infer(split / "img", tmp_path / "out", batch=4)
    assert calls == 3  # the rest of the image is not computed
    assert {r.path.name: r.status for r in result.results} == {
        **dict.fromkeys(("0.png", "1.png", "2.png", "4.png"), "done"),
        "3.png": "failed",
    }
    counts = json.loads((tmp_path / "out" / "run.json").read_text("utf-8"))["counts"]
    assert counts == {"done": 4, "skipped": 0, "failed": 1}
    log = (tmp_path / "out" / "3.png" / "error.txt").read_text("utf-8")
    assert "fail_in_the_third_part" in log and "MemoryError: too large" in log
    for name in ("0.png", "1.png", "2.png", "4.png"):
        masks = [tmp_path / run / name / "mask.png" for run in ("whole", "out")]
        assert masks[0].read_bytes() == masks[1].read_bytes()
