from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from numpy.typing import NDArray

from sshr_deploy.benchmarks.contenders.contender import Contender
from sshr_deploy.benchmarks.contenders.judging import judged
from sshr_deploy.benchmarks.latency import warm
from sshr_deploy.benchmarks.latency.settings import LatencySettings
from sshr_deploy.benchmarks.latency.warm import measure_calls
from sshr_deploy.benchmarks.measuring.neighbours import Neighbours
from sshr_deploy.benchmarks.measuring.turns import settle, take_turns
from sshr_deploy.benchmarks.report.recorder import Recorder
from sshr_deploy.benchmarks.report.records import BenchmarkDocument
from sshr_deploy.bundle import Bundle, load_bundle
from sshr_deploy.errors import MissingExtraError, SessionError
from sshr_deploy.runtime.contract import CamBatch
from tests.benchmarks.contenders.recalled import classes_reversed
from tests.benchmarks.latency.stand_ins import AnswersSession, GraphsSession, contender

SETTINGS = LatencySettings(batches=(1, 8), seconds=0.01)


@pytest.fixture(scope="module")
def bundle(small_bundle_dir: Path) -> Bundle:
    return load_bundle(small_bundle_dir)


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time to settle between turns, and no other work."""
    monkeypatch.setattr(warm, "take_turns", partial(take_turns, settle_s=0.0))
    monkeypatch.setattr(warm, "settle", partial(settle, seconds=0.0))
    monkeypatch.setattr(Neighbours, "share", lambda _: 0.0)


def _measured(
    bundle: Bundle, contenders: list[Contender], settings: LatencySettings = SETTINGS
) -> BenchmarkDocument:
    with Recorder("latency", None, {}) as recorder:
        measure_calls(bundle, contenders, settings, recorder, {})
    return recorder.document


def test_each_contender_has_a_row_for_each_batch_size(bundle: Bundle) -> None:
    sessions = [AnswersSession(bundle), AnswersSession(bundle)]
    ways = [
        contender("a", lambda _: sessions[0]),
        contender("b", lambda _: sessions[1]),
    ]
    document = _measured(bundle, ways)
    names = ["a, batch 1", "b, batch 1", "a, batch 8", "b, batch 8"]
    assert [row.name for row in document.rows] == names
    for row in document.rows:
        assert len(row.samples) >= 6
        assert row.agreement is not None and row.agreement.masks == 1.0
        assert row.facts["session"]["library"] == "none 0"
        assert row.figures["labels_ms"] > 0  # type: ignore[operator]
    assert all(session.is_closed for session in sessions)


def test_an_engine_with_cuda_graphs_is_timed_without_them_too(bundle: Bundle) -> None:
    session = GraphsSession(bundle)
    document = _measured(bundle, [contender("a", lambda _: session)], LatencySettings((1,), 0.01))
    assert [row.name for row in document.rows] == ["a, batch 1", "a without CUDA graphs, batch 1"]
    assert [row.facts["cuda_graphs"] for row in document.rows] == [True, False]
    for row, uses in zip(document.rows, (True, False), strict=True):
        assert session.calls[uses] > len(row.samples)


def test_graphs_that_cannot_be_captured_are_no_way_of_their_own(bundle: Bundle) -> None:
    class Uncapturable(GraphsSession):
        """Finds out in a call of two patches, which no comparison makes."""

        def _compute(self, patches: NDArray[np.uint8]) -> CamBatch:
            if len(patches) == 2:
                self.cuda_graphs = None
            return super()._compute(patches)

    ways = [contender("a", lambda _: Uncapturable(bundle))]
    document = _measured(bundle, ways, LatencySettings((2,), 0.01))
    with_graphs = document.row("a, batch 2")
    without = document.row("a without CUDA graphs, batch 2")
    assert with_graphs.samples and with_graphs.facts["cuda_graphs"] is None
    assert without.samples == ()
    assert "a has no CUDA graphs either" in str(without.not_measured)


def test_fields_have_no_label_maps(bundle: Bundle) -> None:
    fields = bundle.on_fields()
    way = contender("a", lambda _: AnswersSession(fields))
    document = _measured(fields, [way], LatencySettings((1, 2), 0.01))
    assert [row.name for row in document.rows] == ["a, batch 1 of fields", "a, batch 2 of fields"]
    for row in document.rows:
        assert row.figures["labels_ms"] is None and row.figures["fields_per_s"] is not None


def test_an_engine_whose_calls_share_the_threads_is_timed_one_by_one_too(bundle: Bundle) -> None:
    def opened(streams: int) -> AnswersSession:
        session = AnswersSession(bundle)
        session.info = replace(session.info, streams=streams)
        return session

    ways = {"a": lambda _: opened(2), "b": lambda _: opened(1)}
    a, b = (
        replace(contender(name, way), open_one_stream=lambda _: opened(1))
        for name, way in ways.items()
    )
    document = _measured(bundle, [a, b], LatencySettings((1,), 0.01))
    assert [(row.name, row.facts["streams"]) for row in document.rows] == [
        ("a, batch 1", 2),
        ("a, 1 stream, batch 1", 1),
        ("b, batch 1", 1),
    ]


def test_wrong_masks_get_no_speed(bundle: Bundle) -> None:
    turned = AnswersSession(bundle, wrong=True)
    ways = [contender("wrong", lambda _: turned), contender("a", lambda _: AnswersSession(bundle))]
    document = _measured(bundle, ways)
    wrong = document.row("wrong, batch 1")
    assert wrong.samples == ()
    assert wrong.not_measured is not None
    assert wrong.not_measured.startswith("its masks disagree: ")
    assert wrong.agreement is not None and wrong.agreement.misses
    assert turned.is_closed
    assert document.row("a, batch 1").figures["speed"] == 1.0


def test_wrong_masks_that_are_allowed_get_a_time_but_no_ratio(bundle: Bundle) -> None:
    ways = [
        contender("wrong", lambda _: AnswersSession(bundle, wrong=True)),
        contender("a", lambda _: AnswersSession(bundle)),
    ]
    allowed = LatencySettings(batches=(1,), seconds=0.01, allow_unqualified=True)
    document = _measured(bundle, ways, allowed)
    wrong = document.row("wrong, batch 1")
    assert wrong.samples
    assert "masks disagree" in wrong.refused["speed"]
    assert "masks disagree" in wrong.facts["unqualified"]
    assert document.row("a, batch 1").facts["base"] == "a"


def test_what_cannot_be_opened_or_has_no_memory_says_why(bundle: Bundle) -> None:
    def missing(_: int) -> NoReturn:
        raise MissingExtraError("openvino", "openvino")

    ways = [
        contender("missing", missing),
        contender("small", lambda _: AnswersSession(bundle, largest=7)),
        contender("a", lambda _: AnswersSession(bundle)),
    ]
    document = _measured(bundle, ways, LatencySettings((1, 8), 0.01, base="small"))
    assert "openvino is not installed" in str(document.row("missing, batch 8").not_measured)
    assert "no memory for 8 patches" in str(document.row("small, batch 8").not_measured)
    assert document.row("small, batch 1").facts["base"] == "small"
    assert document.row("a, batch 8").refused["speed"] == "small was not measured at batch 8"


@pytest.mark.parametrize(
    ("names", "base"),
    [
        (("openvino int8", "onnx-cpu fp32", "PyTorch eager"), "PyTorch eager"),
        (("openvino int8", "onnx-cpu fp32"), "onnx-cpu fp32"),
        (("openvino int8", "openvino fp32"), "openvino int8"),
    ],
)
def test_speeds_are_over_the_same_way_at_all_batch_sizes(
    bundle: Bundle, names: tuple[str, ...], base: str
) -> None:
    def opened(name: str) -> Callable[[int], AnswersSession]:
        return lambda _: AnswersSession(bundle, largest=8 - (name == base))

    ways = [contender(name, opened(name)) for name in names]
    rows = _measured(bundle, ways, LatencySettings((1, 8), 0.01)).rows
    told = {row.facts["batch"]: row.facts["base"] for row in rows if row.samples}
    assert told == {1: base, 8: None}, "it lacks memory for eight"


@pytest.mark.parametrize("compiles", [True, False])
def test_masks_that_disagree_in_calls_of_one_size_get_no_speed_there(
    bundle: Bundle, compiles: bool
) -> None:
    class WrongOfFour(AnswersSession):
        def _compute(self, patches: NDArray[np.uint8]) -> CamBatch:
            found = super()._compute(patches)
            return classes_reversed(found) if len(patches) == 4 else found

    way = replace(
        contender("a", lambda _: WrongOfFour(bundle)),
        compiles_sizes=compiles,
        has_static_batches=not compiles,
    )
    document = _measured(bundle, [way], LatencySettings((1, 4), 0.01))
    wrong = document.row("a, batch 4")
    assert document.row("a, batch 1").samples and not wrong.samples
    assert "masks disagree" in str(wrong.not_measured)
    assert wrong.agreement is not None and wrong.agreement.misses


@pytest.mark.parametrize("error", [SessionError("the device is lost"), MemoryError()])
def test_one_that_fails_leaves_the_others_their_turns(bundle: Bundle, error: Exception) -> None:
    class Lost(AnswersSession):
        def __init__(self, fails_at: int) -> None:
            super().__init__(bundle)
            self._fails_at = fails_at

        def _compute(self, patches: NDArray[np.uint8]) -> CamBatch:
            if len(self.sizes) >= self._fails_at:
                raise error
            return super()._compute(patches)

    judging = AnswersSession(bundle)
    judged(judging, contender("a", lambda _: judging), bundle)
    before = len(judging.sizes) + 1 + 5
    ways = [
        contender("none", lambda _: Lost(before)),
        contender("some", lambda _: Lost(before + 5)),
        contender("a", lambda _: AnswersSession(bundle)),
    ]
    document = _measured(bundle, ways, LatencySettings((1,), 1e-9))
    none, some, a = document.rows
    reason = str(error) or "not enough memory"
    assert not none.samples and reason in str(none.not_measured)
    assert len(some.samples) == 3 and reason in some.facts["failed"]
    assert len(a.samples) >= 6 and document.complete


def test_an_interruption_leaves_what_was_measured(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(
        calls: Mapping[str, Callable[[], object]], **_: object
    ) -> Iterator[tuple[str, list[float]]]:
        for name, call in calls.items():
            call()
            yield name, [1.0] * 6
        raise KeyboardInterrupt

    monkeypatch.setattr(warm, "take_turns", interrupted)
    file = tmp_path / "found.json"
    way = contender("a", lambda _: AnswersSession(bundle))
    with (
        pytest.raises(KeyboardInterrupt),
        Recorder("latency", None, {}, file) as recorder,
    ):
        measure_calls(bundle, [way], SETTINGS, recorder, {})
    kept = json.loads(file.read_text("utf-8"))
    assert [row["name"] for row in kept["rows"]] == ["a, batch 1"]
    assert not kept["complete"]


def test_a_busy_neighbour_takes_the_ratios_also_of_what_was_measured_before(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = iter([0.0] * 3)
    monkeypatch.setattr(Neighbours, "share", lambda _: next(shares, 0.5))
    ways = [contender(name, lambda _: AnswersSession(bundle)) for name in "ab"]
    document = _measured(bundle, ways)
    for batch in SETTINGS.batches:
        assert "other work took 50%" in document.row(f"b, batch {batch}").refused["speed"]
