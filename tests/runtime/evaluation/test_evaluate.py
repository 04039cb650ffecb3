from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sshr_deploy.errors import DatasetError
from sshr_deploy.geometry import Geometry
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.evaluation.evaluate import evaluate_split
from sshr_deploy.runtime.evaluation.report import report
from sshr_deploy.runtime.evaluation.seams import Seams
from sshr_deploy.runtime.evaluation.split import TruthImage, read_split, read_truth
from sshr_deploy.runtime.pipeline.images import parts_of, predict_images
from sshr_deploy.runtime.settings import LargeImages, Mode
from sshr_deploy.scores import Tally, confusion_matrix
from tests.runtime.colour_images import TILES, WHOLE, ColourSession, picture, predict_image


@pytest.fixture
def split(tmp_path: Path, profile: Profile) -> tuple[TruthImage, ...]:
    sizes = [(224, 224), (500, 300), (90, 350), (700, 40), (336, 336), (224, 224), (40, 32)]
    for part in ("img", "mask"):
        (tmp_path / part).mkdir()
    for seed, (height, width) in enumerate(sizes):
        Image.fromarray(picture(height, width, seed)).save(tmp_path / "img" / f"{seed}.png")
        truth = picture(height, width, seed + 50)[..., 0] // 64
        Image.fromarray(truth).save(tmp_path / "mask" / f"{seed}.png")
    return read_split(tmp_path, profile)


@pytest.mark.parametrize("large", [TILES, WHOLE])
def test_a_split_is_scored_pixel_by_pixel(
    split: tuple[TruthImage, ...], profile: Profile, large: LargeImages
) -> None:
    seen: list[str] = []
    evaluation = evaluate_split(
        split, ColourSession(), profile, large=large, batch=3, samples=3,
        on_image=lambda item: seen.append(item.name),
    )  # fmt: skip
    expected = np.zeros((3, 4), np.int64)
    hits = np.zeros(3, np.int64)
    exact, seams = 0, Seams()
    for item in split:
        rgb, truth = read_truth(item, 3)
        mask, prob, *_ = predict_image(rgb, ColourSession(), profile, large, 1)
        for t, p in zip(truth.ravel().tolist(), mask.ravel().tolist(), strict=True):
            if t < 3:
                expected[t, p] += 1
        right = [(prob[c] > 0.5) == (c in truth) for c in range(3)]
        hits += right
        exact += all(right)
        parts = parts_of(len(mask), mask.shape[1], large)
        mask[truth == 3] = 3
        rows, columns = [p.top for p in parts], [p.left for p in parts]
        seams += Seams.of_mask(mask, 3, rows=rows, columns=columns)
    tally = evaluation.tally
    assert np.array_equal(tally.confusion, expected)
    assert np.array_equal(tally.label_hits, hits)
    assert (tally.exact_matches, tally.images) == (exact, len(split))
    assert evaluation.seams == seams
    assert (seams.border_pairs > 0) == (large is TILES)
    assert seen == [item.name for item in split]
    assert [s.name for s in evaluation.samples] == ["0.png", "3.png", "6.png"]


