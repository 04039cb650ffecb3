"""Rules that are known to be the right ones are found; none is taken that is no better."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from sshr_deploy.errors import DatasetError, UsageError
from sshr_deploy.export import bundle as export_bundle_module
from sshr_deploy.export.bundle import export_bundle
from sshr_deploy.export.graph.deploy import HfrmForm
from sshr_deploy.export.job import ExportOptions
from sshr_deploy.export.reference import PatchSet, shipped_patches
from sshr_deploy.export.rule_fit import (
    CellCounts,
    LabelledImage,
    choose_rule,
    fit_rule,
    rule_text,
    with_rule,
)
from sshr_deploy.geometry import field_geometry
from sshr_deploy.manifest import RuleFit
from sshr_deploy.model import predict
from sshr_deploy.model.checkpoint import PROFILE_KEY, load_checkpoint, save_checkpoint
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.contract import FieldRule
from sshr_deploy.runtime.field_labels import field_rule
from sshr_deploy.runtime.pipeline.image_fields import FieldImage
from tests.conftest import FIELD_PX

FIELD = field_geometry(FIELD_PX)


def _said(profile: Profile, seed: int, size_px: tuple[int, int] = (240, 160)) -> FieldImage[str]:
    """An image of smooth random CAMs and probabilities."""
    rng = np.random.default_rng(seed)
    image = FieldImage("image", size_px, profile, size_px, 1)
    coarse = rng.random((4 * 3, 5, 4), np.float32)
    rows, columns = image.maps.shape[2:]
    smooth = np.stack([cv2.resize(values, (columns, rows)) for values in coarse])
    image.maps[:] = smooth.reshape(image.maps.shape)
    return image


def _labelled(profile: Profile, rule: FieldRule, images: int = 4) -> list[LabelledImage]:
    said = [_said(profile, seed) for seed in range(images)]
    return [LabelledImage(image, image.labels(rule)) for image in said]


@pytest.mark.parametrize(
    "changed",
    [
        {"threshold": 0.5},
        {"weights": (0.2, 0.2, 0.6)},
        {"bias": (0.0, 0.1, 0.0)},
    ],
)
def test_a_planted_rule_is_found(profile: Profile, changed: dict[str, tuple[float, ...]]) -> None:
    usual = field_rule(profile)
    planted = replace(usual, **changed)  # type: ignore[arg-type]
    images = _labelled(profile, planted)
    found, score = choose_rule(images, usual)
    assert score > 0.99
    for image in images:
        assert (image.said.labels(found) == image.truth).mean() > 0.99
    assert field_rule(with_rule(profile, found)) == found


def test_where_nothing_is_to_be_gained_the_rule_stays(profile: Profile) -> None:
    usual = field_rule(profile)
    found, score = choose_rule(_labelled(profile, usual), usual)
    assert (found, score) == (usual, 1.0)


def test_cells_are_counted_by_the_labels_of_their_pixels(profile: Profile) -> None:
    said = _said(profile, 1, (36, 20))
    truth = np.random.default_rng(2).integers(0, 4, (36, 20)).astype(np.uint8)
    rule = FieldRule((1.0, 0.0, 0.0), 0.0)
    counts = CellCounts(LabelledImage(said, truth)).counts(rule)
    labels = said.maps[0].argmax(0)
    expected = np.zeros((3, 4), np.int64)
    for y in range(36):
        for x in range(20):
            if truth[y, x] < 3:
                expected[truth[y, x], labels[y // 8, x // 8]] += 1
    np.testing.assert_array_equal(counts, expected)


def _split(folder: Path, images: list[NDArray[np.uint8]], labels: list[NDArray[np.uint8]]) -> Path:
    for name, pictures in (("img", images), ("mask", labels)):
        (folder / name).mkdir(parents=True)
        for number, picture in enumerate(pictures):
            cv2.imwrite(str(folder / name / f"{number}.png"), picture)
    return folder


def test_a_rule_that_is_no_better_is_not_taken(
    small_checkpoint: Path, profile: Profile, tmp_path: Path
) -> None:
    """Labels are what the network says already, of one field each; a small image has no part."""
    model = load_checkpoint(small_checkpoint)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (448, 448, 3), np.uint8) for _ in range(2)]
    padded = [
        np.pad(image[:, :, ::-1], [(56, 56), (56, 56), (0, 0)], "reflect") for image in images
    ]
    said = [predict(model, field[None], FIELD) for field in padded]
    labels = []
    for output in said:
        image = FieldImage("", (448, 448), profile, (448, 448), 1)
        image.maps[:] = np.concatenate([np.stack(output[:3])[:, 0], output.prob])
        labels.append(image.labels(field_rule(profile)))
    small = rng.integers(0, 256, (100, 100, 3), np.uint8)
    split = _split(tmp_path / "val", [*images, small], [*labels, np.zeros((100, 100), np.uint8)])
    same, fit = fit_rule(model, profile, split, FIELD, on_step=lambda _: None)
    assert same == profile
    assert fit.default_mean_iou > 0.999 and not fit.used
    assert fit.source == "val, 2 images"
    assert "NOT better, so the profile's own rule is kept" in rule_text(fit, profile)


def test_one_image_is_too_few(small_checkpoint: Path, profile: Profile, tmp_path: Path) -> None:
    zeros = [np.zeros((448, 448), np.uint8), np.zeros((300, 300), np.uint8)]
    split = _split(tmp_path / "val", [np.dstack([z] * 3) for z in zeros], zeros)
    with pytest.raises(UsageError, match=r"has 1 image to fit a rule on.*needs two at least"):
        fit_rule(load_checkpoint(small_checkpoint), profile, split, FIELD, on_step=lambda _: None)


def test_what_cannot_be_fitted_is_refused_first(
    small_checkpoint: Path, profile: Profile, tmp_path: Path
) -> None:
    for options, error, said in (
        (ExportOptions(field_px=0, fit_rule=tmp_path), UsageError, "`field` 0 makes none"),
        (ExportOptions(fit_rule=tmp_path), DatasetError, "img"),
        (
            ExportOptions(field_px=900),
            UsageError,
            "900 is no side .*choose 896 or 1008, or 0",
        ),
        (ExportOptions(field_px=100), UsageError, "choose 448 or 560, or 0 for none"),
    ):
        with pytest.raises(error, match=said):
            export_bundle(small_checkpoint, profile, tmp_path / "b", shipped_patches(), options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("exported_before")
def test_the_rule_travels_in_the_profile_and_the_record_beside_the_graphs(
    small_checkpoint: Path, profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint's own profile is not called another one for it."""
    own = tmp_path / "own.safetensors"
    text = json.dumps(profile.model_dump(mode="json"))
    save_checkpoint(load_checkpoint(small_checkpoint), own, metadata={PROFILE_KEY: text})
    planted = FieldRule((0.4, 0.2, 0.4), 0.3, 99.0, (0.0, 0.1, 0.0))
    record = RuleFit(
        source="val, 9 images", mean_iou=0.5, default_mean_iou=0.4, used=True,
        gate_threshold=0.3, cam_weights=planted.weights, class_bias=planted.bias,
    )  # fmt: skip
    monkeypatch.setattr(
        export_bundle_module, "fit_rule", lambda *_, **__: (with_rule(profile, planted), record)
    )
    monkeypatch.setattr(export_bundle_module, "check_split", lambda _: None)
    one, said = PatchSet(shipped_patches().images[:1], "one"), list[str]()
    options = ExportOptions(form=HfrmForm.DEPTHWISE, field_px=FIELD_PX, fit_rule=tmp_path)
    bundle = export_bundle(own, profile, tmp_path / "b", one, options, on_step=said.append)
    manifest = bundle.manifest
    assert manifest.fields is not None and manifest.fields.rule_fit == record
    assert field_rule(manifest.profile) == planted
    assert manifest.carried_profile is None
    (line,) = (text for text in said if text.startswith("rule fitted"))
    assert line == (
        "rule fitted on val, 9 images: gate 0.3, levels 0.4, 0.2, 0.4, bias stroma +0.1; mean IoU "
        "0.5000 on images left out in turn, 0.4000 by the profile's own rule: it is used"
    )
