"""Whether a contender's speed may be told."""

from __future__ import annotations

from pathlib import Path

import pytest

from sshr_deploy.benchmarks.contenders.contender import Contender
from sshr_deploy.benchmarks.contenders.judging import judged, reference_of, why_no_speed
from sshr_deploy.bundle import Bundle, load_bundle
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.engines.qualification import TOLERANCES
from tests.benchmarks.contenders.recalled import RecalledSession, classes_reversed


@pytest.fixture(scope="module")
def bundle(small_bundle_dir: Path) -> Bundle:
    return load_bundle(small_bundle_dir)


def _contender(session: RecalledSession, precision: Precision = Precision.FP32) -> Contender:
    return Contender("recalled", precision, TOLERANCES[precision], lambda _: session, "")


def test_one_that_says_what_the_reference_says_may_tell_its_speed(bundle: Bundle) -> None:
    session = RecalledSession(reference_of(bundle))
    found = judged(session, _contender(session), bundle)
    assert (found.masks, found.cam_error, found.misses) == (1.0, 0.0, ())
    assert why_no_speed(found) is None
    assert session.sizes == [1, 5], "one, and as many of the other five as eight allow"


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8])
def test_one_whose_masks_are_wrong_may_not(bundle: Bundle, precision: Precision) -> None:
    session = RecalledSession(reference_of(bundle), classes_reversed)
    found = judged(session, _contender(session, precision), bundle)
    assert found.masks < 0.9
    why = why_no_speed(found)
    assert why is not None and why.startswith("its masks disagree: ")
    assert f"masks agree on {found.masks:.4%} of pixels" in why


def test_what_is_made_for_one_size_is_judged_in_calls_of_that_size(bundle: Bundle) -> None:
    session = RecalledSession(reference_of(bundle))
    assert judged(session, _contender(session), bundle, batch=5).masks == 1.0
    assert set(session.sizes) == {5}


def test_where_there_is_nothing_to_compare_nothing_is_held_against_it() -> None:
    assert why_no_speed(None) is None
