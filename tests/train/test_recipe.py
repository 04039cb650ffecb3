"""Recipes: those that are shipped, and those that are wrong."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, asdict
from pathlib import Path
from typing import Any

import pytest

from sshr_deploy.errors import RecipeError
from sshr_deploy.train.recipe import (
    BatchNormMode,
    HfrmTraining,
    Optimiser,
    TrainingPrecision,
    load_recipe,
    recipe_fields,
    recipe_from,
    shipped_recipes,
)


def test_shipped_recipes_are_the_four_that_the_help_names() -> None:
    assert shipped_recipes() == ["fast", "paper", "scratch", "smoke"]
    for name in shipped_recipes():
        assert load_recipe(name).name == name


def test_paper_holds_the_published_values() -> None:
    paper = load_recipe("paper")
    assert (paper.epochs, paper.batch, paper.seed) == (21, 20, 42)
    assert (paper.optimiser, paper.learning_rate) == (Optimiser.SGD, 0.01)
    assert (paper.bias_factor, paper.new_layer_factor) == (2, 10)
    assert (paper.momentum, paper.weight_decay, paper.poly_power) == (5e-4, 5e-4, 0.9)
    assert paper.warmup_share == 0
    assert paper.batch_norm is BatchNormMode.FROZEN
    assert paper.freeze_stem
    assert (paper.precision, paper.hfrm) == (TrainingPrecision.FP32, HfrmTraining.POOLED)
    assert asdict(paper.augmentation) == {"flips": True, "rotations": False, "stain_jitter": 0}


def test_fast_differs_from_paper_in_speed_alone() -> None:
    paper, fast = recipe_fields(load_recipe("paper")), recipe_fields(load_recipe("fast"))
    differing = {k for k in paper if paper[k] != fast[k]}
    speed = {"precision", "channels_last_on_cuda", "compile_on_cuda"}
    assert differing == {"name", "title", *speed}


def test_scratch_learns_everything() -> None:
    scratch = load_recipe("scratch")
    assert scratch.batch_norm is BatchNormMode.LEARN
    assert not scratch.freeze_stem
    assert scratch.momentum == 0.9


def test_a_recipe_survives_json() -> None:
    recipe = load_recipe("scratch")
    assert recipe_from(json.loads(json.dumps(recipe_fields(recipe))), "again") == recipe


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        load_recipe("paper").epochs = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"epochs": 0}, "epochs"),
        ({"batch": "many"}, "batch"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"momentum": 1.0}, "momentum"),
        ({"optimiser": "lion"}, "optimiser"),
        ({"precision": "fp16"}, "precision"),
        ({"augmentation": {"flip": True}}, "augmentation.flip"),
        ({"augmentation": {"stain_jitter": 2}}, "augmentation.stain_jitter"),
        ({"lr": 0.1}, "lr"),
        ({"seed": -1}, "seed"),
        ({"checkpoint_minutes": 0}, "checkpoint_minutes"),
        ({"precise_statistics": -1}, "precise_statistics"),
        ({"average_weights": 1}, "average_weights"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], named: str) -> None:
    content = {**recipe_fields(load_recipe("smoke")), **change}
    with pytest.raises(RecipeError, match=f"recipe mine: {named}"):
        recipe_from(content, "recipe mine")


def test_all_wrong_fields_are_listed_at_once() -> None:
    content = {**recipe_fields(load_recipe("smoke")), "epochs": 0, "lr": 1, "momentum": 2}
    del content["name"]
    with pytest.raises(RecipeError) as caught:
        recipe_from(content, "recipe mine")
    fields = [line.removeprefix("recipe mine: ").split(":")[0] for line in caught.value.problems]
    assert sorted(fields) == ["epochs", "lr", "momentum", "name"]
    assert str(caught.value).startswith("recipe mine has 4 problems, the first: ")
    assert caught.value.problems[0].removeprefix("recipe mine") in str(caught.value)


def test_unknown_names_and_bad_files_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="choose fast, paper, scratch, smoke"):
        load_recipe("papre")
    broken = tmp_path / "mine.toml"
    broken.write_text("epochs = = 2")
    for path, why in ((broken, "not valid TOML"), (tmp_path / "no.toml", "cannot be read")):
        with pytest.raises(RecipeError, match=why):
            load_recipe(str(path))


def test_titles_are_short_and_counts_are_whole_numbers() -> None:
    fields = recipe_fields(load_recipe("smoke"))
    for change, named in (({"title": "x" * 201}, "title"), ({"epochs": True}, "epochs")):
        with pytest.raises(RecipeError, match=named):
            recipe_from({**fields, **change}, "mine")
