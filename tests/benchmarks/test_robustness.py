"""Scores under perturbations, against the same changes made in files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sshr_deploy.benchmarks.perturbations import CLEAN, PERTURBATIONS
from sshr_deploy.benchmarks.robustness import Subject, distinct_names, measure_robustness
from sshr_deploy.errors import UsageError
from sshr_deploy.profiles import Profile, load_profile
from sshr_deploy.runtime.evaluation.evaluate import evaluate_split
from sshr_deploy.runtime.evaluation.split import read_split, read_truth
from sshr_deploy.runtime.settings import Mode
from tests.runtime.colour_images import ColourSession, picture

SOME = [CLEAN, *(one for one in PERTURBATIONS if one.name in ("tint", "noise", "scale-0.90"))]


class _Blind(ColourSession):
    """Says the same of every image."""

    def stream(self, batches: Any, rule: Any = None) -> Any:
        return super().stream(((key, np.full_like(rgb, 40)) for key, rgb in batches), rule)


def subject(name: str, session: ColourSession, profile: Profile) -> Subject:
    return Subject(name, session, None, profile, {"kind": "checkpoint"}, batch=2)


@pytest.fixture
def split(tmp_path: Path) -> Path:
    folder = tmp_path / "val"
    for part in ("img", "mask"):
        (folder / part).mkdir(parents=True)
    for seed, (height, width) in enumerate([(90, 110), (64, 300)]):
        Image.fromarray(picture(height, width, seed)).save(folder / "img" / f"{seed}.png")
        truth = picture(height, width, seed + 50)[..., 0] // 64
        Image.fromarray(truth).save(folder / "mask" / f"{seed}.png")
    return folder


def test_rows_are_the_scores_of_images_changed_in_files(
    split: Path, profile: Profile, tmp_path: Path
) -> None:
    images = read_split(split, profile)
    seen: list[None] = []
    report = measure_robustness(
        split, images, [subject("a", ColourSession(), profile), subject("b", _Blind(), profile)],
        mode=Mode.REFERENCE, perturbations=SOME, on_image=lambda: seen.append(None),
    )  # fmt: skip
    report = json.loads(json.dumps(report))
    assert len(seen) == 2 * len(SOME) * len(images)
    first, other = (model["rows"] for model in report["models"])
    for one, row, beside in zip(SOME, first, other, strict=True):
        folder = tmp_path / one.name
        for part in ("img", "mask"):
            (folder / part).mkdir(parents=True)
        for item in images:
            rgb, truth = one.apply_to_truth(*read_truth(item, 3), item.name)
            Image.fromarray(rgb).save(folder / "img" / item.name)
            Image.fromarray(truth).save(folder / "mask" / item.name)
        changed = evaluate_split(read_split(folder, profile), ColourSession(), profile)
        scores = changed.tally.scores()
        assert row["perturbation"] == one.name
        assert row["confusion"] == changed.tally.confusion.tolist()
        assert (row["mean_iou"], row["class_iou"]) == (scores.mean_iou, list(scores.class_iou))
        assert row["lost_mean_iou"] == first[0]["mean_iou"] - scores.mean_iou
        assert row["gained_mean_iou"] == 0 and set(row["gained_class_iou"]) <= {0, None}
        assert beside["gained_mean_iou"] == beside["mean_iou"] - row["mean_iou"]
    assert [row["lost_mean_iou"] for row in other[:3]] == [0, 0, 0]
    assert len({row["mean_iou"] for row in first}) == len(SOME)


def test_the_document_says_what_was_measured(split: Path, profile: Profile) -> None:
    images = read_split(split, profile)
    report = measure_robustness(
        split, images, [subject("a", ColourSession(), profile)], mode=Mode.REFERENCE
    )
    assert (report["benchmark"], report["schema_version"]) == ("robustness", 1)
    assert [one["name"] for one in report["perturbations"]] == [p.name for p in PERTURBATIONS]
    assert report["classes"] == list(profile.class_names)
    assert report["split"] == {"path": str(split), "images": 2}
    assert report["environment"]["processor"]
    (model,) = report["models"]
    assert model["kind"] == "checkpoint" and model["engine"]["engine"]
    assert len(model["rows"]) == len(PERTURBATIONS)


def test_other_classes_are_refused(split: Path, profile: Profile) -> None:
    four = subject("four", ColourSession(), load_profile("luad"))
    with pytest.raises(UsageError, match=r"^four has the classes .*, three tumour, .* one set of"):
        measure_robustness(
            split, (), [subject("three", ColourSession(), profile), four], mode=Mode.REFERENCE
        )


def test_names_are_as_short_as_they_can_be() -> None:
    assert distinct_names([Path("/x/a.safetensors")]) == ["a.safetensors"]
    both = [Path("/x/one/last.safetensors"), Path("/x/two/last.safetensors")]
    assert distinct_names(both) == ["one/last.safetensors", "two/last.safetensors"]
    assert distinct_names([Path("/last"), Path("/x/last")]) == ["//last", "x/last"]
    with pytest.raises(UsageError, match=r"two/last\.safetensors is given twice"):
        distinct_names([*both, Path("/x/one/../two/last.safetensors")])
