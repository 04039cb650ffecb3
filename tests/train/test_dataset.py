"""Training sets: what is read, and that everything unusable is listed at once."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sshr_deploy.errors import DatasetError, InputError
from sshr_deploy.profiles import Profile, load_profile
from sshr_deploy.train.dataset import fingerprint, read_training_set


def _save(path: Path, side: int = 32) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((side, side, 3), 200, np.uint8)).save(path)
    return path


def _profile(classes: int) -> Profile:
    shipped = load_profile("luad")
    return shipped.model_copy(update={"classes": shipped.classes[:classes]})


def test_patches_come_sorted_with_the_labels_of_their_names(
    tmp_path: Path, profile: Profile
) -> None:
    root = tmp_path / "training"
    for name in ("b[1 0 0].png", "a/z[011].JPG", "a.b[000].jpeg", "A-[0, 0, 1].png"):
        _save(root / name)
    _save(root / ".hidden[111].png")
    _save(root / ".cache" / "x[111].png")
    (root / "notes.txt").write_text("no image")
    (root / "folder[111].png").mkdir()
    seen: list[tuple[int, int]] = []
    patches = read_training_set(tmp_path, profile, lambda *done: seen.append(done))
    assert [(p.path.relative_to(root).as_posix(), p.labels) for p in patches] == [
        ("A-[0, 0, 1].png", (0, 0, 1)),
        ("a.b[000].jpeg", (0, 0, 0)),
        ("a/z[011].JPG", (0, 1, 1)),
        ("b[1 0 0].png", (1, 0, 0)),
    ]
    assert seen == [(k, 4) for k in range(1, 5)]


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("x[1].png", (1,)),
        ("x-[0, 1, 1].png", (0, 1, 1)),
        ("x[1 0 0 1].png", (1, 0, 0, 1)),
        ("x[0110].png", (0, 1, 1, 0)),
    ],
)
def test_any_number_of_classes(tmp_path: Path, name: str, labels: tuple[int, ...]) -> None:
    _save(tmp_path / "training" / name)
    assert read_training_set(tmp_path, _profile(len(labels)))[0].labels == labels


def test_everything_unusable_is_listed_at_once(tmp_path: Path, profile: Profile) -> None:
    root = tmp_path / "training"
    for k in range(20):
        _save(root / f"good{k}[1 0 1].png")
    whole = (root / "good0[1 0 1].png").read_bytes()
    (root / "half[1 0 1].png").write_bytes(whole[: len(whole) // 2])
    (root / "both.png").write_bytes(b"neither image nor label")
    _save(root / "sub" / "short[10].png")
    before = list(warnings.filters)
    with pytest.raises(DatasetError) as caught:
        read_training_set(tmp_path, profile)
    problems = caught.value.problems
    assert len(problems) == 4
    assert [p.partition(" ")[0] for p in problems[:1]] == ["both.png"]
    assert "both.png cannot be read" in problems[1]
    assert "half[1 0 1].png cannot be read" in problems[2]
    assert problems[3].startswith("sub/short[10].png has 2 labels")
    text = str(caught.value)
    assert text.startswith("3 of 23 training files of ")
    assert problems[0] in text
    assert not any("\n" in line for line in (text, *problems))
    assert list(warnings.filters) == before


@pytest.mark.parametrize("made", ["", "training", "training/deep/er", "val/img"])
def test_a_folder_that_is_no_dataset_shows_the_layout(
    tmp_path: Path, profile: Profile, made: str
) -> None:
    (tmp_path / made).mkdir(parents=True, exist_ok=True)
    with pytest.raises(DatasetError, match=r"training.* a dataset holds training/ with PNG"):
        read_training_set(tmp_path, profile)


def test_an_interrupted_check_stops(tmp_path: Path, profile: Profile) -> None:
    for k in range(3):
        _save(tmp_path / "training" / f"{k}[100].png")

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_training_set(tmp_path, profile, interrupt)


def test_the_fingerprint_is_that_of_names_labels_and_sizes(
    tmp_path: Path, profile: Profile
) -> None:
    first, moved = tmp_path / "first", tmp_path / "moved"
    for root in (first, moved):
        _save(root / "training" / "a" / "x[100].png")
        _save(root / "training" / "y[010].png")
    patches = read_training_set(first, profile)
    print_of_first = fingerprint(patches, first)
    assert print_of_first == fingerprint(read_training_set(moved, profile), moved)
    size = patches[0].path.stat().st_size
    content = f"training/a/x[100].png\0(1, 0, 0)\0{size}\0training/y[010].png\0(0, 1, 0)\0{size}\0"
    assert print_of_first == hashlib.sha256(content.encode()).hexdigest()

    with (moved / "training" / "y[010].png").open("ab") as file:
        file.write(b"\0")
    larger = fingerprint(read_training_set(moved, profile), moved)
    (moved / "training" / "y[010].png").rename(moved / "training" / "z[010].png")
    renamed = fingerprint(read_training_set(moved, profile), moved)
    assert len({print_of_first, larger, renamed, fingerprint(patches[:1], first)}) == 4

    patches[0].path.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        fingerprint(patches, first)
