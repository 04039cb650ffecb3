"""The parts of a call."""

from __future__ import annotations

from pathlib import Path

import pytest

from sshr_deploy.benchmarks.contenders.judging import reference_of
from sshr_deploy.benchmarks.contenders.parts import parts_of_call
from sshr_deploy.bundle import load_bundle
from sshr_deploy.runtime.masks import mask_rule
from sshr_deploy.runtime.sessions import parts
from sshr_deploy.runtime.sessions.parts import Part, PartTimes, are_timed, lap
from tests.benchmarks.contenders.recalled import RecalledSession


class Clock:
    """Goes on by a millisecond each time that it is read."""

    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        self.s += 1e-3
        return self.s


@pytest.fixture(autouse=True)
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PartTimes", lambda: PartTimes(Clock()))


def test_a_call_is_all_of_its_parts(small_bundle_dir: Path) -> None:
    bundle = load_bundle(small_bundle_dir)
    reference = reference_of(bundle)
    session, rule = RecalledSession(reference), mask_rule(bundle.manifest.profile)
    found = parts_of_call(session, reference.patches[:3], rule)
    assert session.sizes == [3]
    laps = [found.copy_in_ms, found.engine_ms, found.copy_out_ms, found.labels_ms]
    assert laps == pytest.approx([1.0] * len(Part)), "1 ms apart"
    assert found.whole_ms == pytest.approx(4.0)
    fields = parts_of_call(session, reference.patches[:1], None)
    assert [fields.labels_ms, fields.whole_ms] == pytest.approx([0.0, 3.0])
    assert not are_timed()


def test_what_is_not_timed_is_not_waited_for() -> None:
    lap(Part.ENGINE, lambda: pytest.fail("waited"))
