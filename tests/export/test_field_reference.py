"""Fields made of real images, against NumPy's own mirroring and an index walked by hand."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from sshr_deploy.export.field_reference import (
    MOSAICS,
    MOST_FIELDS,
    field_reference,
    fields_of,
    mirrored,
)
from sshr_deploy.export.reference import PatchSet, Whole, patches_from_folder, shipped_patches
from sshr_deploy.geometry import Geometry
from sshr_deploy.model import predict
from sshr_deploy.model.checkpoint import load_checkpoint
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.engines.reference import read_reference, write_reference

FIELD = Geometry(448, 56)


def _image(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("sizes", [(100, 37), (448, 447), (2, 300)])
def test_a_small_image_is_mirrored_about_its_edges(sizes: tuple[int, int]) -> None:
    image = _image(*sizes)
    before = [(448 - size) // 2 for size in sizes]
    after = [448 - size - start for size, start in zip(sizes, before, strict=True)]
    padded = np.pad(image, [*zip(before, after, strict=True), (0, 0)], mode="reflect")
    np.testing.assert_array_equal(mirrored(image, 448), padded)


def test_a_large_image_is_cut_and_one_pixel_fills_all() -> None:
    image = _image(500, 900)
    np.testing.assert_array_equal(mirrored(image, 448), image[26:474, 226:674])
    assert (mirrored(_image(1, 1), 448) == _image(1, 1)).all()
    wide = mirrored(_image(100, 900), 448)
    np.testing.assert_array_equal(wide[174:274], _image(100, 900)[:, 226:674])


def test_patches_are_composed_to_mosaics() -> None:
    """Each quarter of the field shows one of the images, turned about or as it is."""
    images = [_image(224, 224, seed) for seed in range(3)]
    fields, truth = fields_of(PatchSet(images, "three"), FIELD)
    assert fields.shape == (MOSAICS, 448, 448, 3) and truth is None
    seen = []
    for field in fields:
        for top, left in ((0, 0), (0, 224), (224, 0), (224, 224)):
            part = field[top : top + 224, left : left + 224]
            turned = [part, part[::-1], part[:, ::-1], part[::-1, ::-1]]
            seen += [i for i in range(3) for view in turned if np.array_equal(view, images[i])]
    assert len(seen) == 8 and set(seen) == {0, 1, 2}
    assert len({field.tobytes() for field in fields}) == MOSAICS
    odd, _ = fields_of(PatchSet(images, "three"), Geometry(560, 56))
    assert odd.shape[1:] == (560, 560, 3)


def test_truth_is_that_of_the_core() -> None:
    image, labels = _image(300, 336), np.arange(300 * 336).reshape(300, 336) % 4
    whole = [Whole(image, labels.astype(np.uint8))]
    _, truth = fields_of(PatchSet([image], "one", whole=whole), FIELD)
    assert truth is not None and truth[0].shape == (336, 336)
    np.testing.assert_array_equal(truth[0][18:318], labels)
    np.testing.assert_array_equal(truth[0][17], labels[1])


def test_a_split_gives_whole_images_evenly_chosen(tmp_path: Path, profile: Profile) -> None:
    for name in ("img", "mask"):
        (tmp_path / name).mkdir()
    for number in range(10):
        cv2.imwrite(str(tmp_path / "img" / f"{number}.png"), np.full((60, 70, 3), number, np.uint8))
        cv2.imwrite(str(tmp_path / "mask" / f"{number}.png"), np.full((60, 70), 2, np.uint8))
    patches = patches_from_folder(tmp_path, profile)
    assert patches.whole is not None
    assert [int(item.image[0, 0, 0]) for item in patches.whole] == [0, 1, 3, 4, 5, 6, 8, 9]
    fields, truth = fields_of(patches, FIELD)
    assert len(fields) == MOST_FIELDS and truth is not None and (truth[0] == 2).all()
    few, _ = fields_of(patches, Geometry(1344, 56))
    assert len(few) == 3, "they travel in the bundle"
    unlabelled = patches_from_folder(tmp_path / "img", profile)
    assert fields_of(unlabelled, FIELD).truth is None


def test_the_reference_is_what_pytorch_says_and_survives_its_file(
    small_checkpoint: Path, tmp_path: Path
) -> None:
    model = load_checkpoint(small_checkpoint)
    reference = field_reference(model, shipped_patches(), FIELD)
    cams = predict(model, reference.patches, FIELD)
    np.testing.assert_allclose(reference.cams.cam_28_1, cams.cam_28_1, rtol=1e-4, atol=1e-6)
    assert reference.sizes_px.tolist() == [[336, 336]] * MOSAICS
    write_reference(tmp_path / "fields.npz", reference)
    again = read_reference(tmp_path / "fields.npz", 3, FIELD)
    np.testing.assert_array_equal(again.cams.prob, reference.cams.prob)
    assert again.geometry == FIELD and again.source == reference.source
