"""The synthetic textures: repeatable, and labels that say what the label maps show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sshr_deploy.profiles import load_profile
from sshr_deploy.train.textures import CLASS_NAMES, GLASS, TexturePatch, make_patches

PROFILE = Path(__file__).parents[2] / "demo" / "profile.toml"


@pytest.fixture(scope="module")
def patches() -> list[TexturePatch]:
    return make_patches(seed=3, count=40, size_px=96)


def test_one_seed_gives_the_same_patches(patches: list[TexturePatch]) -> None:
    again = make_patches(seed=3, count=3, size_px=96)
    for a, b in zip(patches, again, strict=False):
        assert np.array_equal(a.rgb, b.rgb)
        assert np.array_equal(a.label_map, b.label_map)
    other = make_patches(seed=4, count=1, size_px=96)
    assert not np.array_equal(other[0].rgb, patches[0].rgb)


def test_shapes_and_types() -> None:
    patch = make_patches(seed=0, count=1)[0]
    assert patch.rgb.shape == (224, 224, 3)
    assert patch.label_map.shape == (224, 224)
    assert patch.labels.shape == (len(CLASS_NAMES),)
    assert {patch.rgb.dtype, patch.label_map.dtype, patch.labels.dtype} == {np.dtype(np.uint8)}


def test_labels_are_the_textures_of_the_label_map(patches: list[TexturePatch]) -> None:
    for patch in patches:
        present = set(np.unique(patch.label_map).tolist()) - {GLASS}
        assert present == set(np.flatnonzero(patch.labels).tolist())
        assert 1 <= len(present) <= 3


def test_every_texture_and_glass_occur(patches: list[TexturePatch]) -> None:
    seen = np.unique(np.concatenate([p.label_map.ravel() for p in patches]))
    assert seen.tolist() == [0, 1, 2, 3, GLASS]
    assert sum(p.labels.sum() > 1 for p in patches) > 10


def test_glass_is_bright_and_the_dark_texture_darkest(patches: list[TexturePatch]) -> None:
    pixels = np.concatenate([p.rgb.reshape(-1, 3) for p in patches]).mean(axis=1)
    labels = np.concatenate([p.label_map.ravel() for p in patches])
    median = [float(np.median(pixels[labels == k])) for k in range(GLASS + 1)]
    assert median[GLASS] > 235
    assert max(median[:GLASS]) < 225
    assert min(median) == median[CLASS_NAMES.index("dark layers")]


def test_the_demo_profile_names_these_textures() -> None:
    profile = load_profile(str(PROFILE))
    assert profile.name == "demo"
    assert "synthetic" in profile.title.lower()
    assert tuple(c.name for c in profile.classes) == CLASS_NAMES
    assert profile.mpp_um == 1.0
    assert len(set(profile.palette)) == GLASS + 1
