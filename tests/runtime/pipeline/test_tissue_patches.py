from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sshr_deploy.errors import SshrDeployError, UsageError
from sshr_deploy.export.bundle import export_bundle
from sshr_deploy.export.job import ExportOptions
from sshr_deploy.export.reference import shipped_patches
from sshr_deploy.precision import Precision
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.patches import read_image, resize_to_patch
from sshr_deploy.runtime.pipeline.tissue_patches import check_tissue_source, tissue_patches
from sshr_deploy.runtime.settings import InferSettings
from sshr_deploy.runtime.slides import open_slide, read_area, resolve_mpp
from sshr_deploy.runtime.slides.tissue import detect_tissue

Rgb = NDArray[np.uint8]


@pytest.fixture(scope="module")
def stained(demo_slide: Path) -> Rgb:
    """672 x 448 px at 1 um/px, nearly all tissue."""
    with open_slide(demo_slide) as reader:
        mpp = resolve_mpp(reader, None)
        return read_area(
            reader, mpp, target_mpp_um=1.0, l0_x=680, l0_y=2020, width_px=672, height_px=448
        )


def save(path: Path, rgb: Rgb) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb).save(path)


def found_in(patch: Rgb, images: list[Rgb]) -> bool:
    return any(np.array_equal(patch, image) for image in images)


def test_tiles_of_a_slide_that_show_tissue(demo_slide: Path, profile: Profile) -> None:
    found = tissue_patches(demo_slide, profile, limit=64)
    assert found.patches.dtype == np.uint8
    assert found.patches.shape[1:] == (224, 224, 3)
    assert found.source == f"{len(found.patches)} tissue patches from 1 slide of {demo_slide.name}"
    assert found.skipped == ()
    with open_slide(demo_slide) as reader:
        mpp = resolve_mpp(reader, None)
        width, height = reader.level_sizes_px[0]
        step = 224 / mpp.x_um
        tiles = [
            read_area(reader, mpp, target_mpp_um=1.0, l0_x=x, l0_y=y, width_px=224, height_px=224)
            for y in np.arange(0, height, step)
            for x in np.arange(0, width, step)
        ]
    tissue = [tile for tile in tiles if detect_tissue(tile, 1.0).mean() > 0.5]
    assert 3 < len(tissue) < len(tiles)
    assert all(found_in(patch, tiles) for patch in found.patches)
    assert all(found_in(tile, list(found.patches)) for tile in tissue)
    glass = [tile for tile in tiles if detect_tissue(tile, 1.0).mean() < 0.02]
    assert not any(found_in(tile, list(found.patches)) for tile in glass)


def test_slides_share_evenly_and_a_bad_one_is_skipped(
    demo_slide: Path, profile: Profile, tmp_path: Path
) -> None:
    for name in ("one.svs", "two.svs"):
        shutil.copy(demo_slide, tmp_path / name)
    (tmp_path / "bad.svs").write_bytes(b"no slide")
    found = tissue_patches(tmp_path, profile, limit=6)
    assert found.source == f"6 tissue patches from 2 slides of {tmp_path.name}"
    (reason,) = found.skipped
    assert "bad.svs" in reason
    assert "\n" not in reason
    distinct = [
        len({patch.tobytes() for patch in part}) for part in (found.patches[:3], found.patches[3:])
    ]
    assert distinct == [3, 3]


