"""Time of calls of open sessions, by batch size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sshr_deploy.benchmarks.contenders.contender import Contender
from sshr_deploy.benchmarks.contenders.judging import judged, reference_of, why_no_speed
from sshr_deploy.benchmarks.contenders.parts import Parts, parts_of_call
from sshr_deploy.benchmarks.latency.rows import (
    Calls,
    Yardsticks,
    row_of,
    unmeasured_row,
)
from sshr_deploy.benchmarks.latency.settings import LatencySettings
from sshr_deploy.benchmarks.measuring.turns import take_turns
from sshr_deploy.benchmarks.report.recorder import Recorder
from sshr_deploy.benchmarks.report.records import Agreement
from sshr_deploy.bundle import Bundle
from sshr_deploy.errors import SshrDeployError
from sshr_deploy.geometry import PATCH_PX, Geometry
from sshr_deploy.precision import Precision
from sshr_deploy.runtime.contract import MaskRule, Session
from sshr_deploy.runtime.masks import mask_rule
from sshr_deploy.runtime.progress import OnStep, tell_nobody

_CALLS_IN_PARTS = 3
"""Calls that are split into their parts: on a GPU they take longer than those that are timed."""


def measure_calls(
    bundle: Bundle,
    contenders: Sequence[Contender],
    settings: LatencySettings,
    recorder: Recorder,
    ceilings_gflop_per_s: Mapping[Precision, float],
    on_step: OnStep = tell_nobody,
) -> None:
    """Add a row for each contender and batch size, "NAME, batch B", to the recorder.

    A call is what a slide's batch takes, through the session's stream: from patches to label maps,
    or from fields to CAMs, where the bundle is that of `Bundle.on_fields`.
    The contenders take turns; their masks are compared with the reference before they are timed.
    Inputs are those of the bundle's reference. Every row is written as it grows; one that cannot
    be measured says why.

    Raises:
        BundleError: the bundle's reference set is broken.
        SessionError: an engine failed in the middle of its calls.
    """
    shown = reference_of(bundle).patches
    rule = mask_rule(bundle.manifest.profile) if bundle.geometry.is_patch else None
    with ExitStack() as sessions:
        entrants = []
        for contender in contenders:
            on_step(f"{contender.name}: opening it, comparing its masks with the reference")
            entrants += _opened(bundle, contender, settings, recorder, sessions)
        tables = []
        try:
            for batch in settings.batches:
                patches = np.resize(shown, (batch, *shown.shape[1:]))
                table = _Table(bundle, settings, recorder, ceilings_gflop_per_s, batch)
                tables.append(table)
                on_step(f"batch {batch}: {len(entrants)} ways in turns")
                table.measure(entrants, patches, rule)
        finally:  # after Ctrl-C too: what the machine did beside them is known in full only now
            for table in tables:
                table.write()


@dataclass(frozen=True)
class _Entrant:
    """A contender that is open, with its CUDA graphs or without."""

    name: str
    contender: Contender
    session: Session
    agreement: Agreement
    cuda_graphs: bool | None = None
    """None where there is no such choice."""

    def call(self, patches: NDArray[np.uint8], rule: MaskRule | None) -> None:
        """One call as a slide makes it."""
        if self.cuda_graphs is not None:
            self.session.cuda_graphs = self.cuda_graphs
        for _ in self.session.stream([(None, patches)], rule):
            pass

    def same_as_with_graphs(self) -> str | None:
        """Why it is not timed, once its session could capture no call; None where it is."""
        if self.cuda_graphs is False and self.session.cuda_graphs is None:
            return f"{self.contender.name} has no CUDA graphs either; its notes say why"
        return None

    def facts(self) -> dict[str, Any]:
        """For the row: the engine as it is by now."""
        return {
            "peer": self.contender.is_peer,
            "about": self.contender.about,
            "session": asdict(self.session.info),
            "labels_on_device": self.session.labels_on_device,
            "cuda_graphs": None if self.session.cuda_graphs is None else self.cuda_graphs,
        }


def _opened(
    bundle: Bundle,
    contender: Contender,
    settings: LatencySettings,
    recorder: Recorder,
    sessions: ExitStack,
) -> list[_Entrant]:
    """The contender if it opens and its masks agree; else none, and rows that say why."""
    agreement = None
    try:
        session = contender.open(max(settings.batches))
        with ExitStack() as undo:
            undo.enter_context(session)
            agreement = judged(session, contender, bundle)
            reason = why_no_speed(agreement)
            if reason is None or settings.allow_unqualified:
                sessions.push(undo.pop_all())
                graphs = session.cuda_graphs
                ways = [_Entrant(contender.name, contender, session, agreement, graphs)]
                if graphs:
                    name = f"{contender.name} without CUDA graphs"
                    ways.append(_Entrant(name, contender, session, agreement, cuda_graphs=False))
                return ways
    except SshrDeployError as error:
        reason = str(error)
    for batch in settings.batches:
        inputs = inputs_word(bundle.geometry)
        recorder.row(unmeasured_row(contender.name, batch, reason, agreement, inputs))
    return []


class _Table:
    """The rows of one batch size."""

    def __init__(
        self,
        bundle: Bundle,
        settings: LatencySettings,
        recorder: Recorder,
        ceilings_gflop_per_s: Mapping[Precision, float],
        batch: int,
    ) -> None:
        self._ceilings_gflop_per_s = ceilings_gflop_per_s
        self._gflop_per_input = gflop_per_input(bundle)
        self._inputs = inputs_word(bundle.geometry)
        self._settings, self._recorder, self._batch = settings, recorder, batch
        self._calls: dict[str, Calls] = {}

    def measure(
        self, entrants: Sequence[_Entrant], patches: NDArray[np.uint8], rule: MaskRule | None
    ) -> None:
        """Time all entrants in turns; each turn is written."""
        in_turns: dict[str, Callable[[], None]] = {}
        for entrant in entrants:
            try:
                parts = _parts(entrant, patches, rule)
                refused = entrant.same_as_with_graphs()
            except SshrDeployError as error:  # such as too little memory for this batch
                refused = str(error)
            if refused is not None:
                self._recorder.row(
                    unmeasured_row(entrant.name, self._batch, refused, inputs=self._inputs)
                )
                continue
            precision = entrant.contender.precision
            self._calls[entrant.name] = Calls(
                entrant.name,
                self._batch,
                precision,
                entrant.agreement,
                parts,
                entrant.facts(),
                inputs=self._inputs,
            )
            in_turns[entrant.name] = partial(entrant.call, patches, rule)
        for name, samples_ms in take_turns(in_turns, seconds=self._settings.seconds):
            self._calls[name].samples_ms += samples_ms
            self._recorder.row(row_of(self._calls[name], self._yardsticks()))

    def write(self) -> None:
        """Write all rows anew, as what they are compared with has changed meanwhile."""
        against = self._yardsticks()
        for calls in self._calls.values():
            if calls.samples_ms:
                self._recorder.row(row_of(calls, against))

    def _yardsticks(self) -> Yardsticks:
        name = self._settings.base
        able = [c for c in self._calls.values() if c.samples_ms and c.disagrees is None]
        base = next((c for c in able if name in (None, c.name)), None)
        missing = f"{name or 'what to compare with'} was not measured at batch {self._batch}"
        return Yardsticks(
            self._gflop_per_input,
            self._ceilings_gflop_per_s,
            base,
            None if base is not None else missing,
            self._recorder.busy(),
        )


def gflop_per_input(bundle: Bundle) -> float:
    """Of a patch, or of a field, whose convolutions are as many more as it has pixels."""
    return bundle.manifest.model.gflop_per_patch * (bundle.geometry.side_px / PATCH_PX) ** 2


def inputs_word(geometry: Geometry) -> str:
    """ "patches" or "fields"."""
    return "patches" if geometry.is_patch else "fields"


def _parts(entrant: _Entrant, patches: NDArray[np.uint8], rule: MaskRule | None) -> Parts:
    """Medians of the parts of a few calls, after one that warms up."""
    entrant.call(patches, rule)
    found = [parts_of_call(entrant.session, patches, rule) for _ in range(_CALLS_IN_PARTS)]
    columns = zip(*(asdict(parts).values() for parts in found), strict=True)
    return Parts(*(float(np.median(column)) for column in columns))
