from __future__ import annotations

import itertools
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from sshr_deploy.export.graph.typed import write_typed_graph
from sshr_deploy.export.int8.activation_ranges import RangeMethod
from sshr_deploy.export.int8.search import (
    CPU_SCHEMES,
    TENSORRT_SCHEMES,
    SearchTask,
    expected_steps,
    search_int8,
)
from sshr_deploy.export.int8.verdicts import (
    Budget,
    Int8RejectedError,
    Row,
    Verdict,
    change_text,
    format_table,
)
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.machine.spread import Spread, spread_of
from tests.export.chain_graph import NAMES, write_chain

LOSSES = {"a": 0.011, "b": 0.004, "c": 0.006, "d": 0.001, "e": 0.009}
"""Agreement that each layer costs; those of several layers add up."""


def quantised_in(graph: Path) -> frozenset[str]:
    """The layers whose weights a graph holds in 8 bits."""
    weights = onnx.load(graph).graph.initializer
    return frozenset(
        tensor.name.split(".")[1]
        for tensor in weights
        if tensor.data_type == onnx.TensorProto.INT8 and tensor.name.endswith("_quantised")
    )


def additive(losses: dict[str, float] = LOSSES, drops: float = 0.0) -> Callable[[Path], Verdict]:
    def judge(graph: Path) -> Verdict:
        loss = math.fsum(losses[name] for name in quantised_in(graph))  # in any order
        return Verdict(1 - loss, drops * loss if drops else None, loss)

    return judge


@pytest.fixture
def task(tmp_path: Path) -> SearchTask:
    return SearchTask(
        source=write_chain(tmp_path / "chain.onnx"),
        patches=np.random.default_rng(1).integers(0, 256, (2, 224, 224, 3), np.uint8),
        schemes=TENSORRT_SCHEMES,
        judge=additive(),
        judge_name="additive",
        time_ms=None,
        work=tmp_path / "work",
        scratch=tmp_path,
    )


@pytest.mark.parametrize("least", [0.995, 0.985, 0.981, 0.975])
def test_no_smaller_set_of_wide_layers_meets_the_budget(task: SearchTask, least: float) -> None:
    mix = search_int8(replace(task, budget=Budget(min_agreement=least)))
    assert mix.verdict.agreement >= least

    def holds(kept: Sequence[str]) -> bool:
        return 1 - sum(loss for name, loss in LOSSES.items() if name not in kept) >= least

    assert holds(mix.kept)
    assert not any(holds([k for k in mix.kept if k != name]) for name in mix.kept)
    smallest = min(
        count
        for count in range(6)
        if any(holds(kept) for kept in itertools.combinations(NAMES, count))
    )
    assert len(mix.kept) == smallest
    assert sorted((*mix.kept, *mix.quantised)) == list(NAMES)


def test_what_is_not_needed_after_bisection_is_put_back(task: SearchTask) -> None:
    """Alone, "a" costs most; but the budget breaks only where "d" and "e" are both quantised."""

    def judge(graph: Path) -> Verdict:
        quantised = quantised_in(graph)
        loss = sum(LOSSES[name] / 100 for name in quantised)
        return Verdict(0.9 if {"d", "e"} <= quantised else 1 - loss, None, loss)

    mix = search_int8(replace(task, judge=judge))
    assert mix.kept == ("e",)


def test_everything_is_quantised_where_the_budget_allows_it(task: SearchTask) -> None:
    mix = search_int8(replace(task, budget=Budget(0.96)))
    assert (mix.kept, mix.quantised) == ((), NAMES)
    assert len(mix.rows) == len(RangeMethod)


def test_mean_iou_counts_where_there_is_one(task: SearchTask) -> None:
    judge = additive(drops=0.5)
    mix = search_int8(replace(task, judge=judge, budget=Budget(0.5, max_miou_drop=0.006)))
    assert sum(LOSSES[name] for name in mix.quantised) * 0.5 <= 0.006
    assert mix.kept
    assert not Budget().holds(Verdict(float("nan"), None, 0))
    assert not Budget().holds(Verdict(1, float("nan"), 0))


def test_the_scheme_and_method_that_agree_best_are_taken(task: SearchTask) -> None:
    merits = {}

    def judge(graph: Path) -> Verdict:
        weights = {t.name: t for t in onnx.load(graph).graph.initializer}
        values = onnx.numpy_helper.to_array(weights["model.a.weight_quantised"])
        step = float(onnx.numpy_helper.to_array(weights["a_relu_step"]))
        bits = 7 if np.abs(values.astype(int)).max() == 63 else 8
        merits[bits, step] = agreement = 0.99 + (0.001 if bits == 7 else 0) - step / 1e4
        return Verdict(agreement, None, 0)

    mix = search_int8(replace(task, judge=judge, schemes=CPU_SCHEMES))
    assert len(merits) >= 4  # both schemes, and more than one range
    (_, step) = max(merits, key=lambda key: merits[key])
    assert mix.setting.scheme.weight_bits == 7
    low, high = mix.setting.ranges["a"].output
    assert (high - low) / 255 == pytest.approx(step, rel=1e-6)


