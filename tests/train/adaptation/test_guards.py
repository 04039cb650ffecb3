from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sshr_deploy.model.checkpoint import load_checkpoint
from sshr_deploy.runtime.pipeline.tissue_patches import TissuePatches
from sshr_deploy.train.adaptation.guards import (
    checks_of,
    look_at_slides,
    objections_to_labels,
    objections_to_slides,
)
from sshr_deploy.train.adaptation.tuning import Predicted

NAMES = ("tumour", "stroma", "normal")


def predicted(*cells: int, prob: float = 0.5) -> Predicted:
    """Label maps with so many cells of each class."""
    labels = np.repeat(np.arange(len(cells), dtype=np.uint8), cells)
    return Predicted(labels.reshape(1, 1, -1), np.full((1, len(cells)), prob, np.float32))


def found(patches: NDArray[np.uint8]) -> TissuePatches:
    names = tuple(Path(f"{index}.svs") for index in range(len(patches)))
    return TissuePatches(patches, "", (), names, np.arange(len(patches)))


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ((50, 40, 10), (60, 30, 10), ()),
        ((50, 40, 10), (57, 40, 3), ()),
        ((50, 40, 10), (59, 40, 1), ("normal would fall from 10.0% of the tissue to 1.0%",)),
        ((50, 46, 4), (50, 50, 0), ()),  # too small to say
        ((95, 5, 0), (90, 10, 0), ()),
        ((96, 4, 0), (90, 10, 0), ("as trained, sees tumour in 96.0%",)),
        (
            (50, 30, 20),
            (1, 99, 0),
            ("once adapted, sees stroma in 99.0%", "tumour would fall", "normal would fall"),
        ),
    ],
)
def test_one_class_and_classes_that_vanish_are_objected_to(
    before: tuple[int, ...], after: tuple[int, ...], words: tuple[str, ...]
) -> None:
    first = predicted(*before)
    said = objections_to_labels(first, NAMES) + objections_to_labels(
        first, NAMES, predicted(*after)
    )
    assert len(said) == len(words)
    assert all(word in line for word, line in zip(words, said, strict=True))


@pytest.mark.parametrize(
    ("before", "after", "trained", "words"),
    [
        # half of the cells keep their label
        ((90, 10, 0), (40, 60, 0), (0.4, 0.5, 0.1), ("tumour is 40.0% .* and 90.0% of .* 50.0%",)),
        ((90, 10, 0), (40, 60, 0), None, ()),
        ((60, 30, 10), (20, 70, 10), (0.4, 0.5, 0.1), ()),  # the mix of training
        ((90, 10, 0), (65, 35, 0), (0.4, 0.5, 0.1), ()),  # three quarters keep theirs
    ],
)
def test_another_mix_of_classes_is_objected_to_where_labels_change(
    before: tuple[int, ...],
    after: tuple[int, ...],
    trained: tuple[float, ...] | None,
    words: tuple[str, ...],
) -> None:
    first, then = predicted(*before), predicted(*after)
    said = objections_to_labels(first, NAMES, then, training_shares=trained)
    assert len(said) == len(words)
    assert all(re.search(word, line) for word, line in zip(words, said, strict=True))


def test_a_profile_of_one_class_is_never_one_sided() -> None:
    assert objections_to_labels(predicted(100), ("tumour",)) == []


def test_checks_are_counted_by_cells() -> None:
    before, after = predicted(5, 5), predicted(4, 6, prob=1.0)
    checks = checks_of(before, after, 0.25)
    assert checks.agreement == 0.9
    assert (checks.shares_before, checks.shares_after) == ((0.5, 0.5), (0.4, 0.6))
    assert checks.entropy_before == pytest.approx(np.log(2))
    assert checks.entropy_after == pytest.approx(0, abs=1e-9)
    assert checks.slides_apart == 0.25


def test_few_slides_and_slides_unlike_each_other_are_objected_to(
    tissue: NDArray[np.uint8], learned: Path
) -> None:
    layer = load_checkpoint(learned).conv1a.weight.detach().numpy()
    alike = found(tissue)
    slides = look_at_slides(alike, layer, 1.0)
    assert objections_to_slides(alike, slides) == []
    few = found(tissue[:2])
    (line,) = objections_to_slides(few, look_at_slides(few, layer, 1.0))
    assert "images with tissue: 2, too few" in line and "give at least 3" in line
    pale = (255 - (255 - tissue.astype(int)) // 3).astype(np.uint8)
    mixed = found(np.concatenate([pale, tissue[1:2] // 3]))
    slides = look_at_slides(mixed, layer, 1.0)
    assert slides.farthest == Path("4.svs")
    (line,) = objections_to_slides(mixed, slides)
    assert line.startswith("4.svs is stained unlike the others") and "leave it out" in line
