"""Verdicts on two documents: what is noise is a tie, and what cannot be told is not told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sshr_deploy.benchmarks.report.comparison import LEAST_NOISE, Compared, compare
from sshr_deploy.benchmarks.report.records import Agreement, Gpu
from sshr_deploy.errors import UsageError
from tests.benchmarks.report.documents import BUSY, MACHINE, SUBJECT, make_document, make_row


def timings(median: float, spread: float = 0.02, count: int = 40, seed: int = 0) -> list[float]:
    """Normal, with quartiles about `spread` of the median apart."""
    rng = np.random.default_rng(seed)
    found: list[float] = (median * (1 + spread / 1.35 * rng.normal(size=count))).tolist()
    return found


def judged(a: list[float], b: list[float], **changes: Any) -> Compared:
    documents = [make_document([make_row("x", samples, **changes)]) for samples in (a, b)]
    (row,) = compare(*documents).rows
    return row


def test_a_gap_beyond_noise_is_told_with_its_interval() -> None:
    row = judged(timings(130), timings(100, seed=1))
    assert row.verdict == "faster" and row.reason is None
    assert row.speed == pytest.approx(1.3, rel=0.02)
    assert row.speed is not None and row.low is not None and row.high is not None
    assert 1.2 < row.low < row.speed < row.high < 1.4
    assert row.a is not None and row.a.samples == 40
    other = judged(timings(100, seed=1), timings(130))
    assert other.verdict == "slower"
    assert other.speed == pytest.approx(1 / row.speed)


def test_of_rates_the_higher_is_the_faster() -> None:
    row = judged(timings(130), timings(100, seed=1), unit="patches/s", better="higher")
    assert row.verdict == "slower"
    assert row.speed == pytest.approx(1 / 1.3, rel=0.02)


@pytest.mark.parametrize("seed", range(8))
def test_the_same_again_is_a_tie(seed: int) -> None:
    row = judged(timings(100, seed=seed), timings(100, seed=seed + 100))
    assert row.verdict == "tie" and row.reason


def test_a_sharp_gap_that_two_runs_have_anyway_is_a_tie() -> None:
    small, large = 1 + LEAST_NOISE / 2, 1 + LEAST_NOISE * 2
    row = judged(timings(100, 0.001), timings(100 * small, 0.001, seed=1))
    assert row.verdict == "tie"
    assert row.reason is not None and row.reason.endswith("is within the noise of 2.0%")
    assert judged(timings(100, 0.001), timings(100 * large, 0.001)).verdict == "slower"


def test_a_gap_within_the_wider_spread_is_a_tie() -> None:
    row = judged(timings(100, 0.1, 400), timings(108, 0.002, 400))
    assert row.verdict == "tie"
    assert row.reason is not None and "is within the noise of" in row.reason


@pytest.mark.parametrize(
    ("a", "b", "told"),
    [
        (timings(100, 0.4), timings(300), "so the machine was busy"),
        (timings(100), timings(300, 0.4), "so the machine was busy"),
        (timings(100)[:4], timings(300), "A has 4 timed calls; at least 5 count"),
        (timings(100, 0.1), timings(103, 0.1, seed=1), "A and B overlap"),
    ],
)
def test_samples_that_allow_no_ratio_are_a_tie(a: list[float], b: list[float], told: str) -> None:
    row = judged(a, b)
    assert (row.verdict, row.speed, row.low, row.slowdown) == ("tie", None, None, 0)
    assert row.reason is not None and told in row.reason


def test_rates_that_overlap_are_told_in_their_unit() -> None:
    row = judged(timings(100, 0.1), timings(103, 0.1, seed=1), unit="mm2/s", better="higher")
    assert row.reason is not None and row.reason.endswith("mm2/s")


@pytest.mark.parametrize("side", ["A", "B"])
def test_all_is_a_tie_beside_other_work(side: str) -> None:
    rows = [[make_row("x", timings(median))] for median in (100, 300)]
    loads: list[dict[str, Any]] = [{"load": BUSY} if side == name else {} for name in "AB"]
    documents = [make_document(found, **load) for found, load in zip(rows, loads, strict=True)]
    comparison = compare(*documents)
    (row,) = comparison.rows
    assert (row.verdict, row.speed) == ("tie", None)
    assert row.reason == (
        f"{side}: other work took 45% of the cores' time (at most 10%), so the machine was busy"
    )
    assert comparison.failures(0.1) == []


def test_no_ratio_of_masks_that_disagree() -> None:
    wrong = Agreement(masks=0.4, cam_error=None, misses=("masks 40%",))
    row = judged(timings(300), timings(100), agreement=wrong, facts={"unqualified": "masks 40%"})
    assert (row.verdict, row.speed) == ("not qualified", None)
    assert row.reason == "A: masks 40%; B: masks 40%"


@pytest.mark.parametrize("load", [{}, {"load": BUSY}])
def test_masks_that_disagree_only_now_fail_however_fast_they_come(load: dict[str, Any]) -> None:
    right, wrong = (
        make_document([make_row("x", timings(100 - 50 * len(facts)), facts=facts)], **load)
        for facts in ({}, {"unqualified": "masks 40%"})
    )
    broken = compare(right, wrong)
    assert broken.failures(0.1) == ["x: not qualified, B: masks 40%"]
    assert compare(wrong, right).failures(0.1) == compare(wrong, wrong).failures(0.1) == []
    assert compare(wrong, right).rows[0].verdict == "not qualified"


def test_rows_of_one_side_are_told_with_the_reason() -> None:
    lost = make_row("lost", (), not_measured="its masks disagree: 90%")
    a = make_document(
        [make_row("both", timings(9)), make_row("lost", timings(9)), make_row("gone", timings(9)),
         make_row("never", (), not_measured="no GPU"), make_row("came", (), not_measured="no GPU")]
    )  # fmt: skip
    b = make_document(
        [make_row("new", timings(9)), make_row("both", timings(9)), lost,
         make_row("never", (), not_measured="no GPU"), make_row("came", timings(9))]
    )  # fmt: skip
    comparison = compare(a, b)
    assert [(row.name, row.verdict, row.reason) for row in comparison.rows] == [
        ("both", "tie", "A and B overlap: 8.92 to 9.05 ms and 8.92 to 9.05 ms"),
        ("lost", "only in A", "B: its masks disagree: 90%"),
        ("gone", "only in A", None),
        ("never", "not measured", "no GPU"),
        ("came", "only in B", "A: no GPU"),
        ("new", "only in B", None),
    ]
    assert comparison.failures(0.1) == [
        "lost: only in A, B: its masks disagree: 90%",
        "gone: only in A",
    ]


def test_failures_are_slower_by_the_whole_interval() -> None:
    a, b = timings(100, 0.03), timings(112, 0.03, seed=1)
    row = judged(a, b)
    assert row.verdict == "slower" and row.speed is not None and row.high is not None
    assert 0.03 < row.slowdown < 1 / row.speed - 1
    comparison = compare(*(make_document([make_row("x", samples)]) for samples in (a, b)))
    assert comparison.failures(0.05) == [f"x: slower by at least {row.slowdown:.1%}"]
    assert comparison.failures(1 / row.speed - 1) == []
    faster = compare(*(make_document([make_row("x", samples)]) for samples in (b, a)))
    assert faster.failures(0.0) == []


def test_rows_in_other_units_are_not_compared() -> None:
    a = make_document([make_row("x", timings(9))])
    b = make_document([make_row("x", timings(9), unit="s")])
    (row,) = compare(a, b).rows
    assert (row.verdict, row.speed, row.reason) == ("tie", None, "A is in ms, B in s")


def test_benchmarks_of_two_kinds_are_refused() -> None:
    with pytest.raises(UsageError, match="A is a benchmark of latency and B of pipeline"):
        compare(make_document([]), make_document([], "pipeline"))


def test_what_else_differs_is_warned_of() -> None:
    assert compare(make_document([]), make_document([])).warnings == ()
    gpu = Gpu(name="A GPU", driver="580", memory_mib=None)
    machine = MACHINE.model_copy(update={"gpus": (gpu,), "libraries": {"torch": "2.13.0"}})
    other = make_document(
        [],
        environment=machine,
        complete=False,
        settings={"seconds": 10.0},
        subject=SUBJECT.model_copy(update={"width": 64}),
    )
    assert compare(make_document([]), other).warnings == (
        "B was interrupted: its rows are those that it had finished",
        "the machines differ: A processor, 2 cores in A, A processor, 2 cores, A GPU in B",
        "the networks differ: width 8 in A, 64 in B",
        "the settings differ: seconds 3.0 in A, 10.0 in B",
        "the releases differ: onnxruntime 1.30.0 in A, absent in B; torch absent in A, 2.13.0 in B",
    )


def test_a_new_driver_is_told_as_such() -> None:
    gpus = [Gpu(name="A GPU", driver=driver, memory_mib=49152) for driver in ("580", "590", None)]
    a, b, unknown = (
        make_document([], environment=MACHINE.model_copy(update={"gpus": (gpu,)})) for gpu in gpus
    )
    assert compare(a, b).warnings == ("the drivers differ: 580 in A, 590 in B",)
    assert compare(a, unknown).warnings == ("the drivers differ: 580 in A, unknown in B",)
    small = gpus[0].model_copy(update={"memory_mib": 24576})
    other = make_document([], environment=MACHINE.model_copy(update={"gpus": (small,)}))
    (warning,) = compare(a, other).warnings
    assert warning.endswith("A GPU (49152 MiB) in A, A processor, 2 cores, A GPU (24576 MiB) in B")


@pytest.mark.parametrize(
    ("subject", "told"),
    [
        (SUBJECT.model_copy(update={"manifest_sha256": "c" * 64}), "the files have other hashes"),
        (None, "only one of them names the network that was measured"),
    ],
)
def test_another_subject_is_warned_of(subject: object, told: str) -> None:
    (warning,) = compare(make_document([]), make_document([], subject=subject)).warnings
    assert told in warning