def test_no_mix_is_rejected_with_the_table(task: SearchTask) -> None:
    budget = Budget(min_agreement=0.9995)
    with pytest.raises(Int8RejectedError, match=r"no layer can be quantised .*99\.95%") as caught:
        search_int8(replace(task, budget=budget))
    assert "\n" not in str(caught.value)
    lines = caught.value.table.splitlines()
    assert len(lines) == 1 + len(caught.value.rows)
    assert [line for line in lines if line.startswith("only d ") and "99.90%" in line]
    assert list(task.scratch.glob("candidate*")) == []


def test_what_is_not_faster_is_rejected(task: SearchTask) -> None:
    asked: list[list[frozenset[str]]] = []

    def time_ms(graphs: Sequence[Path]) -> list[Spread]:
        asked.append([quantised_in(graph) for graph in graphs])
        return [spread_of(samples) for samples in ([10.0], [4.0], mixed)]

    mixed = [10.5]
    timed = replace(task, time_ms=time_ms)
    with pytest.raises(Int8RejectedError, match=r"not faster here: 10\.5 ms .* 10\.0 ms with none"):
        search_int8(timed)
    mixed = [7.0, 8.0, 9.0, 10.0, 11.0, 12.0]
    with pytest.raises(
        Int8RejectedError, match=r"not clearly faster here: 8\.25 to 10\.8 ms .* machine is quiet"
    ):
        search_int8(timed)
    mixed = [9.0]
    mix = search_int8(timed)
    assert asked[-1] == [frozenset(), frozenset(NAMES), frozenset(mix.quantised)]
    assert [row.ms for row in mix.rows[-3:]] == [10.0, 4.0, 9.0]
    assert mix.rows[-3].kept == NAMES
    assert mix.rows[-1].verdict == mix.verdict
    assert list(task.scratch.glob("candidate*")) == []


def test_steps_of_a_search_have_one_total(task: SearchTask) -> None:
    said: list[tuple[int, int, str]] = []
    timed = replace(task, time_ms=lambda graphs: [spread_of([3.0 - i]) for i in range(len(graphs))])
    search_int8(timed, lambda *step: said.append(step))
    assert [done for done, *_ in said] == sorted(done for done, *_ in said)
    assert [text for *_, text in said[:2]] == [f"calibrating, {n} of 2 patches" for n in (1, 2)]
    *searching, (done, total, text) = said
    assert {steps for _, steps, _ in searching} == {expected_steps(len(NAMES), 1)}
    assert (text, total) == ("timing", done + 1)


def test_the_mix_can_be_written(task: SearchTask, tmp_path: Path) -> None:
    mix = search_int8(task)
    wide = mix.write(tmp_path / "mix.onnx")
    assert quantised_in(tmp_path / "mix.onnx") == set(mix.quantised)
    assert wide == tuple(f"node_{name}" for name in mix.kept)


def test_a_typed_graph_is_judged_and_written_with_ranges_of_the_fp32_graph(
    task: SearchTask, tmp_path: Path
) -> None:
    fp16 = tmp_path / "fp16.onnx"
    write_typed_graph(task.source, fp16, Precision.FP16)
    judged: dict[frozenset[str], list[onnx.TensorProto]] = {}

    def judge(graph: Path) -> Verdict:
        judged[quantised_in(graph)] = list(onnx.load(graph).graph.initializer)
        return additive()(graph)

    of_fp32 = search_int8(task)
    said: list[str] = []
    mix = search_int8(replace(task, graph=fp16, judge=judge), lambda *step: said.append(step[2]))
    types = {tensor.data_type for tensors in judged.values() for tensor in tensors}
    assert onnx.TensorProto.FLOAT16 in types and onnx.TensorProto.FLOAT not in types
    assert mix.setting.ranges == of_fp32.setting.ranges
    assert not any("calibrating" in text for text in said), (
        "the ranges of the same FP32 graph are known"
    )
    mix.write(tmp_path / "mix.onnx")
    written = list(onnx.load(tmp_path / "mix.onnx").graph.initializer)
    assert written == judged[frozenset(mix.quantised)]


KILLED = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
import numpy as np
from sshr_deploy.export.int8.search import TENSORRT_SCHEMES, SearchTask, search_int8
from tests.export.int8.test_search import additive

left = int(sys.argv[3])

def judge(graph):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return additive()(graph)

