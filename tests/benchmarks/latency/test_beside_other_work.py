"""Latency beside a real process that computes: it warns, tells no ratio, and compares as a tie."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from sshr_deploy.benchmarks.latency import warm
from sshr_deploy.benchmarks.latency.settings import LatencySettings
from sshr_deploy.benchmarks.latency.warm import measure_calls
from sshr_deploy.benchmarks.measuring.turns import take_turns
from sshr_deploy.benchmarks.report.comparison import compare
from sshr_deploy.benchmarks.report.recorder import Recorder
from sshr_deploy.bundle import load_bundle
from sshr_deploy.cli.benchmark_document import shown
from tests.benchmarks.latency.stand_ins import AnswersSession, contender

BUSY = "of the cores' time (at most 10%), so the machine was busy"


def test_a_busy_neighbour_is_warned_of_and_makes_ties(
    busy_processes: None,
    small_bundle_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(warm, "take_turns", partial(take_turns, settle_s=0.0))
    bundle = load_bundle(small_bundle_dir)
    ways = [contender(name, lambda _: AnswersSession(bundle)) for name in "ab"]
    recorder = Recorder("latency", None, {})
    with shown(recorder, lambda document: None, None):
        measure_calls(bundle, ways, LatencySettings((1,), 0.6), recorder, {})
    document = recorder.document
    assert BUSY in document.row("b, batch 1").refused["speed"]
    assert document.row("b, batch 1").figures["speed"] is None
    warned = " ".join(capsys.readouterr().err.split())
    assert "warning: other work took " in warned and BUSY in warned
    halved = [
        row.model_copy(update={"samples": tuple(ms / 2 for ms in row.samples)})
        for row in document.rows
    ]
    comparison = compare(document, document.model_copy(update={"rows": tuple(halved)}))
    assert {row.verdict for row in comparison.rows} == {"tie"}
    assert all(BUSY in str(row.reason) for row in comparison.rows)
