"""Search for the convolutions that can be 8-bit: range method, then the fewest layers left wide.

Whole graphs are measured: each candidate is written, judged against the reference
and removed. Verdicts are kept in a file, so an interrupted search goes on where it stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from sshr_deploy.export.graph.conv_layers import conv_layers
from sshr_deploy.export.int8.activation_ranges import (
    Histogram,
    LayerRange,
    RangeMethod,
    histograms,
    layer_ranges,
)
from sshr_deploy.export.int8.qdq_from_onnx import QdqKind, QdqScheme, write_qdq
from sshr_deploy.export.int8.search_state import SearchState, search_keys
from sshr_deploy.export.int8.verdicts import Budget, Int8RejectedError, Row, Verdict
from sshr_deploy.runtime.machine.spread import Spread, quartiles_text

CPU_SCHEMES = (QdqScheme(QdqKind.U8S8), QdqScheme(QdqKind.U8S8, weight_bits=7))
"""One kernel runs both; which is nearer to FP32 depends on the processor's instructions."""
TENSORRT_SCHEMES = (QdqScheme(QdqKind.S8S8),)

Judge = Callable[[Path], Verdict]
"""Compares a graph with the reference."""
Timer = Callable[[Sequence[Path]], Sequence[Spread]]
"""Milliseconds a patch of several graphs, measured in turns; the last against the first."""
SearchProgress = Callable[[int, int, str], None]
"""Steps done, of how many in the whole search (an estimate), and what is being done."""


@dataclass(frozen=True, eq=False)
class SearchTask:
    """A search: the graph, how candidates are judged and timed, and the budget."""

    source: Path
    """FP32 graph of `write_onnx`; ranges are measured on it."""
    patches: NDArray[np.uint8]  # [P, 224, 224, 3], to calibrate on
    schemes: Sequence[QdqScheme]
    judge: Judge
    judge_name: str
    """Tells judges and their references apart: verdicts are kept under it."""
    time_ms: Timer | None
    """None where another machine will run the graph: it is then not asked to be faster."""
    work: Path
    """Folder for what is found out, from which a later search goes on; made if missing."""
    scratch: Path
    """Folder for candidates, which no other search uses."""
    budget: Budget = field(default_factory=Budget)
    graph: Path | None = None
    """Typed graph with `source`'s convolutions that candidates quantise; None for `source`."""


@dataclass(frozen=True, eq=False)
class Setting:
    """How values become 8 bits, whichever layers do."""

    scheme: QdqScheme
    method: RangeMethod
    ranges: dict[str, LayerRange]


@dataclass(frozen=True, eq=False)
class Int8Mix:
    """The 8-bit graph to use, and how it was found."""

    graph: Path
    """The graph that it quantises; see `SearchTask`."""
    setting: Setting
    quantised: tuple[str, ...]
    kept: tuple[str, ...]
    """Layers that stay wide."""
    verdict: Verdict
    rows: tuple[Row, ...]
    """All that was measured; the timed graphs are the last ones."""

    def write(self, path: Path) -> tuple[str, ...]:
        """Write the graph as it was judged; see `write_qdq`."""
        return write_qdq(self.graph, path, self.quantised, self.setting.ranges, self.setting.scheme)


def expected_steps(layers: int, schemes: int) -> int:
    """Steps of a search: calibration, all layers by setting, each alone, the choice, timing.

    A search whose budget holds with all layers quantised ends early.
    """
    bisection = math.ceil(math.log2(layers))
    return 1 + schemes * len(RangeMethod) + layers + 2 * bisection + 1