patches = np.random.default_rng(1).integers(0, 256, (2, 224, 224, 3), np.uint8)
search_int8(SearchTask(Path(sys.argv[1]), patches, TENSORRT_SCHEMES, judge, "additive", None,
                       Path(sys.argv[2]), Path(sys.argv[1]).parent))
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_killed_search_goes_on_where_it_stopped(
    task: SearchTask, tmp_path: Path, repo_root: Path
) -> None:
    judged: list[frozenset[str]] = []

    def counting(graph: Path) -> Verdict:
        judged.append(quantised_in(graph))
        return additive()(graph)

    whole = search_int8(replace(task, judge=counting, work=tmp_path / "other"))
    needed = len(judged)
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, str(task.source), str(task.work), "7"],
        cwd=repo_root,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    assert list(task.scratch.glob("candidate*")), "it was killed while a candidate was judged"
    with (task.work / "verdicts.jsonl").open("a") as file:
        file.write('{"key": "half a li')
    judged.clear()
    said: list[tuple[int, int, str]] = []
    resumed = search_int8(replace(task, judge=counting), lambda *step: said.append(step))
    assert len(judged) == needed - 7
    assert (resumed.kept, resumed.rows) == (whole.kept, whole.rows)
    assert not [text for *_, text in said if "calibrating" in text]
    assert said[0][0] == 1, "what was found out before counts as done"
    assert all(done <= total for done, total, _ in said)
    assert list(task.scratch.glob("candidate*")) == []
    judged.clear()
    search_int8(replace(task, judge=counting))
    assert judged == []


def test_verdicts_are_of_one_graph_one_judge_and_these_patches(
    task: SearchTask, tmp_path: Path
) -> None:
    judged: list[Path] = []

    def counting(graph: Path) -> Verdict:
        judged.append(graph)
        return additive()(graph)

    search_int8(replace(task, judge=counting))
    needed = len(judged)
    other_graph = write_chain(tmp_path / "other.onnx", seed=1)
    others = (
        {"judge_name": "another"},
        {"patches": 255 - task.patches},
        {"source": other_graph, "graph": task.source},
        {"graph": other_graph},
    )
    for other in others:
        judged.clear()
        search_int8(replace(task, judge=counting, **other))
        assert len(judged) == needed, other.keys()


def test_a_table_has_a_line_a_row_and_aligned_numbers() -> None:
    rows = [
        Row("u8s8", "mse", "all 46", (), Verdict(0.97, 0.0011, 0.03), 58.61),
        Row("u8s8", "mse", "all but conv1a", ("conv1a",), Verdict(1, None, 0)),
    ]
    heading, first, second = format_table(rows).splitlines()
    assert first.split() == ["all", "46", "u8s8", "mse", "97.00%", "-0.0011", "3.00%", "58.6"]
    assert second.split()[-4:] == ["100.00%", "-", "0.00%", "-"]
    assert len(heading) == len(first) == len(second)


def test_the_change_of_the_mean_iou_has_one_sign() -> None:
    """A loss is negative; what rounds to nothing has no minus."""
    assert [change_text(drop) for drop in (0.0009, -0.0015, 1e-6, None)] == [
        *("-0.0009", "+0.0015", "+0.0000", ""),
    ]


def test_a_table_shows_the_most_harmful_layers_and_counts_the_others() -> None:
    def row(layers: str, agreement: float, ms: float | None = None) -> Row:
        verdict = Verdict(agreement, None, 0)
        return Row("s8s8", "mse", layers, (), verdict, ms, alone=layers.startswith("only"))

    harms = [13, 5, 20, 1, 9, 17, 2, 11, 6, 15, 3, 19, 8, 14, 4, 18, 10, 7, 16, 12]
    singles = [row(f"only c{harm}", 1 - harm / 100) for harm in harms]
    mixes = [row("all but 7", 0.9), row("all but 7", 0.99), row("all but 6", 0.5)]
    timed = [row("all 20", 0.4, 1.5), row("all but 6", 0.4, 2.5)]
    _, *lines = format_table([row("all 20", 0.4), *singles, *mixes, *timed]).splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        *(f"only c{harm}" for harm in range(20, 8, -1)),
        "... 8 more, 92.00% or better",
        *("all but 7", "all 20", "all but 6"),
    ]
    assert "99.00%" in lines[-3]
    assert [line.split()[-1] for line in lines[-2:]] == ["1.5", "2.5"]


def test_a_rejected_mix_is_told_with_all_that_it_keeps() -> None:
    kept = ("a", "b", "c", "d", "e")
    timed = Row("u8s8", "mse", "all but 5", kept, Verdict(0.99, None, 0), ms=2.0)
    table = Int8RejectedError("not faster", [timed]).table
    assert table.splitlines()[1:] == [
        "all but 5     u8s8    mse       99.00%         -      0.00%  2.0",
        "wide in the last row: a, b, c, d, e",
    ]
    assert "last row" not in Int8RejectedError("no mix", [replace(timed, ms=None)]).table


def test_the_state_file_is_plain_json_lines(task: SearchTask) -> None:
    search_int8(task)
    entries = [json.loads(line) for line in (task.work / "verdicts.jsonl").read_text().splitlines()]
    assert {len(entry["key"]) for entry in entries} == {64}
    assert entries[0]["quantised"] == list(NAMES)
    assert entries[0]["verdict"]["agreement"] == pytest.approx(1 - sum(LOSSES.values()))