def test_images_and_labels_are_scored_as_they_are_changed(
    split: tuple[TruthImage, ...], profile: Profile, tmp_path: Path
) -> None:
    """A change in memory and the same in files; it is told whose image it changes."""

    def rolled(
        rgb: NDArray[np.uint8], truth: NDArray[np.uint8], name: str
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        shift = int(name.removesuffix(".png")) + 1
        return np.roll(rgb, shift, 2)[:-8], truth[:-8] // 2

    for part in ("img", "mask"):
        (tmp_path / "changed" / part).mkdir(parents=True)
    for item in split:
        rgb, truth = rolled(*read_truth(item, 3), item.name)
        Image.fromarray(rgb).save(tmp_path / "changed" / "img" / item.name)
        Image.fromarray(truth).save(tmp_path / "changed" / "mask" / item.name)
    found = evaluate_split(split, ColourSession(), profile, change=rolled)
    changed = read_split(tmp_path / "changed", profile)
    expected = evaluate_split(changed, ColourSession(), profile)
    assert np.array_equal(found.tally.to_vector(), expected.tally.to_vector())
    assert found.seams == expected.seams
    assert np.array_equal(found.samples[1].rgb, expected.samples[1].rgb)
    plain = evaluate_split(split, ColourSession(), profile)
    assert not np.array_equal(found.tally.confusion, plain.tally.confusion)


def test_shares_of_two_processes_add_up(split: tuple[TruthImage, ...], profile: Profile) -> None:
    both = [evaluate_split(split[i::2], ColourSession(), profile).tally for i in range(2)]
    whole = evaluate_split(split, ColourSession(), profile).tally
    assert np.array_equal((both[0] + both[1]).to_vector(), whole.to_vector())
    nothing = evaluate_split([], ColourSession(), profile)
    assert np.array_equal(nothing.tally.to_vector(), Tally.empty(3).to_vector())
    assert nothing.samples == ()


def test_large_images_are_scored_as_fields(split: tuple[TruthImage, ...], profile: Profile) -> None:
    fields = ColourSession(Geometry(448, 56))
    seamless = evaluate_split(split, ColourSession(), profile, fields=lambda: fields)
    reference = evaluate_split(split, ColourSession(), profile)
    images = [(item, read_truth(item, 3)) for item in split]
    expected, seams = np.zeros((3, 4), np.int64), Seams()
    predictions = predict_images(
        ((truth, rgb) for _, (rgb, truth) in images),
        ColourSession(),
        profile,
        fields=lambda: fields,
    )
    for truth, (mask, *_) in predictions:
        expected += confusion_matrix(truth, mask, 3)
        parts = parts_of(len(mask), mask.shape[1], TILES)
        rows, columns = [p.top for p in parts], [p.left for p in parts]
        scored = np.where(truth == 3, truth, mask)
        seams += Seams.of_mask(scored, 3, rows=rows, columns=columns)
    assert np.array_equal(seamless.tally.confusion, expected)
    assert seamless.seams == seams
    assert seamless.seams.border_pairs == reference.seams.border_pairs > 0
    assert not np.array_equal(reference.tally.confusion, expected)
    document, alone = (
        report(
            evaluation, profile, fields.info, {},
            split="val", mode=mode, large=TILES, batch=8, reference=beside,
        )
        for evaluation, mode, beside in (
            (seamless, Mode.SEAMLESS, reference),
            (reference, Mode.REFERENCE, None),
        )
    )  # fmt: skip
    assert document["scores"]["mean_iou"] == seamless.tally.scores().mean_iou
    for key in ("scores", "classes", "confusion", "seconds"):
        assert document["reference"][key] == alone[key]


@pytest.mark.parametrize(("engine", "batch"), [("pytorch-cpu", 8), ("pytorch-cuda", 32)])
def test_the_batch_is_that_of_the_device(
    split: tuple[TruthImage, ...], profile: Profile, engine: str, batch: int
) -> None:
    session = ColourSession()
    session.info = replace(session.info, engine=engine)
    evaluate_split(split * 4, session, profile)
    assert session.batches[0] == batch
    assert all(size == batch for size in session.batches[:-1])


def test_the_report_is_json_and_consistent(split: tuple[TruthImage, ...], profile: Profile) -> None:
    session = ColourSession()
    evaluation = evaluate_split(split, session, profile)
    document = report(
        evaluation, profile, session.info, {"kind": "test"},
        split="val", mode=Mode.REFERENCE, large=TILES, batch=8,
    )  # fmt: skip
    document["engine"] |= {"notes": list(document["engine"]["notes"])}  # JSON has no tuples
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    scores = evaluation.tally.scores()
    assert document["scores"]["mean_iou"] == scores.mean_iou
    assert document["scores"]["seam_ratio"] == evaluation.seams.ratio
    assert [c["iou"] for c in document["classes"]] == list(scores.class_iou)
    assert [c["name"] for c in document["classes"]] == ["tumour", "stroma", "normal"]
    assert sum(c["truth_share"] for c in document["classes"]) == pytest.approx(1)
    assert document["split"]["scored_pixels"] == np.sum(document["confusion"]["pixels"])
    settings = {"mode": "reference", "large": "tiles", "batch": 8, "label_threshold": 0.5}
    assert document["settings"] == settings
    assert document["engine"]["engine"] == "colours"


def test_masks_of_background_only_are_an_error(
    split: tuple[TruthImage, ...], profile: Profile
) -> None:
    for item in split:
        with Image.open(item.mask) as mask:
            blank = Image.new("L", mask.size, 3)
        blank.save(item.mask)
    session = ColourSession()
    evaluation = evaluate_split(split, session, profile)
    with pytest.raises(DatasetError, match="background only"):
        report(
            evaluation, profile, session.info, {},
            split="val", mode=Mode.REFERENCE, large=TILES, batch=8,
        )  # fmt: skip