def search_int8(task: SearchTask, on_progress: SearchProgress = lambda *_: None) -> Int8Mix:
    """Find the smallest set of layers to keep wide so that the budget is met.

    All range methods and schemes are judged with every layer quantised. With the best, each layer
    is judged alone. Layers are kept wide in the order in which they lose agreement alone (by CAM
    error it took 5 layers where this order took 2): bisection finds how many, then each is put back
    if the budget holds without it, until none can be. Each judgement runs the whole graph on all
    of the judge's patches; a search takes about 70 of them.

    Raises:
        Int8RejectedError: no mix meets the budget, or the mix is not faster than the FP32 graph.
        ExportError: the graph cannot be run or quantised.
        OSError: the work folder cannot be written.
    """
    search = _Search(task, on_progress)
    setting, verdict = search.best_setting()
    kept: tuple[str, ...] = ()
    if not task.budget.holds(verdict):
        kept, verdict = search.smallest(setting, search.by_sensitivity(setting))
    search.only_timing_is_left()
    search.check_faster(setting, kept, verdict)
    quantised = search.all_but(kept)
    return Int8Mix(search.graph, setting, quantised, kept, verdict, tuple(search.rows))


class _Search:
    def __init__(self, task: SearchTask, on_progress: SearchProgress) -> None:
        self._task = task
        self._on_progress = on_progress
        self.graph = task.graph or task.source
        self._layers = conv_layers(onnx.load(task.source, load_external_data=False).graph)
        self._names = tuple(layer.name for layer in self._layers)
        task.work.mkdir(parents=True, exist_ok=True)
        keys = search_keys(task.source, self.graph, task.patches, task.judge_name)
        self._state = SearchState(task.work, keys)
        self._done = 0
        self._expected = expected_steps(len(self._names), len(task.schemes))
        self.rows: list[Row] = []

    def best_setting(self) -> tuple[Setting, Verdict]:
        """The scheme and range method that agree best when all layers are quantised."""
        found = self._state.histograms(self._measure)
        self._done += 1
        judged: list[tuple[Setting, Verdict]] = []
        for scheme in self._task.schemes:
            for method in RangeMethod:
                ranges = layer_ranges(
                    found, self._layers, method, levels=scheme.levels, symmetric=scheme.symmetric
                )
                setting = Setting(scheme, method, ranges)
                judged.append((setting, self._judged(setting, self._names)))
        return max(judged, key=lambda pair: _merit(pair[1]))

    def by_sensitivity(self, setting: Setting) -> tuple[str, ...]:
        """All layers, those first that lose most when they alone are quantised."""
        merit = {name: _merit(self._judged(setting, (name,))) for name in self._names}
        return tuple(sorted(self._names, key=merit.__getitem__))

    def smallest(self, setting: Setting, order: Sequence[str]) -> tuple[tuple[str, ...], Verdict]:
        """The layers to keep wide, in the graph's order, and what the rest then reaches."""
        holds = self._task.budget.holds
        too_few, enough = 0, len(order)
        while enough - too_few > 1:
            middle = (too_few + enough) // 2
            if holds(self._judged(setting, self.all_but(order[:middle]))):
                enough = middle
            else:
                too_few = middle
        if enough == len(order):
            raise Int8RejectedError(
                f"no layer can be quantised within the budget of {self._task.budget}; calibrate on "
                "patches like those it is judged on, or export without `precision` int8",
                self.rows,
            )
        kept = list(order[:enough])
        while droppable := self._droppable(setting, kept):
            kept.remove(droppable)
        return self._in_order(kept), self._judged(setting, self.all_but(kept))

    def only_timing_is_left(self) -> None:
        """Count no more steps than there are."""
        self._expected = self._done + 1

    def check_faster(self, setting: Setting, kept: Sequence[str], verdict: Verdict) -> None:
        """Time the FP32 graph, all layers in 8 bits and the mix; adds their rows."""
        if self._task.time_ms is None:
            return
        self._report("timing")
        choices = [self._names, self.all_but(kept)] if kept else [self._names]
        with self._written(setting, choices) as graphs:
            wide, *times = self._task.time_ms([self._task.source, *graphs])
        exact = Verdict(1.0, None if verdict.miou_drop is None else 0.0, 0.0)
        self.rows.append(Row("fp32", "-", "none", self._names, exact, wide.median_ms))
        for quantised, found in zip(choices, times, strict=True):
            row = self._row(setting, quantised, self._judged(setting, quantised, again=True))
            self.rows.append(replace(row, ms=found.median_ms))
        if not times[-1].below(wide):
            raise Int8RejectedError(self._not_faster(len(choices[-1]), times[-1], wide), self.rows)

    def _not_faster(self, quantised: int, narrow: Spread, wide: Spread) -> str:
        calls = f"{quantised} of {len(self._names)} convolutions quantised"
        if wide.below(narrow):
            return (
                f"8 bits are not faster here: {narrow.median_ms:.1f} ms a patch with {calls}, "
                f"{wide.median_ms:.1f} ms with none; export without `precision` int8"
            )
        return (
            f"8 bits are not clearly faster here: {quartiles_text(narrow)} a patch with {calls}, "
            f"{quartiles_text(wide)} with none; export again when the machine is quiet (only the "
            "timing is repeated), or without `precision` int8"
        )

    def all_but(self, kept: Collection[str]) -> tuple[str, ...]:
        """The layers that are not kept wide."""
        return tuple(name for name in self._names if name not in kept)

    def _droppable(self, setting: Setting, kept: Sequence[str]) -> str | None:
        """The least sensitive kept layer that the budget does not need."""
        for name in reversed(kept):
            rest = [other for other in kept if other != name]
            if self._task.budget.holds(self._judged(setting, self.all_but(rest))):
                return name
        return None

    def _measure(self) -> dict[str, Histogram]:
        return histograms(
            self._task.source,
            [tensor for layer in self._layers for tensor in (layer.input, layer.output)],
            self._task.patches,
            lambda done, total: self._report(f"calibrating, {done} of {total} patches"),
        )

    def _judged(
        self, setting: Setting, quantised: Sequence[str], *, again: bool = False
    ) -> Verdict:
        def judge() -> Verdict:
            with self._written(setting, [quantised]) as (graph,):
                return self._task.judge(graph)

        candidate = {
            "scheme": str(setting.scheme),
            "method": setting.method.value,
            "quantised": list(quantised),
        }
        if again:  # known, and its row is there
            return self._state.verdict(candidate, judge)
        self._report(self._label(quantised))
        verdict = self._state.verdict(candidate, judge)
        self._done += 1
        row = self._row(setting, quantised, verdict)
        if row not in self.rows:
            self.rows.append(row)
        return verdict

    @contextmanager
    def _written(self, setting: Setting, choices: Sequence[Sequence[str]]) -> Iterator[list[Path]]:
        paths = [self._task.scratch / f"candidate-{i}.onnx" for i in range(len(choices))]
        try:
            for path, quantised in zip(paths, choices, strict=True):
                write_qdq(self.graph, path, quantised, setting.ranges, setting.scheme)
            yield paths
        finally:
            for path in paths:
                path.unlink(missing_ok=True)
                path.with_name(f"{path.name}.data").unlink(missing_ok=True)

    def _row(self, setting: Setting, quantised: Sequence[str], verdict: Verdict) -> Row:
        return Row(
            str(setting.scheme),
            setting.method.value,
            self._label(quantised),
            self.all_but(quantised),
            verdict,
            alone=len(quantised) == 1,
        )

    def _label(self, quantised: Sequence[str]) -> str:
        kept = self.all_but(quantised)
        if not kept:
            return f"all {len(quantised)}"
        if len(quantised) == 1:
            return f"only {quantised[0]}"
        return f"all but {', '.join(kept)}" if len(kept) <= 4 else f"all but {len(kept)}"

    def _in_order(self, names: Collection[str]) -> tuple[str, ...]:
        return tuple(name for name in self._names if name in names)

    def _report(self, text: str) -> None:
        self._expected = max(self._expected, self._done + 1)
        self._on_progress(self._done, self._expected, text)


def _merit(verdict: Verdict) -> tuple[float, float]:
    """The budget bounds agreement; between equals the CAMs decide."""
    return verdict.agreement, -verdict.cam_error
