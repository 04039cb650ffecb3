from __future__ import annotations

import numpy as np
import pytest

from sshr_deploy.runtime.machine.spread import ratio_of, ratio_text, refusals, spread_of

QUIET = ("new", [10.0, 10.1, 10.2, 9.9, 10.0, 10.3])
SLOWER = ("old", [20.0, 20.4, 20.2, 19.8, 20.1, 20.0])
BUSY = ("old", [20.0, 29.0, 44.0, 21.0, 90.0, 33.0])


def test_a_quiet_machine_gives_a_ratio_of_the_medians() -> None:
    ratio = ratio_of(SLOWER, QUIET)
    assert ratio.value == np.median(SLOWER[1]) / np.median(QUIET[1])
    assert ratio.refused is None
    assert ratio.fields("speed_up") == {"speed_up": ratio.value}
    assert ratio_of(QUIET, SLOWER).value == pytest.approx(np.median(QUIET[1]) / 20.05)


def test_a_busy_side_gives_none_and_says_which() -> None:
    for pair in ((BUSY, QUIET), (QUIET, BUSY)):
        ratio = ratio_of(*pair)
        assert ratio.value is None
        assert ratio.refused == (
            "old: its middle half spreads over 59% of the median (at most 15%), so the machine "
            "was busy; measure again when it is quiet"
        )


def test_sides_that_overlap_give_none() -> None:
    near = ("near", [10.1, 10.2, 10.3, 10.0, 10.1, 10.4])
    ratio = ratio_of(near, QUIET)
    assert ratio.value is None
    assert ratio.refused == "near and new overlap: 10.1 to 10.3 ms and 10 to 10.2 ms"
    assert ratio_of(QUIET, QUIET).value is None


def test_few_calls_give_no_ratio() -> None:
    ratio = ratio_of(("old", SLOWER[1][:4]), QUIET)
    assert ratio.refused == "old has 4 timed calls; at least 5 count"
    assert ratio_of(("old", SLOWER[1][:5]), QUIET).value is not None


@pytest.mark.parametrize(("calls", "there"), [(19, []), (20, [95]), (99, [95]), (100, [95, 99])])
def test_percentiles_need_calls_beyond_them(calls: int, there: list[int]) -> None:
    samples = np.random.default_rng(0).gamma(2, size=calls).tolist()
    figures = spread_of(samples).figures()
    assert [p for p in (95, 99) if f"p{p}_ms" in figures] == there
    for percent in (25, 75, *there):
        assert figures[f"p{percent}_ms"] == pytest.approx(np.percentile(samples, percent))
    assert figures["median_ms"] == pytest.approx(np.median(samples))
    assert (figures["min_ms"], figures["max_ms"]) == (min(samples), max(samples))


def test_order_is_told_on_a_busy_machine_too() -> None:
    busy, quiet = spread_of(BUSY[1]), spread_of(QUIET[1])
    assert quiet.below(busy) and not busy.below(quiet) and not quiet.below(quiet)
    assert busy.busy() is not None and quiet.busy() is None


def test_a_report_tells_each_reason_once() -> None:
    refused = ratio_of(BUSY, QUIET).fields("speed_up")
    assert refused["speed_up"] is None
    rows = [refused, {"speed_up": 2.0}, refused | {"name": "third"}]
    assert refusals(rows) == [refused["speed_up_not_reported"]]
    assert (ratio_text(None), ratio_text(2.0)) == ("not reported", "2.00")


def test_no_samples_are_an_error() -> None:
    with pytest.raises(ValueError, match="no samples"):
        spread_of([])