def test_the_same_files_and_seed_give_the_same_patches(
    stained: Rgb, profile: Profile, tmp_path: Path
) -> None:
    for index in range(12):
        save(tmp_path / f"{index}.png", stained[:224, index * 40 : index * 40 + 224])
    first, again, other = (
        tissue_patches(tmp_path, profile, limit=5, seed=seed).patches for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert len({patch.tobytes() for patch in first}) == 5


def test_images_without_tissue_are_left_out(stained: Rgb, profile: Profile, tmp_path: Path) -> None:
    good = stained[:224, :224]
    mostly_glass = np.full_like(good, 245)
    mostly_glass[:30] = good[:30]
    save(tmp_path / "a/good.png", good)
    save(tmp_path / "glass.png", np.full((224, 224, 3), 245, np.uint8))
    save(tmp_path / "mostly.png", mostly_glass)
    found = tissue_patches(tmp_path, profile)
    assert found.source == f"1 tissue patch from 1 image of {tmp_path.name}"
    np.testing.assert_array_equal(found.patches, good[None])


def test_large_images_are_cut_and_small_ones_resized(
    stained: Rgb, profile: Profile, tmp_path: Path
) -> None:
    save(tmp_path / "large.png", stained[:448, :672])
    save(tmp_path / "small.png", stained[100:300, 100:260])
    found = tissue_patches(tmp_path, profile)
    parts = [
        stained[y : y + 224, x : x + 224] for y in range(0, 448, 224) for x in range(0, 672, 224)
    ]
    tissue = [p for p in parts if detect_tissue(p, profile.mpp_um).mean() >= 0.25]
    assert len(tissue) >= 3
    small = resize_to_patch(read_image(tmp_path / "small.png"))
    assert {patch.tobytes() for patch in found.patches} == {
        patch.tobytes() for patch in (*tissue, small)
    }
    limited = tissue_patches(tmp_path, profile, limit=2)
    assert found_in(small, list(limited.patches))  # each input gives one
    assert len(limited.patches) == 2


def test_masks_of_a_split_are_not_taken_for_images(
    stained: Rgb, profile: Profile, tmp_path: Path
) -> None:
    save(tmp_path / "val/img/x.png", stained[:224, :224])
    save(tmp_path / "val/mask/x.png", stained[224:448, :224])
    found = tissue_patches(tmp_path / "val", profile)
    assert found.source == "1 tissue patch from 1 image of val"
    np.testing.assert_array_equal(found.patches, stained[None, :224, :224])


def test_what_infer_refuses_or_rescales_is_so_here(
    stained: Rgb, profile: Profile, tmp_path: Path
) -> None:
    save(tmp_path / "a.png", np.ascontiguousarray(stained[:448, :448]))
    save(tmp_path / "fluorescent.png", (255 - stained[:224, :224]) // 3)
    found = tissue_patches(tmp_path, profile)
    assert [path.name for path in found.inputs] == ["a.png"]
    (reason,) = found.skipped
    assert "fluorescent.png does not look like H&E" in reason
    half = InferSettings(mpp_um=profile.mpp_um / 2)
    (patch,) = tissue_patches(tmp_path / "a.png", profile, half).patches
    np.testing.assert_array_equal(patch, resize_to_patch(stained[:448, :448]))
    with pytest.raises(UsageError, match=r"a\.png is too coarse for this model"):
        tissue_patches(tmp_path / "a.png", profile, InferSettings(mpp_um=4 * profile.mpp_um))


def test_nothing_to_use_is_one_line(profile: Profile, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        tissue_patches(tmp_path / "no", profile)
    with pytest.raises(UsageError, match="holds no slide or patch image"):
        tissue_patches(tmp_path, profile)
    save(tmp_path / "glass.png", np.full((224, 224, 3), 245, np.uint8))
    with pytest.raises(UsageError, match="nothing in it shows tissue; give slides or patches"):
        tissue_patches(tmp_path, profile)
    (tmp_path / "glass.png").write_bytes(b"no image")
    with pytest.raises(UsageError, match=r"glass\.png cannot be read") as caught:
        tissue_patches(tmp_path, profile)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing.svs", "cannot be read: No such file"),
        ("empty", "holds no slide or patch image"),
        ("notes.txt", "neither a slide nor a patch image"),
        ("bad.png", "cannot be read as a PNG or JPEG"),
        ("bad", "gives no patch of tissue: .*(bad.png|bad.svs)"),
    ],
)
def test_what_cannot_be_calibrated_on_is_refused_before_the_checkpoint_is_read(
    profile: Profile, tmp_path: Path, name: str, words: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    for file in ("notes.txt", "bad.png", "bad/bad.png", "bad/bad.svs"):
        (tmp_path / file).write_text("no picture")
    options = ExportOptions(precisions=(Precision.INT8,), calibration=tmp_path / name)
    said: list[str] = []
    with pytest.raises(SshrDeployError, match=words):
        export_bundle(
            tmp_path / "not.read", profile, tmp_path / "bundle", shipped_patches(), options,
            on_step=said.append,
        )  # fmt: skip
    assert said == [] and not (tmp_path / "bundle").exists()


def test_one_readable_input_is_enough_to_begin(
    demo_slide: Path, stained: Rgb, tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_text("no picture")
    with pytest.raises(UsageError):
        check_tissue_source(tmp_path)
    save(tmp_path / "good.png", stained)
    check_tissue_source(tmp_path)
    check_tissue_source(demo_slide)
