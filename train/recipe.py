"""Recipes: how a network is trained, in one TOML file each.

`load_recipe("paper")` reads a shipped recipe, `load_recipe("path/to/mine.toml")` a user's own.
"""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from importlib import resources
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from sshr_deploy.errors import RecipeError
from sshr_deploy.profiles import invalid_fields
from sshr_deploy.toml_file import read_named_toml, shipped_names

_FROZEN = ConfigDict(extra="forbid", allow_inf_nan=False)
_Positive = Annotated[int, Field(ge=1, le=1_000_000, strict=True)]
_Factor = Annotated[float, Field(gt=0, le=1e6)]


class Optimiser(StrEnum):
    """Which optimiser of PyTorch."""

    SGD = "sgd"
    ADAMW = "adamw"


class BatchNormMode(StrEnum):
    """Treatment of the batch norms in training."""

    FROZEN = "frozen"
    """Running statistics and affine parameters stay as the initial weights have them."""
    LEARN = "learn"


class TrainingPrecision(StrEnum):
    """Type of the convolutions in training; weights and optimiser stay FP32."""

    FP32 = "fp32"
    BF16 = "bf16"


class HfrmTraining(StrEnum):
    """How HFRM is computed in training; all give the same logits and gradients."""

    POOLED = "pooled"
    """Means only, without a 15x15 convolution."""
    FUSED = "fused"
    """The same means by a Triton kernel that reads each feature map once; needs CUDA."""
    PLAIN = "plain"
    """The rectified feature maps, as published."""


@dataclass(frozen=True, config=_FROZEN)
class Augmentation:
    """Random changes of a training patch that keep its labels."""

    flips: bool = True
    """Left-right and top-bottom, each with probability 0.5, as published."""
    rotations: bool = False
    """By 0, 90, 180 or 270 degrees."""
    stain_jitter: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Each stain's concentration c becomes c (1 + u) + v in HED space, u and v uniform in plus or
    minus this."""


@dataclass(frozen=True, config=_FROZEN)
class Recipe:
    """Everything about a run but the data, the profile and the width."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$")]
    """Letters, digits, - and _; at most 40."""
    title: Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f]*$")]
    """Shown to people."""
    epochs: _Positive
    """Passes over the training patches."""
    batch: _Positive
    """Patches a step, over all processes together; an epoch's last incomplete batch is dropped."""
    optimiser: Optimiser
    learning_rate: _Factor
    """Of the backbone's weights, at the end of the warm-up or at the first step without one."""
    momentum: Annotated[float, Field(ge=0, lt=1)]
    """SGD's momentum; AdamW's first beta."""
    weight_decay: Annotated[float, Field(ge=0, le=1)]
    """Of weights; biases have none."""
    batch_norm: BatchNormMode
    freeze_stem: bool
    """Keep conv1a and the b2 blocks as the initial weights have them."""
    bias_factor: _Factor = 2.0
    """Learning rate of biases over that of weights."""
    new_layer_factor: _Factor = 10.0
    """Learning rate of HFRM and the CAM heads over that of the backbone."""
    poly_power: Annotated[float, Field(ge=0, le=10)] = 0.9
    """The learning rate falls with (1 - step / steps) to this power."""
    warmup_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Part of the steps in which the learning rate rises linearly from 0."""
    precision: TrainingPrecision = TrainingPrecision.FP32
    """Of the convolutions."""
    hfrm: HfrmTraining = HfrmTraining.POOLED
    """The way to its logits."""
    channels_last_on_cuda: bool = False
    """The memory format that matrix units read best."""
    compile_on_cuda: bool = False
    """torch.compile."""
    augmentation: Augmentation = Augmentation()
    precise_statistics: Annotated[int, Field(ge=0, le=100_000, strict=True)] = 256
    """Training patches, not augmented, over which the moments of what enters each batch norm are
    measured. Batch norms that learn get them as statistics before an epoch is scored and written,
    at the cost of 1.5 forward passes; best and last checkpoint keep them, for `adapt`. A patch
    takes 12.8 MB at width 64 and in proportion below. 0 for none."""
    average_weights: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay by step of an exponential moving average of the weights, which is then scored and
    written in their place; 0 for none."""
    checkpoint_minutes: _Factor = 5.0
    """A checkpoint is written after each epoch, and within one when so many minutes have passed."""
    seed: Annotated[int, Field(ge=0, lt=2**63, strict=True)] = 42
    """Of the weights, the order of the patches, augmentation and dropout."""


_SHIPPED = resources.files("sshr_deploy.train") / "recipes"
_ADAPTER: TypeAdapter[Recipe] = TypeAdapter(Recipe)


def shipped_recipes() -> list[str]:
    """Names of the recipes inside the package."""
    return shipped_names(_SHIPPED)


def load_recipe(name_or_path: str) -> Recipe:
    """Read a shipped recipe by name, or a user's own from a path that ends in `.toml`.

    Raises:
        RecipeError: unknown name, unreadable file, or fields that are wrong (all of them named).
    """
    content = read_named_toml(name_or_path, _SHIPPED, "recipe", RecipeError)
    return recipe_from(content, f"recipe {name_or_path}")


def recipe_from(content: dict[str, Any], origin: str) -> Recipe:
    """A recipe from its fields, as `recipe_fields` gives them.

    Raises:
        RecipeError: fields are missing, unknown or wrong (all of them named, after `origin`).
    """
    try:
        return _ADAPTER.validate_python(content)
    except ValidationError as error:
        raise invalid_fields(error, origin, RecipeError) from error


def recipe_fields(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain values, for JSON."""
    return asdict(recipe)
