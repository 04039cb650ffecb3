"""The demo's dataset, and the committed checkpoint that was trained on it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from sshr_deploy.model.checkpoint import load_checkpoint
from sshr_deploy.profiles import load_profile
from sshr_deploy.runtime.evaluation.evaluate import evaluate_split
from sshr_deploy.runtime.evaluation.split import read_split
from sshr_deploy.train import demo_dataset
from sshr_deploy.train.dataset import read_training_set
from sshr_deploy.train.model_session import ModelSession
from sshr_deploy.train.recipe import load_recipe, recipe_fields
from sshr_deploy.train.textures import CLASS_NAMES, GLASS, make_patches

DEMO = Path(__file__).parents[2] / "demo"
CHECKPOINT = DEMO / "checkpoint.safetensors"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "dataset"
    assert demo_dataset.main([str(folder), "--training", "3", "--val", "8"]) == 0
    return folder


def test_it_has_the_layout_of_every_dataset(dataset: Path) -> None:
    profile = load_profile(str(DEMO / "profile.toml"))
    assert tuple(c.name for c in profile.classes) == CLASS_NAMES
    expected = make_patches(0, 3)
    for patch, texture in zip(read_training_set(dataset, profile), expected, strict=True):
        assert patch.labels == tuple(texture.labels)
        assert np.array_equal(np.asarray(Image.open(patch.path)), texture.rgb)
    for split in ("val", "test"):
        assert len(read_split(dataset / split, profile)) == 8
        masks = [np.asarray(Image.open(p)) for p in (dataset / split / "mask").iterdir()]
        assert {GLASS, 0} < set(np.unique(masks).tolist())


def test_no_two_splits_share_a_patch(dataset: Path) -> None:
    images = [p.read_bytes() for p in dataset.rglob("*.png") if p.parent.name != "mask"]
    assert len(set(images)) == len(images) == 3 + 8 + 8


def test_a_folder_in_use_is_not_written_to(dataset: Path) -> None:
    before = sorted(dataset.rglob("*"))
    with pytest.raises(SystemExit):
        demo_dataset.main([str(dataset)])
    assert sorted(dataset.rglob("*")) == before


def test_the_committed_checkpoint_says_what_it_is_and_how_it_was_made() -> None:
    with safe_open(CHECKPOINT, framework="pt") as file:
        header = file.metadata()
    assert "no medical model" in header["title"]
    assert json.loads(header["profile"])["classes"][0]["name"] == CLASS_NAMES[0]
    recipe = recipe_fields(load_recipe(str(DEMO / "recipe.toml")))
    since = {"precise_statistics": 0, "average_weights": 0.0}  # fields that it was made without
    assert {**json.loads(header["recipe"]), **since} == recipe
    assert CHECKPOINT.stat().st_size < 8_000_000


def test_the_committed_checkpoint_knows_the_textures(dataset: Path) -> None:
    profile = load_profile(str(DEMO / "profile.toml"))
    session = ModelSession(load_checkpoint(CHECKPOINT))
    tally = evaluate_split(read_split(dataset / "test", profile), session, profile).tally
    assert tally.label_accuracy > 0.85
    assert tally.scores().pixel_accuracy > 0.7  # chance is about 0.25
    assert tally.scores().mean_iou > 0.5
