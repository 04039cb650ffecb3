from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sshr_deploy.manifest import Tolerance
from sshr_deploy.precision import Precision
from sshr_deploy.profiles import Profile
from sshr_deploy.runtime.contract import OUTPUT_NAMES, CamBatch, MaskBatch
from sshr_deploy.runtime.engines.qualification import (
    TOLERANCES,
    misses,
    passes_for,
    qualify,
    relative_rms_error,
)
from sshr_deploy.runtime.masks import label_map
from tests.runtime.qualifying import RULE, KnownSession, cams_of, make_reference


@pytest.fixture
def known_profile(profile: Profile) -> Profile:
    weights = profile.cam_weights.model_copy(
        update=dict(zip(("cam_28_1", "cam_28_2", "cam_deep"), RULE.weights, strict=True))
    )
    return profile.model_copy(update={"cam_weights": weights, "gate_threshold": RULE.threshold})


def test_the_reference_itself_qualifies_exactly(known_profile: Profile) -> None:
    found = qualify(KnownSession(), make_reference(truth=True), known_profile)
    assert set(found.cam_relative_error.values()) == {0.0}
    assert found.gates_equal and found.gate_agreement == found.mask_agreement == 1
    assert found.iou is not None and found.iou.drop == 0 and found.iou.mean_iou == 1
    assert [misses(found, tolerance) for tolerance in TOLERANCES.values()] == [[]] * 4


def test_figures_are_those_of_their_definitions(known_profile: Profile) -> None:
    reference = make_reference(3, truth=True)
    session = KnownSession(turn=1)
    found = qualify(session, reference, known_profile)
    equal = pixels = 0
    worst = 1.0
    for index, (height, width) in enumerate(reference.sizes_px.tolist()):
        got = label_map(
            session.infer(reference.patches[index : index + 1]),
            0,
            RULE,
            height_px=height,
            width_px=width,
        )
        assert reference.truth is not None
        same = int((got == reference.truth[index]).sum())
        worst = min(worst, same / got.size)
        equal, pixels = equal + same, pixels + got.size
    assert found.mask_agreement == equal / pixels
    assert found.mask_agreement_worst == worst
    assert found.patches == 3
    assert found.iou is not None and found.iou.reference_mean_iou == 1
    assert found.iou.drop > 0.1
    errors = [
        relative_rms_error(np.roll(cam, 1, 0), cam) for cam in cams_of(reference.patches).cam_deep
    ]
    assert found.cam_relative_error["cam_deep"] == pytest.approx(max(errors))


def test_every_bound_is_told_when_it_is_missed(known_profile: Profile) -> None:
    found = qualify(KnownSession(turn=1), make_reference(truth=True), known_profile)
    strict = Tolerance(
        mask_agreement=1,
        mask_agreement_worst=1,
        cam_relative_error=1e-4,
        gates_equal=True,
        miou_drop=0.005,
    )
    said = "; ".join(misses(found, strict))
    for words in ("cam_28_1", "cam_deep", "gate", "masks agree on", "worst patch", "mean IoU"):
        assert words in said
    assert misses(found, Tolerance(mask_agreement=0)) == []


def test_precisions_get_wider_bounds_the_narrower_they_are() -> None:
    shares = [
        TOLERANCES[p].mask_agreement for p in (Precision.FP32, Precision.FP16, Precision.INT8)
    ]
    assert shares == [0.9995, 0.995, 0.985]
    drops = [TOLERANCES[p].miou_drop for p in (Precision.FP16, Precision.INT8)]
    assert drops == [0.001, 0.005]


def test_without_label_maps_there_is_no_iou(known_profile: Profile) -> None:
    found = qualify(KnownSession(noise=0.01), make_reference(), known_profile)
    assert found.iou is None
    assert found.cam_relative_error["cam_28_1"] > 1e-3 > found.cam_relative_error["cam_28_2"]
    assert not misses(found, Tolerance(mask_agreement=0.5, miou_drop=0.0))


def test_every_patch_is_told(known_profile: Profile) -> None:
    seen: list[int] = []
    qualify(KnownSession(), make_reference(5), known_profile, on_patches=seen.append)
    assert sum(seen) == 5


class WrongInBatches(KnownSession):
    """Right for single patches; of more, those after the first are another network's."""

    def _compute(self, patches: NDArray[np.uint8]) -> CamBatch:
        cams = super()._compute(patches)
        for name in OUTPUT_NAMES:
            output = getattr(cams, name)
            output[1:] = np.roll(output[1:], 1, 1)
        return cams


def test_a_network_that_is_wrong_in_batches_does_not_qualify(known_profile: Profile) -> None:
    reference = make_reference(4)
    single = qualify(WrongInBatches(), reference, known_profile, passes=((1,),))
    assert single.mask_agreement == 1
    usual = qualify(WrongInBatches(), reference, known_profile)
    assert usual.mask_agreement < 0.9 and usual.cam_relative_error["cam_deep"] > 0.1
    filled = qualify(WrongInBatches(), reference, known_profile, passes=((1,), (8,)), fill=True)
    assert filled.mask_agreement < 0.9 and not filled.gates_equal


class OwnMaps(KnownSession):
    """Makes label maps itself; from the second batch on they are of another class."""

    labels_on_device = True

    def __init__(self, wrong_from: int) -> None:
        super().__init__()
        self.wrong_from = wrong_from
        self.sizes: list[int] = []

    def stream(self, batches: Any, rule: Any = None) -> Any:
        if rule is None:
            yield from super().stream(batches)
            return
        for index, (key, result) in enumerate(super().stream(batches, rule)):
            self.sizes.append(len(result.labels))
            turned = (result.labels + 1) % 3 if index >= self.wrong_from else result.labels
            yield key, MaskBatch(turned.astype(np.uint8), result.prob)


def test_label_maps_of_the_session_are_compared_twice_over(known_profile: Profile) -> None:
    reference = make_reference(4)
    session = OwnMaps(wrong_from=1000)
    found = qualify(session, reference, known_profile, passes=((1,), (3,)), fill=True)
    assert found.mask_agreement == 1
    assert session.sizes == [1] * 8 + [3] * 4
    # Right in the first round, wrong when what was captured is replayed.
    found = qualify(OwnMaps(wrong_from=2), reference, known_profile, passes=((2,),), fill=True)
    assert found.mask_agreement == 0.5


def test_passes_reach_each_static_size_and_the_tail() -> None:
    assert passes_for(()) == ((1, 8),)
    assert passes_for((1, 8)) == ((1,), (4,), (8,))
    assert passes_for((1,)) == ((1,),)


def test_iou_is_over_the_classes_of_the_truth(known_profile: Profile) -> None:
    """A class that one of the two predicts in a few pixels must not hide a loss."""
    reference = make_reference(2, truth=True)
    assert reference.truth is not None
    exact = tuple(np.minimum(mask, 1) for mask in reference.truth)  # class 2 is not in the truth
    found = qualify(KnownSession(), replace(reference, truth=exact), known_profile)
    assert found.iou is not None and found.iou.drop == 0
    assert found.iou.class_iou[2] == 0, "it is predicted"
    over_two = [value for value in found.iou.class_iou[:2] if value is not None]
    assert found.iou.mean_iou == pytest.approx(np.mean(over_two))


def test_error_against_nothing_is_a_number() -> None:
    zero, one = np.zeros(3, np.float32), np.ones(3, np.float32)
    assert relative_rms_error(zero, zero) == 0
    assert relative_rms_error(one, zero) == 1e9
    assert relative_rms_error(one * 2, one) == 1
