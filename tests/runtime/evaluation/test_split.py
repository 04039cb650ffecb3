from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sshr_deploy.errors import DatasetError, InputError
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.evaluation.split import labels_of, read_mask, read_split, read_truth

EXPECTED = "expected are 0 to 2 for the classes and 3 for background"


def add(split: Path, name: str, labels: np.ndarray | None, mode: str = "P", size: int = 32) -> None:
    for part in ("img", "mask"):
        (split / part).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(name))
    Image.fromarray(rng.integers(0, 256, (size, size, 3), np.uint8)).save(split / "img" / name)
    if labels is None:
        return
    mask = Image.fromarray(labels)
    if mode == "P":
        mask.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200, 255, 255, 255])
    mask.save(split / "mask" / f"{Path(name).stem}.png")


def labels(size: int = 32, high: int = 4) -> np.ndarray:
    return np.random.default_rng(size).integers(0, high, (size, size)).astype(np.uint8)


def problems(split: Path, profile: Profile) -> list[str]:
    with pytest.raises(DatasetError) as caught:
        read_split(split, profile)
    assert caught.value.problems[0] in str(caught.value)
    return list(caught.value.problems)


def test_images_by_name_with_their_masks(tmp_path: Path, profile: Profile) -> None:
    add(tmp_path, "b [1 0 1].png", labels())
    add(tmp_path, "a.JPG", labels(), mode="L")
    (tmp_path / "img" / "notes.txt").write_text("no image")
    (tmp_path / "img" / "._a.png").write_text("a Mac's")
    items = read_split(tmp_path, profile)
    assert [i.name for i in items] == ["a.JPG", "b [1 0 1].png"]
    for item in items:
        rgb, mask = read_truth(item, profile.num_classes)
        assert rgb.shape == (32, 32, 3)
        assert rgb.dtype == mask.dtype == np.uint8
        assert np.array_equal(mask, labels())


def test_every_problem_is_listed_at_once(tmp_path: Path, profile: Profile) -> None:
    add(tmp_path, "good.png", labels())
    add(tmp_path, "alone.png", None)
    add(tmp_path, "size.png", labels(33))
    add(tmp_path, "value.png", np.full((32, 32), 7, np.uint8), mode="L")
    add(tmp_path, "colour.png", np.zeros((32, 32, 3), np.uint8), mode="RGB")
    add(tmp_path, "deep.png", np.zeros((32, 32), np.uint16), mode="I;16")
    add(tmp_path, "x[1 0].png", labels())
    add(tmp_path, "both.png", labels())
    add(tmp_path, "tiny.png", labels(8), size=8)
    add(tmp_path, "strip.png", labels(700)[:32], size=32)
    Image.new("RGB", (700, 32)).save(tmp_path / "img" / "strip.png")
    (tmp_path / "img" / "both.png").write_bytes(b"no image")
    (tmp_path / "mask" / "both.png").write_bytes(b"no mask")
    Image.fromarray(labels()).save(tmp_path / "mask" / "orphan.png")
    found = problems(tmp_path, profile)
    expected = {
        "alone.png has no mask": 1,
        "orphan.png has no image": 1,
        "size.png is 33 x 33 px, its image 32 x 32 px": 1,
        f"value.png holds label 7; {EXPECTED}": 1,
        "colour.png has mode RGB; save the mask as an 8-bit palette or grey PNG": 1,
        "deep.png has mode I;16": 1,
        "x[1 0].png has 2 labels, profile wsss4luad has 3 classes": 1,
        "both.png cannot be read as": 2,
        "tiny.png is 8 x 8 px; give an image of at least 32 px on each side": 1,
        "strip.png is 700 x 32 px, one side more than 20 times the other": 1,
    }
    for text, count in expected.items():
        assert sum(text in line for line in found) == count, (text, found)
    assert len(found) == sum(expected.values())
    with pytest.raises(DatasetError, match=r"11 problems, the first: .*alone\.png has no mask"):
        read_split(tmp_path, profile)


def test_two_images_of_one_stem_are_told_apart(tmp_path: Path, profile: Profile) -> None:
    add(tmp_path, "a.png", labels())
    add(tmp_path, "a.jpg", labels())
    (line,) = problems(tmp_path, profile)
    assert "a.jpg" in line and "a.png have one mask; rename one" in line


def test_the_folder_above_the_splits_names_them(tmp_path: Path, profile: Profile) -> None:
    add(tmp_path / "val", "a.png", labels())
    add(tmp_path / "test", "a.png", labels())
    with pytest.raises(DatasetError) as caught:
        read_split(tmp_path, profile)
    assert f"give {tmp_path / 'val'} or {tmp_path / 'test'}" in str(caught.value)


def test_folders_without_a_split_say_what_one_is(tmp_path: Path, profile: Profile) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(DatasetError, match="give a folder that holds img and mask"):
            read_split(folder, profile)
    (tmp_path / "img").mkdir()
    (tmp_path / "mask").mkdir()
    with pytest.raises(DatasetError, match="holds no PNG or JPEG image"):
        read_split(tmp_path, profile)


def test_a_file_changed_after_the_check_is_an_error(tmp_path: Path, profile: Profile) -> None:
    add(tmp_path, "a.png", labels())
    (item,) = read_split(tmp_path, profile)
    Image.fromarray(labels(35)).save(item.mask)
    with pytest.raises(InputError, match="35 x 35 px, its image 32 x 32 px"):
        read_truth(item, profile.num_classes)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_masks_of_few_bits_keep_their_labels(tmp_path: Path, bits: int) -> None:
    truth = labels(high=min(4, 2**bits))
    mask = Image.fromarray(truth)
    mask.putpalette([0, 0, 0] * min(256, 2**bits))
    mask.save(tmp_path / "mask.png", bits=bits)
    assert np.array_equal(read_mask(tmp_path / "mask.png", 3), truth)


def test_labels_come_from_the_name_or_else_from_the_mask(tmp_path: Path, profile: Profile) -> None:
    truth = np.full((32, 32), 3, np.uint8)
    truth[0, 0], truth[7, 7] = 0, 2
    add(tmp_path, "a.png", truth)
    add(tmp_path, "b-[0, 1, 0].png", truth)
    plain, named = read_split(tmp_path, profile)
    assert labels_of(plain, truth, profile) == (1, 0, 1)
    assert labels_of(named, truth, profile) == (0, 1, 0)
